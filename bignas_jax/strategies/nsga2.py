"""NSGA-II: a multi-objective search for children that trade accuracy for costs.

Source: Deb et al. 2002, "A fast and elitist multiobjective genetic algorithm:
NSGA-II". All children keep the limits, so that no rule for constraints is
needed. All objectives are minimised.
"""

import numpy as np

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.strategies import problem as problem_lib
from bignas_jax.strategies import variation
from bignas_jax.strategies.problem import Problem, Search


def search(problem: Problem, settings: Search) -> None:
  """Raises accuracy and lowers `settings.objectives` over generations."""
  rng = arch_lib.generator(settings.seed, 3)
  size = min(settings.population, settings.evaluations)
  population = problem_lib.draw(problem, size, rng)
  scored = {arch: problem.score(arch) for arch in population}
  while len(scored) < settings.evaluations:
    parents = _tournament(objectives(problem, settings, scored, population))
    born: dict[Arch, None] = {}
    while len(born) < min(size, settings.evaluations - len(scored)):
      arch = problem_lib.try_new(
        problem,
        scored | born,
        lambda old=population, choose=parents: _cross(
          problem, old, choose, settings, rng
        ),
      )
      if arch is None:
        break
      born[arch] = None
    if not born:
      return  # all children around the population are known
    scored |= {arch: problem.score(arch) for arch in born}
    both = [*population, *born]
    kept = survivors(objectives(problem, settings, scored, both), size)
    population = [both[i] for i in kept]


def objectives(
  problem: Problem,
  settings: Search,
  scored: dict[Arch, float],
  archs: list[Arch],
) -> np.ndarray:
  """Returns the objectives, [children, objectives]: the error, then costs."""
  points = np.array(
    [
      [1 - scored[a], *(problem.costs(a)[name] for name in settings.objectives)]
      for a in archs
    ]
  )
  assert np.isfinite(points).all(), 'a child of unknown costs was evaluated'
  return points


def ranks(points: np.ndarray) -> np.ndarray:
  """Returns each point's rank: 0 on the front, 1 on the front of the rest, ...

  A point dominates another if no objective of it is larger and one is smaller.

  Args:
    points: objectives, [n, objectives].

  Returns:
    Ranks, [n].
  """
  one, other = points[:, None], points[None]
  nowhere_bigger = np.all(one <= other, axis=-1)
  dominates = nowhere_bigger & np.any(one < other, axis=-1)
  rank = np.full(len(points), -1)
  number = 0
  while (left := rank < 0).any():
    beaten = np.any(dominates[left], axis=0)
    rank[left & ~beaten] = number
    number += 1
  return rank


def crowding(points: np.ndarray) -> np.ndarray:
  """Returns the crowding distance of each point of one front.

  The distance is the sum, over objectives, of the gap between a point's two
  neighbours as a share of the objective's range. Points at the ends of an
  objective get infinity.

  Args:
    points: objectives of the front, [n, objectives].

  Returns:
    Distances, [n].
  """
  distance = np.zeros(len(points))
  for values in points.T:
    order = np.argsort(values, kind='stable')
    ordered = values[order]
    span = ordered[-1] - ordered[0]
    distance[order[[0, -1]]] = np.inf
    if span > 0:
      distance[order[1:-1]] += (ordered[2:] - ordered[:-2]) / span
  return distance


def survivors(points: np.ndarray, size: int) -> list[int]:
  """Returns positions of the `size` best: lower rank, then less crowded."""
  rank, distance = ranks(points), _crowding_by_rank(points)
  return np.lexsort([-distance, rank])[:size].tolist()


def _crowding_by_rank(points: np.ndarray) -> np.ndarray:
  rank, distance = ranks(points), np.zeros(len(points))
  for number in set(rank.tolist()):
    distance[rank == number] = crowding(points[rank == number])
  return distance


def _tournament(points: np.ndarray):
  """Returns a function of rng that picks the better of two random positions."""
  rank, distance = ranks(points), _crowding_by_rank(points)
  order = np.empty(len(points), int)
  order[np.lexsort([-distance, rank])] = np.arange(len(points))

  def choose(rng: np.random.Generator) -> int:
    a, b = rng.integers(len(points), size=2)
    return int(a if order[a] <= order[b] else b)

  return choose


def _cross(problem: Problem, population, choose, settings: Search, rng) -> Arch:
  mother, father = (population[choose(rng)] for _ in range(2))
  arch = variation.crossover(problem.space, mother, father, rng)
  return variation.mutate(problem.space, arch, rng, settings.mutation)
