"""The search by batch norm scales finds the best of all networks."""

import dataclasses

import networks
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bignas_jax.costs import counting
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions, zoo
from bignas_jax.strategies import additive, batch_norm_scales
from bignas_jax.strategies.problem import Problem, Search
from bignas_jax.values import errors

# Five operations and a skip; fixed depths and widths, as in such spaces.
SPACE = dataclasses.replace(
  networks.ONE_OF,
  resolution=(16, 24),
  train_resolution=(16, 24),
  stages=(
    dataclasses.replace(networks.ONE_OF.stages[0], depth=(2,)),
    dataclasses.replace(networks.ONE_OF.stages[1], width=(16,), depth=(2,)),
  ),
)
EVERY = list(arch_lib.every(SPACE))
MACS = {arch: counting.cost(SPACE, arch).macs for arch in EVERY}


def drawn_shares(seed):
  rng = np.random.default_rng(seed)
  return [
    {choice: float(rng.normal()) for choice in gene.choices}
    for gene in decisions.genes(SPACE)
  ]


def problem(shares, asked, space=SPACE, **limits):
  most = limits.get('max_macs', np.inf)

  def score(arch):
    asked.append(arch)
    return 0.5

  def costs(arch):
    return {'macs': counting.cost(space, arch).macs}

  return Problem(
    space,
    score,
    costs,
    lambda arch: costs(arch)['macs'] <= most,
    arch_lib.smallest(space),
    limited=limits,
    shares=lambda: shares,
  )


@given(st.integers(0, 99), st.floats(0, 1))
def test_no_network_under_the_limit_has_more(seed, share):
  assert len(EVERY) == arch_lib.count(SPACE)
  shares, asked = drawn_shares(seed), []
  low, high = min(MACS.values()), max(MACS.values())
  most = low + share * (high - low)
  one = problem(shares, asked, max_macs=most)
  batch_norm_scales.search(one, Search())
  (found,) = asked
  sums = {a: additive.predict(SPACE, shares, a) for a in EVERY}
  best = max(sums[arch] for arch in EVERY if MACS[arch] <= most)
  assert MACS[found] <= most
  np.testing.assert_allclose(sums[found], best, rtol=1e-12)


def test_what_it_cannot_answer_is_refused():
  shares = drawn_shares(0)
  both = problem(shares, [], max_macs=1e9, max_params=1e9)
  with pytest.raises(errors.UserError, match='one upper limit'):
    batch_norm_scales.search(both, Search())
  space = zoo.get('attentive_nas')
  flat = [dict.fromkeys(g.choices, 0.0) for g in decisions.genes(space)]
  with pytest.raises(errors.UserError, match='no sums over decisions'):
    batch_norm_scales.search(problem(flat, [], space), Search())
