"""The sandwich rule with random children that are chosen by their losses."""

from typing import Literal

import numpy as np

from bignas_jax.costs import cost_buckets, counting
from bignas_jax.policies import sandwich
from bignas_jax.policies.policies import Child, Policy, Score, State
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.space import Space

_SAMPLES = 5000  # children that costs are counted of, in seconds
_FEWEST = 20  # buckets of a space whose children cost little


def attentive(
  space: Space,
  choice: Literal['best', 'worst'] = 'best',
  candidates: int = 3,
  random_children: int = 2,
  bucket_macs: int = 25_000_000,
) -> Policy:
  """Returns AttentiveNAS's policy (CVPR 2021, section 3).

  For each random child, candidates of one drawn cost are compared, and the one
  with the lowest loss (BestUp) or with the highest loss (WorstUp) is trained.

  Args:
    space: space that children are drawn from.
    choice: which of the candidates is trained.
    candidates: number of candidates for each random child.
    random_children: number of random children in a step.
    bucket_macs: greatest width of the buckets of cost, MACs.
  """
  plain = sandwich.sandwich(space, random_children)

  def sample(
    state: State, seed: int, step: int, score: Score | None = None
  ) -> list[Child]:
    if score is None:
      return plain.sample(state, seed, step, None)
    rng = arch_lib.generator(seed, step)
    most = counting.cost(space, plain.static['biggest']).macs
    width = min(bucket_macs, most // _FEWEST)
    table = cost_buckets.build(space, width, _SAMPLES)
    slots = [
      cost_buckets.draw(space, table, candidates, rng)
      for _ in range(random_children)
    ]
    losses = np.array(score([arch for slot in slots for arch in slot]))
    losses = losses.reshape(len(slots), candidates)
    best = losses.argmin(1) if choice == 'best' else losses.argmax(1)
    chosen = [slot[i] for slot, i in zip(slots, best, strict=True)]
    fixed = [Child(role, arch) for role, arch in plain.static.items()]
    return [*fixed, *(Child('random', arch) for arch in chosen)]

  return plain._replace(sample=sample, scored=True)
