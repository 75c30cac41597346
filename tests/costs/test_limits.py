"""Limits on costs: what fits, what no child can keep, and what is nearest."""

import functools
import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tiny

from bignas_jax.costs import limits
from bignas_jax.costs.limits import Limits
from bignas_jax.selection import child_costs
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions, zoo
from bignas_jax.values import errors

_NAMES = ('bignas', 'attentive_nas', 'mnist', 'mobilenet_v1')
SPACES = {s.name: s for s in (tiny.SPACE, *map(zoo.get, _NAMES))}


@functools.cache
def costs_of(name):
  return child_costs.of(SPACES[name])


def random_child(name, seed):
  return arch_lib.sample(SPACES[name], np.random.default_rng(seed))


COSTS = 'macs', 'params', 'activation_bytes', 'file_bytes'


@hypothesis.given(
  name=st.sampled_from(sorted(SPACES)),
  seed=st.integers(0, 10**6),
  slack=st.floats(0.01, 0.1),
  chosen=st.sets(st.sampled_from(COSTS), min_size=1),
)
@hypothesis.settings(max_examples=25)
def test_what_a_child_keeps_is_found(name, seed, slack, chosen):
  # A band around all chosen costs of a child: it may be narrow, but is there.
  costs = costs_of(name)
  there = costs(random_child(name, seed))
  asked = Limits(
    least={c: there[c] * (1 - slack) for c in chosen},
    most={c: there[c] * (1 + slack) for c in chosen},
  )
  found = limits.feasible(SPACES[name], costs, asked)
  assert arch_lib.contains(SPACES[name], found)
  assert asked.fit(costs(found))


@pytest.mark.parametrize('name', sorted(SPACES))
@pytest.mark.parametrize('cost', COSTS)
@pytest.mark.parametrize('end', ['max', 'min'])
def test_an_impossible_limit_names_the_nearest(name, cost, end):
  space, costs = SPACES[name], costs_of(name)
  genes = decisions.genes(space)
  position, beyond = (0, 0.99) if end == 'max' else (-1, 1.01)
  values = [gene.choices[position] for gene in genes]
  nearest = costs(arch_lib.write(space, values))[cost]
  field = f'{end}_{cost}'
  asked = limits.from_dict({field: nearest * beyond})
  with pytest.raises(errors.UserError, match=f'^--{field}') as refused:
    limits.feasible(space, costs, asked)
  assert str(nearest) in str(refused.value)
  # What it names can be had.
  again = limits.from_dict({field: nearest})
  assert costs(limits.feasible(space, costs, again))[cost] == nearest


@pytest.mark.parametrize('name', ['attentive_nas', 'bignas', 'mnist'])
def test_an_impossible_set_names_one_child_that_is_near(name):
  # As many operations as the biggest, in a file as small as the smallest's.
  space, costs = SPACES[name], costs_of(name)
  small, big = (
    costs(make(space)) for make in (arch_lib.smallest, arch_lib.biggest)
  )
  asked = Limits(least={'macs': big['macs']}, most={'params': small['params']})
  with pytest.raises(errors.UserError) as refused:
    limits.feasible(space, costs, asked)
  text = str(refused.value)
  assert 'min_macs' in text and 'max_params' in text
  assert 'nearest' in text and '\n' not in text


def test_contradictory_limits_are_refused():
  asked = Limits(least={'macs': 2e6}, most={'macs': 1e6})
  with pytest.raises(errors.UserError, match=r'--min_macs.*<= 1e'):
    limits.feasible(zoo.MNIST, costs_of('mnist'), asked)


def test_limits_are_read_back():
  asked = Limits(least={'macs': 1.0}, most={'macs': 2.0, 'params': 3.0})
  assert limits.from_dict(asked.to_dict()) == asked
  assert limits.from_dict({'max_macs': None}) == Limits()


def test_no_limits_fit_everything():
  costs = costs_of('tiny')
  child = limits.feasible(tiny.SPACE, costs, Limits())
  assert Limits().fit(costs(child))


@pytest.mark.parametrize(
  'value',
  [*map(float, ('nan', 'inf', '-inf')), -1, '5', True, [1], 10**400],
)
@pytest.mark.parametrize('field', ['max_macs', 'min_latency_ms'])
def test_what_is_no_finite_number_is_no_limit(field, value):
  with pytest.raises(errors.UserError, match=f'^--{field}: got') as refused:
    limits.from_dict({field: value})
  assert 'number' in str(refused.value) and '\n' not in str(refused.value)


def test_numbers_of_any_kind_are_one_limit():
  found = [
    limits.from_dict({'max_macs': kind(5)}).to_dict()
    for kind in (int, float, np.int64, np.float32)
  ]
  assert found == [{'max_macs': 5.0}] * 4
  assert all(type(f['max_macs']) is float for f in found)


@pytest.mark.parametrize(
  'asked',
  [
    Limits(least={'latency_ms': 1.0}),
    Limits(most={'latency_ms': 1e300}),
    Limits(required=('latency_ms',)),
  ],
)
def test_an_unknown_cost_keeps_no_limit(asked):
  """Nor does a child of that cost begin a search."""
  space, costs = tiny.SPACE, costs_of('tiny')

  def with_latency(arch):
    known = arch.resolution == 12
    return {**costs(arch), 'latency_ms': 2.0 if known else math.inf}

  assert not asked.fit({'latency_ms': math.inf})
  assert asked.fit({'latency_ms': 2.0})
  assert limits.feasible(space, with_latency, asked).resolution == 12
  assert asked.required == () or asked.to_dict() == {}
