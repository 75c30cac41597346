"""Choosing children: search algorithms that never see the model.

A strategy gets three functions and returns nothing but choices: `score`
evaluates an architecture, `fits` tells whether its cost is allowed, `macs`
says what it costs. Every strategy is deterministic in its seed, so that a
search that was interrupted is repeated, with known scores looked up.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from bignas_jax import arch as arch_lib
from bignas_jax import errors, sampling
from bignas_jax.arch import Arch
from bignas_jax.counting import Cost
from bignas_jax.space import Choices, Space

Score = Callable[[Arch], float]
Fits = Callable[[Arch], bool]
Macs = Callable[[Arch], int]

_TRIES = 1000  # draws for each child wanted, before giving up


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
  """Bounds on what a child may cost; None: none."""

  max_macs: float | None = None
  max_params: float | None = None
  min_macs: float | None = None

  def fit(self, cost: Cost) -> bool:
    return (
      (self.max_macs is None or cost.macs <= self.max_macs)
      and (self.max_params is None or cost.params <= self.max_params)
      and (self.min_macs is None or cost.macs >= self.min_macs)
    )


def check_limits(
  limits: Limits, cost: Callable[[Arch], Cost], space: Space
) -> None:
  """UserError if no child of the space can satisfy the limits.

  Costs grow with every entry of an architecture, so the two ends of the
  space decide each limit on its own.
  """
  genes = arch_lib.genes(space)
  least = cost(arch_lib.write(space, [g.choices[0] for g in genes]))
  most = cost(arch_lib.write(space, [g.choices[-1] for g in genes]))
  for field, value, ok, allowed in (
    ('max_macs', limits.max_macs, '>=', least.macs),
    ('max_params', limits.max_params, '>=', least.params),
    ('min_macs', limits.min_macs, '<=', most.macs),
  ):
    if value is None:
      continue
    if value < allowed if ok == '>=' else value > allowed:
      raise errors.UserError(
        f'--{field}', value, f'a number {ok} {allowed} in space {space.name}'
      )
  least, most = limits.min_macs, limits.max_macs
  if least is not None and most is not None and least > most:
    raise errors.UserError('--min_macs', least, f'a number <= {most}')


def coarse_grid(
  space: Space, depths: int, widths: int, kernels: int
) -> list[Arch]:
  """Every resolution x stage-wise presets (BigNAS, section 3.2, coarse).

  Args:
    space: to choose from.
    depths: presets between all smallest and all biggest.
    widths: likewise, together with the expand ratios.
    kernels: of: all smallest, all biggest, big ones late, big ones early.
  """
  grid = []
  for size, depth, width, kernel in itertools.product(
    space.resolution, _fractions(depths), _fractions(widths), range(kernels)
  ):
    values = []
    for gene in arch_lib.genes(space):
      if gene.field == 'resolution':
        values.append(size)
      elif gene.field == 'depth':
        values.append(_at(gene.choices, depth))
      elif gene.field == 'kernel_size':
        assert gene.position is not None
        late = gene.position >= len(space.stages) / 2
        values.append(gene.choices[-1 if _big(kernel, late) else 0])
      else:
        values.append(_at(gene.choices, width))
    grid.append(arch_lib.write(space, values))
  return list(dict.fromkeys(grid))


def _fractions(n: int) -> list[float]:
  return [0.0] if n == 1 else [i / (n - 1) for i in range(n)]


def _at(choices: Choices, fraction: float) -> int:
  return choices[round(fraction * (len(choices) - 1))]


def _big(preset: int, late: bool) -> bool:
  """Whether the kernel preset is big in this half of the stages."""
  return (False, True, late, not late)[preset]


def coarse_to_fine(
  space: Space,
  score: Score,
  fits: Fits,
  macs: Macs,
  *,
  grid: Sequence[Arch],
  mutants: int,
  mutation: float,
  seed: int,
) -> None:
  """A grid of skeletons, then mutants of the best (BigNAS, section 3.2).

  Skeletons over a limit are not evaluated. The mutants' parents are those of
  the front of accuracy against cost that were found so far, the best first.
  """
  scored = {arch: score(arch) for arch in grid if fits(arch)}
  if not scored:  # the grid is too coarse for a narrow range of costs
    first = next(iter(_draw(space, fits, 1, seed)))
    scored = {first: score(first)}
  rng = sampling.generator(seed, 1)
  for _ in range(mutants):
    parents = front([(macs(a), s, a) for a, s in scored.items()])[::-1]
    # Half of all mutants come from the best child, a quarter from the second.
    parent = parents[min(int(rng.geometric(0.5)) - 1, len(parents) - 1)][2]
    for _ in range(_TRIES):
      arch = arch_lib.mutate(space, parent, rng, mutation)
      if arch not in scored and fits(arch):
        scored[arch] = score(arch)
        break


def random(
  space: Space, score: Score, fits: Fits, *, evaluations: int, seed: int
) -> None:
  """Uniformly drawn children that fit."""
  for arch in _draw(space, fits, evaluations, seed):
    score(arch)


def _draw(space: Space, fits: Fits, n: int, seed: int) -> Iterable[Arch]:
  """Up to n different uniform children that fit; UserError if none is found."""
  rng = sampling.generator(seed)
  found: dict[Arch, None] = {}
  for _ in range(_TRIES * n):
    arch = arch_lib.sample(space, rng)
    if arch not in found and fits(arch):
      found[arch] = None
      yield arch
    if len(found) == n:
      return
  if not found:
    raise errors.UserError(
      'limits', f'none of {_TRIES * n} random children fits', 'wider limits'
    )


def front(points: Iterable[tuple]) -> list[tuple]:
  """Those (cost, score, ...) that no other beats in both; by rising cost."""
  best, kept = -np.inf, []
  for point in sorted(points, key=lambda p: (p[0], -p[1])):
    if point[1] > best:
      best = point[1]
      kept.append(point)
  return kept
