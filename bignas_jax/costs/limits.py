"""Limits on costs of children, and a check that some child can keep them."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.values import errors, schema

Costs = Mapping[str, float]  # of a child, by name (`child_costs.NAMES`)
Cost = Callable[[Arch], Costs]

_BOUND: Any = schema.AtLeastZero
_ENUMERATED = 5_000  # most children of a space that is tried in full
_STARTS = 24  # descents from random children, in bigger spaces


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
  """Bounds on costs by name; a cost without a bound is not limited.

  Attributes:
    least: lower bounds by name of the cost.
    most: upper bounds by name of the cost.
    required: costs that must be known, although they are not limited. An
      unknown cost is infinite, such as a latency at a resolution that the table
      lacks, and an infinite cost breaks the limits.
  """

  least: Costs = dataclasses.field(default_factory=dict)
  most: Costs = dataclasses.field(default_factory=dict)
  required: tuple[str, ...] = ()

  def fit(self, costs: Costs) -> bool:
    """Returns whether these costs keep all limits."""
    return self.excess(costs) == 0

  def excess(self, costs: Costs) -> float:
    """Returns by how much costs break the limits, relative and summed."""
    names = itertools.chain(self.least, self.most, self.required)
    if any(math.isinf(costs[name]) for name in names):
      return math.inf
    over = (_over(costs[name], most) for name, most in self.most.items())
    under = (_over(least, costs[name]) for name, least in self.least.items())
    return sum(over) + sum(under)

  def broken(self, costs: Costs) -> list[tuple[str, float, float]]:
    """Returns field, limit and cost of each limit that the costs break."""
    below = [
      (f'min_{name}', limit, costs[name])
      for name, limit in self.least.items()
      if costs[name] < limit
    ]
    return below + [
      (f'max_{name}', limit, costs[name])
      for name, limit in self.most.items()
      if costs[name] > limit
    ]

  def to_dict(self) -> dict[str, float]:
    """Returns the limits by field, such as {'max_macs': 1e6}."""
    least = {f'min_{name}': value for name, value in self.least.items()}
    return least | {f'max_{name}': value for name, value in self.most.items()}


def from_dict(fields: Mapping[str, Any]) -> Limits:
  """Returns the limits that fields name, as in `Limits.to_dict`.

  A field whose value is None sets no limit.

  Raises:
    UserError: a limit is not a finite number, or is below 0.
  """
  given = {
    field: schema.convert(_BOUND, schema.plain(value), f'--{field}')
    for field, value in fields.items()
    if value is not None
  }
  split = {k: k.partition('_')[::2] for k in given}
  ends: dict[str, dict[str, float]] = {'min': {}, 'max': {}}
  for field, (end, name) in split.items():
    ends[end][name] = given[field]
  return Limits(least=ends['min'], most=ends['max'])


def feasible(space: Space, cost: Cost, limits: Limits) -> Arch:
  """Returns a child that keeps the limits.

  In a small space, all children are tried. In a larger one, descents change one
  entry of an architecture at a time for the better, from both ends of the space
  and from random children. A narrow range that no descent reaches is reported
  as impossible.

  Args:
    space: space of the children.
    cost: function that returns the costs of a child by name.
    limits: limits on costs.

  Raises:
    UserError: no child keeps the limits; the error names the nearest values.
  """
  names = set(limits.least) & set(limits.most)
  for name in sorted(names):
    least, most = limits.least[name], limits.most[name]
    if least > most:
      raise errors.UserError(f'--min_{name}', least, f'a number <= {most:g}')
  excess = lambda arch: limits.excess(cost(arch))  # noqa: E731
  best, least = None, math.inf
  for arch in _candidates(space, excess):
    value = excess(arch)
    if best is None or value < least:
      best, least = arch, value
    if least == 0:
      return arch
  assert best is not None, 'an empty space'
  raise _refusal(space, limits, cost(best))


def _refusal(space: Space, limits: Limits, nearest: Costs) -> errors.UserError:
  given, broken = limits.to_dict(), limits.broken(nearest)
  if len(given) == 1:
    field, limit, value = broken[0]
    sign = '>=' if field.startswith('max') else '<='
    allowed = f'a number {sign} {_shown(value)} in space {space.name}'
    return errors.UserError(f'--{field}', limit, allowed)
  values = ', '.join(
    f'{name} {_shown(nearest[name])}'
    for name in dict.fromkeys([*limits.least, *limits.most])
  )
  return errors.UserError(
    ', '.join(f'--{field}' for field, *_ in broken),
    {field: _shown(value) for field, value in given.items()},
    f'what one child of space {space.name} can keep at once; the nearest has '
    f'{values}',
  )


def _candidates(
  space: Space, excess: Callable[[Arch], float]
) -> Iterable[Arch]:
  if arch_lib.count(space) <= _ENUMERATED:
    yield from arch_lib.every(space)
    return
  genes = decisions.genes(space)
  rng = arch_lib.generator(0)
  for end in (0, -1):
    yield _descend(space, [g.choices[end] for g in genes], excess)
  for _ in range(_STARTS):
    start = arch_lib.read(space, arch_lib.sample(space, rng))
    yield _descend(space, start, excess)


def _descend(
  space: Space, values: list[int], excess: Callable[[Arch], float]
) -> Arch:
  """Changes single entries for the better, until no change is better."""
  genes = decisions.genes(space)
  best = excess(arch_lib.write(space, values))
  better = True
  while better and best > 0:
    better = False
    for i, gene in enumerate(genes):
      for choice in gene.choices:
        changed: Any = [*values[:i], choice, *values[i + 1 :]]
        value = excess(arch_lib.write(space, changed))
        if value < best:
          best, values, better = value, changed, True
  return arch_lib.write(space, values)


def _over(value: float, bound: float) -> float:
  return max(0.0, value / bound - 1) if bound > 0 else float(value > bound)


def _shown(value: float) -> str:
  """Returns a number in full, so that a limit of this value can be kept."""
  return str(int(value)) if float(value).is_integer() else repr(value)
