"""What a search is asked, and the check of it before any child is evaluated."""

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bignas_jax.costs import latency, latency_tables
from bignas_jax.costs import limits as limits_lib
from bignas_jax.costs.limits import Cost, Limits
from bignas_jax.reporting import formats
from bignas_jax.selection import child_costs, indicators
from bignas_jax.selection.child_costs import Memory
from bignas_jax.selection.questions import Question
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.strategies import table as table_lib
from bignas_jax.strategies.problem import Search
from bignas_jax.values import errors, schema


class Request(NamedTuple):
  """Limits that a child shall keep, and the device that it shall run on.

  Attributes:
    limits: limits on costs.
    table: latency table of the device; None: no device is named, and no latency
      can be limited.
    memory: batch and precision of the cost `memory_bytes`.
  """

  limits: Limits = Limits()
  table: latency.Table | None = None
  memory: Memory = Memory()


def requests(
  bounds: Mapping[str, Sequence[float] | None],
  tables: Sequence[latency.Table] = (),
  memory: Memory = Memory(),  # noqa: B008 (a tuple of constants)
) -> list[Request]:
  """Returns a request for each combination of a table and of limits.

  A limit with one value is part of every request.

  Args:
    bounds: values of each limit by field, such as {'max_macs': [1e6, 2e6]};
      None and an empty list: there is no such limit.
    tables: latency tables; if there are none, the requests name no device.
    memory: batch and precision of the cost `memory_bytes`.

  Raises:
    UserError: a limit is not a finite number, or is below 0.
  """
  given = {field: [*dict.fromkeys(v)] for field, v in bounds.items() if v}
  return [
    Request(
      limits_lib.from_dict(dict(zip(given, values, strict=True))),
      table,
      memory,
    )
    for table in tables or [None]
    for values in itertools.product(*given.values())
  ]


class Task(NamedTuple):
  """A search that has passed all checks.

  Attributes:
    space: space of the children.
    strategy: name of the strategy, as in `table.get`.
    settings: settings of the strategy.
    limits: limits that children keep.
    costs: function that returns the costs of a child by name.
    start: a child that keeps the limits.
    latency: the latency table's `about` and digest, if there is a table.
    memory: batch and precision, if the search depends on `memory_bytes`.
  """

  space: Space
  strategy: str
  settings: Search
  limits: Limits
  costs: Cost
  start: Arch
  latency: dict[str, Any] | None
  memory: Memory | None = None

  @property
  def words(self) -> str:
    """Returns the limits, the device and its runtime in words."""
    limits = formats.limits(self.limits.to_dict()) or 'no limits'
    if self.latency is None:
      return limits
    return f'{limits} on {device(self.latency)}'

  def fits(self, arch: Arch) -> bool:
    """Returns whether a child keeps the limits."""
    return self.limits.fit(self.costs(arch))

  def question(self, step: int, weights: str) -> Question:
    """Returns everything that determines the search's answer.

    Args:
      step: step of the supernet.
      weights: digest of the supernet's parameters.
    """
    asked: Question = {
      'strategy': self.strategy,
      'limits': self.limits.to_dict(),
      'settings': schema.plain(self.settings),
      'latency': self.latency,
      'step': step,
      'weights': weights,
    }
    return asked | ({'memory': self.memory._asdict()} if self.memory else {})


def device(about: Mapping[str, Any]) -> str:
  """Returns the device and the runtime of a latency table in words."""
  return f'{about["device"]} ({about["runtime"]})'


def checked(
  space: Space, strategy: str, settings: Search, request: Request
) -> Task:
  """Returns the task of a search after checking all that it is asked.

  Raises:
    UserError: the search cannot be asked this, or no child can keep the limits.
  """
  limits, table, memory = request
  child_costs.check(memory)
  predict = table and functools.partial(_predicted, table)
  costs = child_costs.of(space, predict, memory)
  table_lib.check(strategy, limits, settings, costs(arch_lib.smallest(space)))
  if strategy == 'batch_norm_scales':
    indicators.check(space)
  if strategy == 'nsga2':  # it compares children by these costs
    limits = dataclasses.replace(limits, required=settings.objectives)
  start = limits_lib.feasible(space, costs, limits)
  about = None
  if table is not None:
    about = table.about | {'sha256': latency_tables.sha256(table)}
  used = {*limits.least, *limits.most, *settings.objectives}
  served = memory if 'memory_bytes' in used else None
  return Task(space, strategy, settings, limits, costs, start, about, served)


def checked_all(
  space: Space, strategy: str, settings: Search, requests: Sequence[Request]
) -> list[Task]:
  """Returns a task for each request.

  Raises:
    UserError: as in `checked`; of several tables, it names the device and its
      runtime.
  """
  tasks, tables = [], {id(request.table) for request in requests}
  for one in requests:
    with contextlib.ExitStack() as place:
      if one.table is not None and len(tables) > 1:
        place.enter_context(errors.within(device(one.table.about)))
      tasks.append(checked(space, strategy, settings, one))
  return tasks


def changed(settings: Search, changes: Mapping[str, Any]) -> Search:
  """Returns settings of which some are changed.

  Raises:
    UserError: a setting is unknown, or its value is not allowed.
  """
  names = [field.name for field in dataclasses.fields(Search)]
  for name, value in changes.items():
    if name not in names:
      allowed = f'a setting: {errors.one_of(names, name)}'
      raise errors.UserError(f'search.{name}', value, allowed)
  return schema.check(dataclasses.replace(settings, **changes), 'search')


def _predicted(table: latency.Table, arch: Arch) -> float:
  """Returns a child's milliseconds, or infinity at an unknown resolution."""
  in_table = arch.resolution in table.resolutions
  return table.predict(arch) if in_table else math.inf
