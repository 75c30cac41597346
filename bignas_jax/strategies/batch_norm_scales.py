"""The best network by the sum of its batch norm scales, without images.

BN-NAS (ICCV 2021), section 3.2: a layer's operation counts as much as the scale
of its last batch norm. Such a score adds up over layers, and so do costs: an
exact dynamic programme finds the best network under a limit, where the paper
has an evolution.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.strategies.problem import Problem, Search, Shares
from bignas_jax.values import errors

_CHECKED = 20  # random children whose costs must add up
_COST = 'macs'  # the cost of an unlimited search, of which any would do


class Point(NamedTuple):
  """A network that no cheaper one beats.

  Attributes:
    cost: its cost.
    score: the sum of its shares.
    values: its values in the order of `decisions.genes`.
  """

  cost: float
  score: float
  values: tuple[int, ...]


def search(problem: Problem, settings: Search) -> None:
  """Scores the child whose shares have the greatest sum under the limit.

  Raises:
    UserError: the space has no operations with parameters of their own, the
      limits are others than one upper limit, or costs do not add up over
      decisions.
  """
  del settings
  assert problem.shares is not None, 'shares are what it searches by'
  check(problem.limited)
  names = [name.removeprefix('max_') for name in problem.limited] or [_COST]
  space, shares = problem.space, problem.shares()

  def cost(arch: Arch) -> float:
    return problem.costs(arch)[names[0]]

  fitting = (
    arch_lib.write(space, point.values)
    for point in reversed(front(space, shares, cost))
  )
  problem.score(next(arch for arch in fitting if problem.fits(arch)))


def check(limits: Mapping[str, float]) -> None:
  """Raises UserError unless there is one upper limit at most.

  Args:
    limits: limits by field, such as `max_macs`.
  """
  if len(limits) > 1 or any(name.startswith('min') for name in limits):
    allowed = 'one upper limit at most, for --strategy=batch_norm_scales'
    named = ', '.join(f'--{name}' for name in limits)
    raise errors.UserError(named, list(limits.values()), allowed)


def front(
  space: Space, shares: Shares, cost: Callable[[Arch], float]
) -> list[Point]:
  """Returns the networks that no cheaper one beats, by rising cost and score.

  Args:
    space: space of one number of blocks and one width in each stage.
    shares: share of each choice of each decision in the score.
    cost: function that returns the cost of a child.

  Raises:
    UserError: the costs of some children are not sums over decisions.
  """
  points = []
  for size in space.resolution:
    points += _of_resolution(space, shares, cost, size)
  return _unbeaten(points)


def _of_resolution(space: Space, shares: Shares, cost, size: int):
  genes = decisions.genes(space)
  base = [size, *(gene.choices[0] for gene in genes[1:])]
  start = cost(arch_lib.write(space, base))
  if math.isinf(start):  # a latency at a resolution that the table lacks
    return []
  extra = [
    {
      choice: cost(arch_lib.write(space, [*base[:i], choice, *base[i + 1 :]]))
      - start
      for choice in gene.choices
    }
    for i, gene in enumerate(genes)
    if i > 0  # the first is the resolution
  ]
  _check_sums(space, cost, size, start, extra)
  points = [Point(start, shares[0][size], (size,))]
  for more, share in zip(extra, shares[1:], strict=True):
    points = _unbeaten(
      Point(p.cost + more[c], p.score + share[c], (*p.values, c))
      for p in points
      for c in more
    )
  return points


def _check_sums(space: Space, cost, size: int, start, extra) -> None:
  rng = arch_lib.generator(0)
  for _ in range(_CHECKED):
    values = [size, *arch_lib.read(space, arch_lib.sample(space, rng))[1:]]
    own = cost(arch_lib.write(space, values))
    added = sum(more[c] for more, c in zip(extra, values[1:], strict=True))
    if abs(start + added - own) > 1e-9 * own:
      allowed = 'another one: costs of this space are no sums over decisions'
      raise errors.UserError('--strategy', 'batch_norm_scales', allowed)


def _unbeaten(points) -> list[Point]:
  kept: list[Point] = []
  for point in sorted(points, key=lambda p: (p.cost, -p.score)):
    if not kept or point.score > kept[-1].score:
      kept.append(point)
  return kept
