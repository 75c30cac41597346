"""The rollbacks of a run: `WORKDIR/rollbacks.json`.

A rollback takes the run back to a checkpoint and skips the draws, batches and
children, that led into trouble. Draw i is what step i + 1 trains on, as long as
nothing was skipped. With the seed, this list says what every step trains on,
so a resumed run goes the same way as an uninterrupted one.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from etils import epath

from bignas_jax.system import files
from bignas_jax.values import schema

NAME = 'rollbacks.json'


@dataclasses.dataclass(frozen=True)
class Rollback:
  """One of them."""

  at: schema.Natural  # the step where trouble was seen
  to: schema.Whole  # the step that the run went back to
  draw: schema.Whole  # the first draw after `to`
  reason: str


def read(workdir: epath.Path) -> tuple[Rollback, ...]:
  """All of a run's, in order.

  Raises:
    UserError: the file is damaged.
  """
  path = workdir / NAME
  if not path.is_file():
    return ()
  return of_json(files.read_json(path, list), str(path))


def write(workdir: epath.Path, rollbacks: Sequence[Rollback]) -> None:
  files.write_json(workdir / NAME, to_json(rollbacks))


def to_json(rollbacks: Sequence[Rollback]) -> list[dict[str, Any]]:
  return schema.plain(list(rollbacks))


def of_json(value: Any, place: str = NAME) -> tuple[Rollback, ...]:
  """The inverse of `to_json`.

  Raises:
    UserError: it is no list of rollbacks; names the place and the field.
  """
  return schema.convert(tuple[Rollback, ...], value, place)


def draw(rollbacks: Sequence[Rollback], step: int) -> int:
  """The draw that the update after `step` updates trains on."""
  first, number = _spans(rollbacks, step)[-1]
  return number + step - first


def ends(rollbacks: Sequence[Rollback], step: int) -> int | None:
  """The step after `step` where draws are skipped, or None."""
  later = [one.to for one in rollbacks if one.to > step]
  return min(later, default=None)


def _spans(rollbacks: Sequence[Rollback], step: int) -> list[tuple[int, int]]:
  """(step, draw) from where draws go on one by one, up to a step."""
  spans = [(0, 0)]
  for one in rollbacks:
    kept = [span for span in spans if span[0] < one.to]
    spans = [*kept, (one.to, one.draw)]
  return [span for span in spans if span[0] <= step]


def lead_to(rollbacks: Sequence[Rollback], step: int, then: int) -> bool:
  """Whether a checkpoint is on the way that a run has gone.

  Args:
    rollbacks: of the run.
    step: of the checkpoint.
    then: how many rollbacks there were when it was saved.
  """
  return all(one.to >= step for one in rollbacks[then:])
