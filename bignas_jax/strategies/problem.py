"""Choosing children: what search algorithms share. They never see the model.

A strategy is a function of (problem, settings) that asks for scores until it
has enough; what it asked for is the result. It is deterministic in its seed,
so that a search that was interrupted is repeated, with known scores looked up.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, NamedTuple

import numpy as np

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.limits import Costs
from bignas_jax.spaces.space import Space
from bignas_jax.values import schema

_TRIES = 1000  # draws for each child wanted, before giving up


@dataclasses.dataclass(kw_only=True, slots=True)
class Search:
  """How children are searched.

  Attributes:
    evaluations: children that a strategy tries; of `coarse_to_fine`, the
      skeletons that keep the limits, and the mutants.
    seed: of all draws.
    mutation: chance that a mutant's entry is redrawn.
    depth_presets: coarse grid points between the smallest and the biggest
      depths; likewise for widths and kernel sizes.
    width_presets: see above.
    kernel_presets: see above.
    mutants: children to try around the best of the grid.
    population: children that `evolution`, `nsga2` and `predictor` begin with,
      and that a generation of `nsga2` has.
    bins: of cost, whose best children are parents in `evolution`.
    objectives: costs that `nsga2` lowers while it raises accuracy.
    candidates: children that `predictor` predicts for each that it evaluates.
  """

  evaluations: schema.Natural = 128
  seed: schema.Seed = 0
  mutation: schema.PositiveShare = 0.1
  depth_presets: schema.Natural = 4
  width_presets: schema.Natural = 2
  kernel_presets: Annotated[int, schema.Meta(ge=1, le=4)] = 4
  mutants: schema.Whole = 64
  population: schema.AtLeastTwo = 16
  bins: schema.Natural = 4
  objectives: tuple[str, ...] = ('macs',)
  candidates: schema.AtLeastTwo = 64


class Problem(NamedTuple):
  """What a strategy knows.

  Attributes:
    space: to choose from.
    score: top-1 of a child, 0..1; this is what takes time.
    costs: of a child, by name.
    fits: whether a child keeps the limits.
    start: a child that does.
    known: scores of children that were evaluated before this search.
  """

  space: Space
  score: Callable[[Arch], float]
  costs: Callable[[Arch], Costs]
  fits: Callable[[Arch], bool]
  start: Arch
  known: Mapping[Arch, float] = {}


def random(problem: Problem, settings: Search) -> None:
  """Uniformly drawn children that fit."""
  rng = arch_lib.generator(settings.seed)
  for arch in draw(problem, settings.evaluations, rng):
    problem.score(arch)


def draw(problem: Problem, n: int, rng: np.random.Generator) -> list[Arch]:
  """Up to n different children that fit, uniform where that is possible.

  Where limits are so narrow that uniform draws miss them, the others are
  mutants of what was found, at first of the problem's start.
  """
  found: dict[Arch, None] = {}

  def neighbour() -> Arch:
    parent = list(found)[int(rng.integers(len(found)))]
    chance = float(rng.uniform(0, 0.5))
    return arch_lib.mutate(problem.space, parent, rng, chance)

  for make in (lambda: arch_lib.sample(problem.space, rng), neighbour):
    while len(found) < n:
      arch = try_new(problem, found, make)
      if arch is None:
        break
      found[arch] = None
    if not found:
      found[problem.start] = None
  return list(found)


def try_new(
  problem: Problem, taken: Mapping[Arch, object], make: Callable[[], Arch]
) -> Arch | None:
  """The first child of `make` that fits and is not taken; None: none came."""
  for _ in range(_TRIES):
    arch = make()
    if arch not in taken and problem.fits(arch):
      return arch
  return None


def mostly_first(parents: Sequence[Arch], rng: np.random.Generator) -> Arch:
  """Half of the time the first, a quarter of the time the second, ..."""
  return parents[min(int(rng.geometric(0.5)), len(parents)) - 1]


def front(points: Iterable[tuple]) -> list[tuple]:
  """Those (cost, score, ...) that no other beats in both; by rising cost."""
  best, kept = -np.inf, []
  for point in sorted(points, key=lambda p: (p[0], -p[1])):
    if point[1] > best:
      best = point[1]
      kept.append(point)
  return kept
