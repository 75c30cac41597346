"""The sandwich rule with random children that are chosen by their scores."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from bignas_jax.costs import cost_buckets, counting
from bignas_jax.policies import sandwich
from bignas_jax.policies.policies import Child, Policy, Score, State
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.values import schema

_FEWEST = 20  # buckets of a space whose children cost little

# Children -> their scores, of which a lower one is better.
Errors = Callable[[Sequence[Arch]], list[float]]


@dataclasses.dataclass(kw_only=True, slots=True)
class Scores:
  """What the candidates of a child are compared by, in a config.

  Attributes:
    by: the `loss` on the step's batch, or the error that a `predictor` expects.
    archive: file of evaluated children that the predictor learns from, which is
      `search/archive.csv` of another run's work directory.
    children: number of first lines of the file that it learns from; 0: all, and
      their number is set at start.
    sha256: digest of these lines' children, set at start (`warm_start`).
    predictor: kind of the predictor: gradient-boosted `trees`, or `mlp`, the
      network of Once-for-All.
  """

  by: Literal['loss', 'predictor'] = 'loss'
  archive: str = ''
  children: schema.Whole = 0
  sha256: str = ''
  predictor: Literal['trees', 'mlp'] = 'trees'


def attentive(
  space: Space,
  choice: Literal['best', 'worst'] = 'best',
  candidates: int = 3,
  random_children: int = 2,
  smallest_resolution: sandwich.SmallestResolution = 'smallest',
  by: Literal['loss', 'predictor'] = 'loss',
  predicted: Errors | None = None,
  bucket_macs: int = 25_000_000,
) -> Policy:
  """Returns AttentiveNAS's policy (CVPR 2021, section 3).

  For each random child, candidates of one drawn cost are compared, and the one
  with the lowest score (BestUp) or with the highest score (WorstUp) is trained.

  Args:
    space: space that children are drawn from.
    choice: which of the candidates is trained.
    candidates: number of candidates for each random child.
    random_children: number of random children in a step.
    smallest_resolution: resolution of the smallest child, as in `sandwich`.
    by: what a score is: the loss on the step's batch, or a predicted error.
    predicted: predicts errors, equal on all hosts; None: children are drawn
      without a comparison, as by a policy that is only described.
    bucket_macs: greatest width of the buckets of cost, MACs.
  """
  plain = sandwich.sandwich(space, random_children, smallest_resolution)

  def sample(
    state: State, seed: int, draw: int, score: Score | None = None
  ) -> list[Child]:
    drawn = plain.sample(state, seed, draw, None)
    compare = score if by == 'loss' else predicted
    if compare is None:
      return drawn
    rng = arch_lib.generator(seed, draw)
    most = counting.cost(space, plain.static['biggest']).macs
    width = min(bucket_macs, most // _FEWEST)
    table = cost_buckets.build(space, width)
    slots = [
      cost_buckets.draw(space, table, candidates, rng)
      for _ in range(random_children)
    ]
    scores = np.array(compare([arch for slot in slots for arch in slot]))
    scores = scores.reshape(len(slots), candidates)
    best = scores.argmin(1) if choice == 'best' else scores.argmax(1)
    chosen = iter([slot[i] for slot, i in zip(slots, best, strict=True)])
    return [
      Child('random', next(chosen)) if child.role == 'random' else child
      for child in drawn
    ]

  return plain._replace(sample=sample, scored=by == 'loss')
