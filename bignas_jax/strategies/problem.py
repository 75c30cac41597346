"""What search strategies share: settings, the problem, and random draws.

A strategy is a function of (problem, settings). It asks for scores until it has
enough, and of the children that it asked for, those that keep the limits are
its result. It never sees the model. It is deterministic in its seed: an
interrupted search is repeated with the known scores looked up.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np

from bignas_jax.costs.limits import Costs
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.strategies import variation
from bignas_jax.values import schema

Shares = Sequence[Mapping[int, float]]  # by decision and choice
_TRIES = 1000  # draws for each child wanted, before giving up


@dataclasses.dataclass(kw_only=True, slots=True)
class Search:
  """Settings of a search.

  Attributes:
    evaluations: number of children that a strategy evaluates, at most in
      `greedy`; `coarse_to_fine` instead evaluates the skeletons that keep the
      limits, and the mutants.
    seed: seed of all random draws.
    mutation: probability that an entry of a mutant is redrawn.
    depth_presets: number of grid points between the smallest and the biggest
      depths, in `coarse_to_fine`.
    width_presets: number of grid points between the smallest and the biggest
      widths, in `coarse_to_fine`.
    kernel_presets: number of kernel-size presets that `coarse_to_fine` tries,
      of four: small, big, big in the later stages, big in the earlier stages.
    mutants: number of mutants to evaluate after the grid.
    population: number of random children that `evolution`, `nsga2`,
      `pareto_bins` and `predictor` begin with, and size of a generation of
      `nsga2` and `pareto_bins`.
    bins: number of bins of cost, whose best children are parents in
      `evolution`.
    front_bins: number of bins of cost that span the first children of
      `pareto_bins`; children of other costs are in further bins.
    objectives: costs that `nsga2` lowers while it raises accuracy.
    predictor: what `predictor` predicts with: gradient-boosted `trees`, or
      `mlp`, the network of Once-for-All.
    proposals: children that `predictor` predicts: `draws`, of which half are
      mutants of the best and half are random, or an `evolution` of predictions.
    candidates: number of draws for each child that `predictor` evaluates.
    predicted_population: size of a generation of the proposals' evolution.
    generations: number of generations of the proposals' evolution.
    parent_share: parents in the proposals' evolution, as a share of a
      generation.
    mutant_share: mutants in the proposals' evolution, as a share of a
      generation; the others are crossovers.
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
  front_bins: schema.Natural = 16
  objectives: tuple[str, ...] = ('macs',)
  predictor: Literal['trees', 'mlp'] = 'trees'
  proposals: Literal['draws', 'evolution'] = 'draws'
  candidates: schema.AtLeastTwo = 64
  predicted_population: schema.AtLeastTwo = 100
  generations: schema.Whole = 500
  parent_share: schema.PositiveShare = 0.25
  mutant_share: schema.PositiveShare = 0.5


class Problem(NamedTuple):
  """Everything that a strategy knows.

  Attributes:
    space: space to choose children from.
    score: function that returns the top-1 of a child, 0..1; the slow part.
    costs: function that returns the costs of a child by name.
    fits: function that returns whether a child keeps the limits.
    start: a child that keeps the limits.
    archived: scores of children that were evaluated before this search.
    limited: limits by field, such as `max_macs`.
    shares: function that returns the share of each choice of each decision in
      a score that needs no images, and raises UserError if the space has none;
      None: only `batch_norm_scales` asks for it.
  """

  space: Space
  score: Callable[[Arch], float]
  costs: Callable[[Arch], Costs]
  fits: Callable[[Arch], bool]
  start: Arch
  archived: Mapping[Arch, float] = {}
  limited: Mapping[str, float] = {}
  shares: Callable[[], Shares] | None = None


def random(problem: Problem, settings: Search) -> None:
  """Scores uniformly drawn children that keep the limits."""
  rng = arch_lib.generator(settings.seed)
  for arch in draw(problem, settings.evaluations, rng):
    problem.score(arch)


def draw(problem: Problem, n: int, rng: np.random.Generator) -> list[Arch]:
  """Draws up to `n` different children that keep the limits.

  The draws are uniform where possible. If limits are so narrow that uniform
  draws miss them, the remaining children are mutants of those drawn, at first
  of the problem's start.
  """
  children: dict[Arch, None] = {}

  def neighbour() -> Arch:
    parent = list(children)[int(rng.integers(len(children)))]
    chance = float(rng.uniform(0, 0.5))
    return variation.mutate(problem.space, parent, rng, chance)

  for make in (lambda: arch_lib.sample(problem.space, rng), neighbour):
    while len(children) < n:
      arch = try_new(problem, children, make)
      if arch is None:
        break
      children[arch] = None
    if not children:
      children[problem.start] = None
  return list(children)


def try_new(
  problem: Problem, excluded: Mapping[Arch, object], make: Callable[[], Arch]
) -> Arch | None:
  """Returns the first child of `make` that fits and is not excluded, or None.

  None means that no such child came in `_TRIES` calls of `make`.
  """
  for _ in range(_TRIES):
    arch = make()
    if arch not in excluded and problem.fits(arch):
      return arch
  return None


def mostly_first(parents: Sequence[Arch], rng: np.random.Generator) -> Arch:
  """Returns the first parent with probability 1/2, the second with 1/4, ..."""
  return parents[min(int(rng.geometric(0.5)), len(parents)) - 1]


def front(points: Iterable[tuple]) -> list[tuple]:
  """Returns the points (cost, score, ...) that no other point beats in both.

  The points are ordered by rising cost.
  """
  best, kept = -np.inf, []
  for point in sorted(points, key=lambda p: (p[0], -p[1])):
    if point[1] > best:
      best = point[1]
      kept.append(point)
  return kept
