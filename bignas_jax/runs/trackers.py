"""Trackers: MLflow and Weights & Biases get what `metrics.jsonl` gets.

`metrics.jsonl` is the original, and what a tracker has is a copy. A tracker
that is new to a run, or that has missed lines, gets them from the file. When a
run is resumed, the tracker's own run is continued: `trackers.json` has its id.
Lines that an interrupted run wrote after its last checkpoint are computed
again; a tracker that has them does not get them twice.

A rollback makes the lines after a checkpoint invalid. No tracker can remove
them, so the tracker's run ends, with the reason, and another one begins, which
gets the lines up to the checkpoint.

A tracker only observes: its failure is a warning, and training goes on.
"""

import contextlib
import dataclasses
import numbers
from collections.abc import Iterator
from typing import Any

from etils import epath

from bignas_jax.runs import (
  config_record,
  metrics,
  rollbacks,
  tracker_clients,
)
from bignas_jax.runs.config import Config
from bignas_jax.system import console, files, storage
from bignas_jax.values import errors, schema

NAME = 'trackers.json'


@dataclasses.dataclass(kw_only=True)
class _Note:
  """What is stored of a tracker's run.

  Attributes:
    id: its id in the tracker.
    rollbacks: number of rollbacks of our run when it began.
    last: the last step that it has, by name of the metric.
  """

  id: str
  rollbacks: schema.Whole = 0
  last: dict[str, int] = dataclasses.field(default_factory=dict)


def check(config: Config, workdir: epath.Path) -> None:
  """Checks that a run's trackers can be used, before any work.

  Raises:
    UserError: a package is missing, the work directory is in a bucket, or
      `trackers.json` is damaged.
  """
  for name in config.trackers:
    tracker_clients.load(name)
    if storage.in_bucket(workdir):
      allowed = f'a directory on this machine, for trackers={name}'
      raise errors.UserError('workdir', str(workdir), allowed)
  _read(workdir)


def follow(
  config: Config, workdir: epath.Path, start: int
) -> list[metrics.Sink]:
  """Returns the trackers of a run, which have all lines up to a step.

  Args:
    config: config of the run.
    workdir: its work directory.
    start: step that the session continues from.
  """
  made = [_Tracker(name, config, workdir) for name in config.trackers]
  for tracker in made:
    tracker.catch_up(start)
  return [*made]


class _Tracker:
  """A tracker's run, as a sink of metrics.

  Args:
    name: name of the tracker.
    config: config of our run.
    workdir: its work directory.
  """

  def __init__(self, name: str, config: Config, workdir: epath.Path):
    self._name, self._config, self._workdir = name, config, workdir
    self._client: tracker_clients.Client | None = None
    self._reached = 0
    with self._observing():
      self._client = self._opened()

  def _opened(self) -> tracker_clients.Client:
    """Opens the tracker's run for the lineage that our run has now."""
    done = rollbacks.read(self._workdir)
    note = _read(self._workdir).get(self._name)
    tags = {'config_sha256': config_record.sha256(self._config)}
    if note is not None and note.rollbacks != len(done):
      last = done[-1]
      reason = f'from step {last.at} to step {last.to}: {last.reason}'
      self._open(note.id, {}).close('rolled back', reason)
      tags |= {'continues': note.id, 'rollback': reason}
      note = None
    if note is None:
      client = self._open(None, tags, len(done))
      self._note = _Note(id=client.id, rollbacks=len(done))
      self._keep()
      return client
    client = self._open(note.id, tags)
    self._note = note
    self._note.last |= client.last()
    return client

  def _open(
    self, earlier: str | None, tags: dict[str, str], rolled_back: int = 0
  ) -> tracker_clients.Client:
    name = self._workdir.name
    if rolled_back:
      name = f'{name}, after rollback {rolled_back}'
    config = config_record.to_dict(self._config)
    run = tracker_clients.TrackedRun(self._workdir, name, tags, config)
    return tracker_clients.CLIENTS[self._name](run, earlier)

  def catch_up(self, step: int) -> None:
    """Writes the lines of `metrics.jsonl` up to a step, if they are missing."""
    for line in metrics.read(self._workdir):
      if line['step'] <= step:
        self.write(line.pop('step'), line)

  def write(self, step: int, values: dict[str, Any]) -> None:
    """Writes a step's metrics; a value that is no number is left out."""
    self._reached = step
    last = self._note.last if self._client else {}
    new = {
      name: float('nan' if value is None else value)
      for name, value in values.items()
      if step > last.get(name, -1)
      and (value is None or isinstance(value, numbers.Real))
    }
    if self._client is None or not new:
      return
    with self._observing():
      self._client.write(step, new)
      self._note.last |= dict.fromkeys(new, step)
      self._keep()

  def close(self) -> None:
    if self._client is not None:
      whole = self._reached >= self._config.steps
      with self._observing():
        self._client.close('finished' if whole else 'stopped')

  def _keep(self) -> None:
    notes = _read(self._workdir) | {self._name: self._note}
    plain = {name: dataclasses.asdict(note) for name, note in notes.items()}
    files.write_json(self._workdir / NAME, plain)

  @contextlib.contextmanager
  def _observing(self) -> Iterator[None]:
    """Makes an error of the tracker a warning, and the tracker's end."""
    try:
      yield
    except Exception as error:
      self._client = None
      reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
      console.say(
        f'warning: trackers: {self._name} gets no more metrics in this session '
        f'({reason}); the next one gives it what it misses'
      )


def _read(workdir: epath.Path) -> dict[str, _Note]:
  """Returns the notes of all trackers that a run has had."""
  path = workdir / NAME
  if not path.exists():
    return {}
  return schema.convert(dict[str, _Note], files.read_json(path), f'{path}:')
