"""Coarse-to-fine search: a grid of skeletons, then mutants of the best.

Source: BigNAS (Yu et al. 2020), section 3.2.
"""

import itertools
from collections.abc import Callable

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.spaces.stage import Choices
from bignas_jax.strategies import problem as problem_lib
from bignas_jax.strategies import variation
from bignas_jax.strategies.problem import Problem, Search


def search(problem: Problem, settings: Search) -> None:
  """Scores a grid of skeletons, then mutants of the best children found so far.

  Skeletons that break a limit are not evaluated. Parents of the mutants are the
  children on the front of accuracy against MACs, the most accurate first.
  """
  skeletons = [a for a in grid(problem.space, settings) if problem.fits(a)]
  if not skeletons:  # the grid is too coarse for a narrow range of costs
    skeletons = problem_lib.draw(problem, 1, arch_lib.generator(settings.seed))
  scored = {arch: problem.score(arch) for arch in skeletons}
  rng = arch_lib.generator(settings.seed, 1)
  for _ in range(settings.mutants):
    points = [(problem.costs(a)['macs'], s, a) for a, s in scored.items()]
    parents = [arch for *_, arch in problem_lib.front(points)[::-1]]
    arch = problem_lib.try_new(
      problem,
      scored,
      lambda parents=parents: variation.mutate(
        problem.space,
        problem_lib.mostly_first(parents, rng),
        rng,
        settings.mutation,
      ),
    )
    if arch is not None:
      scored[arch] = problem.score(arch)


def planned(
  space: Space, fits: Callable[[Arch], bool], settings: Search
) -> int:
  """Returns how many children the search evaluates at most."""
  fitting = sum(map(fits, grid(space, settings)))
  return max(1, fitting) + settings.mutants


def grid(space: Space, settings: Search) -> list[Arch]:
  """Returns the children of every resolution and every stage-wise preset.

  Source: the coarse grid of BigNAS, section 3.2.
  """
  skeletons = []
  fields = [gene.field for gene in decisions.genes(space)]
  per_kernel = fields.count('kernel_size')
  for size, depth, width, kernel in itertools.product(
    space.resolution,
    _fractions(settings.depth_presets),
    _fractions(settings.width_presets),
    range(settings.kernel_presets),
  ):
    values, kernels = [], 0
    for gene in decisions.genes(space):
      if gene.field == 'resolution':
        values.append(size)
      elif gene.field == 'depth':
        values.append(_at(gene.choices, depth))
      elif gene.field == 'kernel_size':
        late = kernels >= per_kernel / 2
        kernels += 1
        values.append(gene.choices[-1 if _big(kernel, late) else 0])
      else:
        values.append(_at(gene.choices, width))
    skeletons.append(arch_lib.write(space, values))
  return list(dict.fromkeys(skeletons))


def _fractions(n: int) -> list[float]:
  return [0.0] if n == 1 else [i / (n - 1) for i in range(n)]


def _at(choices: Choices, fraction: float) -> int:
  return choices[round(fraction * (len(choices) - 1))]


def _big(preset: int, late: bool) -> bool:
  """Returns whether the kernel preset is big in this half of the stages."""
  return (False, True, late, not late)[preset]
