"""Evolution of a whole front: the population is the best child of each cost.

Source: the search of AttentiveNAS (arXiv:2011.09011) and AlphaNet
(arXiv:2102.07954). Unlike in `evolution`, bins of cost are fixed, all of their
children are parents equally often, and children are born in generations.
"""

import functools
import math
from collections.abc import Mapping

import numpy as np

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.strategies import problem as problem_lib
from bignas_jax.strategies import variation
from bignas_jax.strategies.problem import Problem, Search


def search(problem: Problem, settings: Search) -> None:
  """Scores random children, then generations of mutants and crossovers.

  The first generation contains the smallest child, or the problem's start if
  that breaks the limits. Of a later one, half are mutants of one parent, and
  half are crossovers of two. The parents are the bests of all bins of MACs;
  together they hold the front of accuracy against MACs.
  """
  rng = arch_lib.generator(settings.seed, 6)
  size = min(settings.population, settings.evaluations)
  born = _first(problem, size, rng)
  macs = [problem.costs(arch)['macs'] for arch in born]
  width = bin_width(macs, settings.front_bins)
  scored: dict[Arch, float] = {}
  while born:  # else all children around the population were scored
    scored |= {arch: problem.score(arch) for arch in born}
    parents = list(population(problem, scored, width).values())
    size = min(settings.population, settings.evaluations - len(scored))
    born = _born(problem, parents, scored, size, settings.mutation, rng)


def bin_width(macs: list[float], bins: int) -> float:
  """Returns the MACs of a bin: so many bins span these costs."""
  return max(max(macs) - min(macs), 1) / bins


def population(
  problem: Problem, scored: Mapping[Arch, float], width: float
) -> dict[int, Arch]:
  """Returns the most accurate child of each bin, by the bin's number.

  Bin n has the children of n to n + 1 widths. Of children that are equally
  accurate, the cheapest is kept.
  """
  macs = {arch: problem.costs(arch)['macs'] for arch in scored}
  best: dict[int, Arch] = {}
  for arch in sorted(scored, key=lambda a: (-scored[a], macs[a])):
    best.setdefault(math.floor(macs[arch] / width), arch)
  return best


def _first(problem: Problem, size: int, rng: np.random.Generator) -> list[Arch]:
  """Returns the smallest child, if it fits, and random ones."""
  smallest = arch_lib.smallest(problem.space)
  first = smallest if problem.fits(smallest) else problem.start
  others = problem_lib.draw(problem, size, rng)
  return list(dict.fromkeys([first, *others]))[:size]


def _born(
  problem: Problem,
  parents: list[Arch],
  scored: Mapping[Arch, float],
  size: int,
  mutation: float,
  rng: np.random.Generator,
) -> list[Arch]:
  """Returns a generation of children that fit and have no scores."""
  pick = lambda: parents[int(rng.integers(len(parents)))]  # noqa: E731
  mutant = lambda: variation.mutate(problem.space, pick(), rng, mutation)  # noqa: E731
  cross = lambda: variation.crossover(problem.space, pick(), pick(), rng)  # noqa: E731
  born: dict[Arch, None] = {}
  for make, number in ((cross, size // 2), (mutant, size)):
    draw = functools.partial(problem_lib.try_new, problem, make=make)
    while len(born) < number and (arch := draw(excluded={**scored, **born})):
      born[arch] = None
  return list(born)
