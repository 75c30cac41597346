"""Evolutionary search: offspring of the best children at each cost.

Parents are the best children of bins of cost, as in the search of AttentiveNAS
(arXiv:2011.09011, section 5), so that one search finds children of all costs
within the limits.
"""

import numpy as np

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.strategies import problem as problem_lib
from bignas_jax.strategies import variation
from bignas_jax.strategies.problem import Problem, Search


def search(problem: Problem, settings: Search) -> None:
  """Scores random children, then offspring of the best, one at a time."""
  rng = arch_lib.generator(settings.seed, 2)
  first = min(settings.population, settings.evaluations)
  scored = {
    arch: problem.score(arch) for arch in problem_lib.draw(problem, first, rng)
  }
  while len(scored) < settings.evaluations:
    parents = best_of_bins(problem, scored, settings.bins)
    arch = problem_lib.try_new(
      problem, scored, lambda p=parents: _born(problem, p, settings, rng)
    )
    if arch is None:
      return  # all children around the parents are known
    scored[arch] = problem.score(arch)


def best_of_bins(
  problem: Problem, scored: dict[Arch, float], bins: int
) -> list[Arch]:
  """Returns the best child of each bin of MACs, the most accurate first.

  The bins are equally wide and span from the cheapest to the most expensive
  child.
  """
  macs = {arch: problem.costs(arch)['macs'] for arch in scored}
  low, high = min(macs.values()), max(macs.values())
  best: dict[int, Arch] = {}
  for arch in sorted(scored, key=lambda a: (-scored[a], macs[a])):
    place = (macs[arch] - low) / max(high - low, 1)
    best.setdefault(min(int(place * bins), bins - 1), arch)
  return list(best.values())


def _born(
  problem: Problem,
  parents: list[Arch],
  settings: Search,
  rng: np.random.Generator,
) -> Arch:
  """Returns a mutant of one parent or, equally often, of a crossover of two."""
  arch = problem_lib.mostly_first(parents, rng)
  if rng.random() < 0.5:
    father = parents[int(rng.integers(len(parents)))]
    arch = variation.crossover(problem.space, arch, father, rng)
  return variation.mutate(problem.space, arch, rng, settings.mutation)
