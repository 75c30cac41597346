"""What children are searched for: the devices and the limits of each."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from etils import epath

from bignas_jax.costs import counting, latency, latency_tables
from bignas_jax.costs.limits import Limits
from bignas_jax.perf import latency_table
from bignas_jax.selection import child_costs, task
from bignas_jax.selection.child_costs import Memory
from bignas_jax.selection.task import Request
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.space import Space
from bignas_jax.system import console
from bignas_jax.values import errors

# Default limits, from the cheapest child (0) to the most expensive one (1).
_SHARES = 0.25, 0.5, 1.0
_DIGITS = 2  # of a default limit
_CHILDREN = 200  # random ones, whose latencies are predicted
_TABLE = 'latency.json'
_RUNTIME = 'onnx'
# Minutes below -> visits to each program, and children that are timed.
_QUICK, _QUICK_ROUNDS, _ROUNDS, _TIMED = 10, 5, 15, 8


class Wishes(NamedTuple):
  """What a person asked for.

  Attributes:
    tables: files of latency tables.
    bounds: values of each limit by field, such as {'max_macs': [1e6]}.
    memory: batch and precision of the cost `memory_bytes`.
  """

  tables: Sequence[epath.Path]
  bounds: Mapping[str, Sequence[float] | None]
  memory: Memory = Memory()

  @property
  def measures_here(self) -> bool:
    """Returns whether a latency table of this machine is needed."""
    given = [field for field, values in self.bounds.items() if values]
    latency_limited = any(field.endswith('latency_ms') for field in given)
    return not self.tables and (latency_limited or not given)

  @property
  def count(self) -> int:
    """Returns how many children will be searched for."""
    number = max(1, len(self.tables))
    given = [values for values in self.bounds.values() if values]
    if not given:
      return len(_SHARES) * (number + 1)
    for values in given:
      number *= len(values)
    return number


def check(wishes: Wishes) -> None:
  """Checks what can be checked before the images are looked at.

  Raises:
    UserError: a limit, or how memory is counted, is not allowed; or a file is
      no latency table.
  """
  task.requests(wishes.bounds)
  child_costs.check(wishes.memory)
  for path in wishes.tables:
    with errors.within('--latency_table'):
      latency_tables.contents(path)


def load(wishes: Wishes, space: Space, workdir: epath.Path) -> list:
  """Returns the latency tables that a person gave.

  Raises:
    UserError: one is of another space; says how to make one.
  """
  tables = []
  for path in wishes.tables:
    try:
      tables.append(latency_tables.load(path, space))
    except errors.UserError as error:
      allowed = (
        f'a table of the space that was chosen, {space.name} ({error}): '
      )
      allowed += 'run fit without it first, and then on the device '
      allowed += f'`benchmark table --space={workdir}`'
      raise errors.UserError('--latency_table', str(path), allowed) from None
  return tables


def measure(space: Space, workdir: epath.Path, minutes: float) -> latency.Table:
  """Returns the latency table of this machine, measured if it is not there.

  Parts that an interrupted command measured are kept.
  """
  path = workdir / _TABLE
  with contextlib.suppress(errors.UserError):
    return latency_tables.load(path, space)
  console.say('measuring the latency of parts and of some children here')
  latency_table.table(
    space,
    path,
    resolutions=space.resolution,
    batch=1,
    runtime=_RUNTIME,
    rounds=_QUICK_ROUNDS if minutes < _QUICK else _ROUNDS,
    statistic='least',
    children=_TIMED,
    fitted=_TIMED,
    seed=0,
    topology=None,
  )
  return latency_tables.load(path, space)


def requests(
  wishes: Wishes, space: Space, tables: Sequence[latency.Table]
) -> list[Request]:
  """Returns a request for each device and limit.

  If there are no limits, each device gets three limits on its latency, and
  three requests name no device but limit the multiply-adds.
  """
  if any(wishes.bounds.values()):
    return task.requests(wishes.bounds, tables, wishes.memory)
  macs = lambda arch: counting.cost(space, arch).macs  # noqa: E731
  ends = [macs(arch_lib.smallest(space)), macs(arch_lib.biggest(space))]
  return [
    *(
      Request(Limits(most={'latency_ms': value}), table, wishes.memory)
      for table in tables
      for value in _between(*_latencies(space, table))
    ),
    *(
      Request(Limits(most={'macs': value}), None, wishes.memory)
      for value in _between(*ends)
    ),
  ]


def _latencies(space: Space, table: latency.Table) -> tuple[float, float]:
  """Returns the lowest and the highest latency of some children."""
  rng = arch_lib.generator(0)
  some = [arch_lib.sample(space, rng) for _ in range(_CHILDREN)]
  ends = arch_lib.smallest(space), arch_lib.biggest(space)
  every = [
    table.predict(arch)
    for arch in (*some, *ends)
    if arch.resolution in table.resolutions
  ]
  return min(every), max(every)


def _between(lowest: float, highest: float) -> list[float]:
  """Returns the default limits between two costs, rounded up."""
  values = [lowest + share * (highest - lowest) for share in _SHARES]
  return [_rounded_up(value) for value in values]


def _rounded_up(value: float) -> float:
  """Returns the next number of `_DIGITS` digits that is not smaller."""
  rounded = float(f'{value:.{_DIGITS - 1}e}')
  if rounded >= value:
    return rounded
  unit = 10.0 ** (int(f'{value:e}'.partition('e')[2]) - _DIGITS + 1)
  return float(f'{rounded + unit:.{_DIGITS - 1}e}')
