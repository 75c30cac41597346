"""The rollbacks of a run: `WORKDIR/rollbacks.json`.

A rollback takes the run back to a checkpoint and skips the draws, batches and
children, that led into trouble. Draw i is what step i + 1 trains on, as long as
nothing was skipped. With the seed, this list determines all batches and
children, so a resumed run trains on what an uninterrupted one does.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from etils import epath

from bignas_jax.system import files
from bignas_jax.values import schema

NAME = 'rollbacks.json'


@dataclasses.dataclass(frozen=True)
class Rollback:
  """A return to a checkpoint, after a divergence."""

  at: schema.Natural  # the step where trouble was seen
  to: schema.Whole  # the step that the run went back to
  draw: schema.Whole  # the first draw after `to`
  reason: str


class Preserve(NamedTuple):
  """Orbax's `PreservationPolicy`, which says which checkpoints stay.

  Checkpoints that were saved on a signal do not push out the scheduled
  checkpoints, which a rollback returns to.

  Attributes:
    keep: number of newest checkpoints to keep, and number of newest scheduled
      checkpoints to keep.
    every: number of steps between scheduled checkpoints.
  """

  keep: int
  every: int

  def should_preserve(
    self, checkpoints: Sequence[Any], *, context: Any
  ) -> list[bool]:
    del context
    steps = [one.step for one in checkpoints]  # in order
    scheduled = [step for step in steps if step % self.every == 0]
    stay = {*scheduled[-self.keep :], *steps[-self.keep :]}
    return [step in stay for step in steps]


def read(workdir: epath.Path) -> tuple[Rollback, ...]:
  """Returns all rollbacks of a run, in order.

  Raises:
    UserError: the file is damaged.
  """
  path = workdir / NAME
  if not path.is_file():
    return ()
  return of_json(files.read_json(path, list), str(path))


def write(workdir: epath.Path, rollbacks: Sequence[Rollback]) -> None:
  """Writes all rollbacks of a run."""
  files.write_json(workdir / NAME, to_json(rollbacks))


def to_json(rollbacks: Sequence[Rollback]) -> list[dict[str, Any]]:
  """Returns the rollbacks as plain JSON values."""
  return schema.plain(list(rollbacks))


def of_json(value: Any, place: str = NAME) -> tuple[Rollback, ...]:
  """Returns the rollbacks from plain JSON values: the inverse of `to_json`.

  Raises:
    UserError: the value is no list of rollbacks; names place and field.
  """
  return schema.convert(tuple[Rollback, ...], value, place)


def draw(rollbacks: Sequence[Rollback], step: int) -> int:
  """Returns the draw that the update after `step` updates trains on."""
  first, number = _spans(rollbacks, step)[-1]
  return number + step - first


def draws(rollbacks: Sequence[Rollback], step: int) -> Iterator[int]:
  """Yields the draw of the update after `step` updates, and all that follow."""
  return (draw(rollbacks, updates) for updates in itertools.count(step))


def _spans(rollbacks: Sequence[Rollback], step: int) -> list[tuple[int, int]]:
  """Returns (step, draw) of each run of consecutive draws, up to a step."""
  spans = [(0, 0)]
  for one in rollbacks:
    kept = [span for span in spans if span[0] < one.to]
    spans = [*kept, (one.to, one.draw)]
  return [span for span in spans if span[0] <= step]


def lead_to(rollbacks: Sequence[Rollback], step: int, then: int) -> bool:
  """Returns whether a checkpoint is in the run's lineage.

  Args:
    rollbacks: all rollbacks of the run.
    step: step of the checkpoint.
    then: number of rollbacks when the checkpoint was saved.
  """
  return all(one.to >= step for one in rollbacks[then:])
