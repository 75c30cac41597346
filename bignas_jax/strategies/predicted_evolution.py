"""Evolution over predicted accuracies, which evaluates no child.

Source: Once-for-All (arXiv:1908.09791), section 3.4, and its authors' code,
whose numbers are the defaults of `Search`: a population of 100 and 500
generations, of which a quarter are parents, and half of whose children are
mutants. In a big space this takes half a minute of a processor.
"""

from collections.abc import Callable, Sequence

import numpy as np

from bignas_jax.spaces.arch import Arch
from bignas_jax.strategies import problem as problem_lib
from bignas_jax.strategies import variation
from bignas_jax.strategies.problem import Problem, Search


def evolve(
  problem: Problem,
  predict: Callable[[Sequence[Arch]], list[float]],
  settings: Search,
  rng: np.random.Generator,
) -> dict[Arch, float]:
  """Returns the predictions of all children that were met; all of them fit.

  Args:
    problem: problem whose limits all children keep; no score is asked for.
    predict: function that predicts the top-1 of children.
    settings: settings of the search: `predicted_population`, `generations`,
      `parent_share`, `mutant_share` and `mutation`.
    rng: generator, which is consumed.
  """
  population = problem_lib.draw(problem, settings.predicted_population, rng)
  predicted = dict(zip(population, predict(population), strict=True))
  for _ in range(settings.generations):
    ranked = sorted(population, key=lambda arch: -predicted[arch])
    survivors = round(settings.parent_share * settings.predicted_population)
    parents = ranked[: max(1, survivors)]
    born = _born(problem, parents, settings, rng)
    new = [arch for arch in born if arch not in predicted]
    if new:
      predicted |= zip(new, predict(new), strict=True)
    population = list(dict.fromkeys([*parents, *born]))
  return predicted


def _born(
  problem: Problem,
  parents: list[Arch],
  settings: Search,
  rng: np.random.Generator,
) -> list[Arch]:
  """Returns different children that fit: mutants, then crossovers."""
  space, size = problem.space, settings.predicted_population
  pick = lambda: parents[int(rng.integers(len(parents)))]  # noqa: E731
  mutant = lambda: variation.mutate(space, pick(), rng, settings.mutation)  # noqa: E731
  cross = lambda: variation.crossover(space, pick(), pick(), rng)  # noqa: E731
  mutants = round(settings.mutant_share * size)
  born = [
    problem_lib.try_new(problem, {}, make)
    for make in [mutant] * mutants + [cross] * (size - mutants)
  ]
  return [arch for arch in dict.fromkeys(born) if arch is not None]
