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
  smallest_resolution: sandwich.SmallestResolution = 'smallest',
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
    smallest_resolution: resolution of the smallest child, as in `sandwich`.
    bucket_macs: greatest width of the buckets of cost, MACs.
  """
  plain = sandwich.sandwich(space, random_children, smallest_resolution)

  def sample(
    state: State, seed: int, step: int, score: Score | None = None
  ) -> list[Child]:
    drawn = plain.sample(state, seed, step, None)
    if score is None:
      return drawn
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
    chosen = iter([slot[i] for slot, i in zip(slots, best, strict=True)])
    return [
      Child('random', next(chosen)) if child.role == 'random' else child
      for child in drawn
    ]

  return plain._replace(sample=sample, scored=True)
