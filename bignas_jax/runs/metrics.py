"""Writing of metrics: JSON lines, TensorBoard events, and trackers."""

import functools
import json
import math
import time
from collections.abc import Sequence
from typing import Any, Protocol

from etils import epath
from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2

from bignas_jax.system import console, files, storage

_proto: Any = event_pb2  # its classes are made when it is imported
_FLUSH_S = 60  # seconds between flushes of events: on a bucket, an upload


class Sink(Protocol):
  """What gets the metrics of a run, line by line."""

  def write(self, step: int, values: dict[str, float]) -> None:
    """Writes values of a step, each under its name."""

  def close(self) -> None:
    """Ends the session; the run may go on in another one."""


class Writer:
  """A writer of `metrics.jsonl`, of TensorBoard's event files, and of others.

  When opened at a step, it first drops the lines of later steps. An interrupted
  run wrote these after its last checkpoint, and will write them again. Lines
  that cannot be read stay.

  Args:
    workdir: work directory of the run.
    step: step that the run continues from.
    others: other sinks (`trackers`), which have the earlier lines.
  """

  def __init__(
    self, workdir: epath.Path, step: int, others: Sequence[Sink] = ()
  ):
    self._path = workdir / 'metrics.jsonl'
    purge_step = step + 1 if self._path.exists() else None
    kept = [
      text + b'\n'
      for text, line in _lines(self._path)
      if line is None or line['step'] <= step
    ]
    storage.write(self._path, b''.join(kept))
    self._sinks: list[Sink] = [_Events(workdir, purge_step), *others]

  def write(self, step: int, values: dict[str, float]) -> None:
    """Writes one line, and hands the values to the other sinks."""
    plain = {name: _plain(value) for name, value in values.items()}
    line = json.dumps({'step': step} | plain)
    storage.append(self._path, line + '\n')
    for sink in self._sinks:
      sink.write(step, values)

  def close(self) -> None:
    """Closes the event file and the other sinks."""
    for sink in self._sinks:
      sink.close()


class _Events:
  """A TensorBoard event file, whose writer gets an OSError if the disk is full.

  tensorboardX's SummaryWriter writes in a thread; when that fails, the caller
  waits for it forever.

  Args:
    workdir: work directory of the run.
    purge_step: step from which on the contents of earlier files are dropped.
  """

  def __init__(self, workdir: epath.Path, purge_step: int | None):
    # The name ends in a second, the host and this suffix, so that it is unique
    # even if a run is started twice within a second.
    self._file = event_file_writer.EventsWriter(
      str(workdir / 'events'), f'.{time.time_ns() % 10**9:09}'
    )
    self._flushed = 0.0
    if purge_step is not None:
      log = _proto.SessionLog(status=_proto.SessionLog.START)
      self._add(_proto.Event(step=purge_step, session_log=log))

  def write(self, step: int, values: dict[str, float]) -> None:
    for name, value in values.items():
      scalar = summary.scalar(name, float(value))
      self._add(_proto.Event(step=step, summary=scalar))

  def _add(self, event: Any) -> None:
    event.wall_time = time.time()
    self._file.write_event(event)
    if time.monotonic() - self._flushed > _FLUSH_S:
      self._file.flush()
      self._flushed = time.monotonic()

  def close(self) -> None:
    self._file.close()


class NoWriter:
  """A stand-in for a Writer, where another process writes."""

  def write(self, step: int, values: dict[str, float]) -> None:
    """Writes nothing."""
    pass

  def close(self) -> None:
    """Closes nothing."""
    pass


def read(workdir: epath.Path) -> list[dict[str, Any]]:
  """Returns the lines of `metrics.jsonl`, and warns of damaged lines.

  Raises:
    UserError: the file cannot be read.
  """
  lines = _lines(workdir / 'metrics.jsonl')
  return [line for _, line in lines if line is not None]


def _lines(path: epath.Path) -> list[tuple[bytes, dict[str, Any] | None]]:
  """Returns each line's text and contents; None: the line cannot be read.

  The last line is left out if a crash cut it short.
  """
  content = files.read_bytes(path) if path.exists() else b''
  *whole, last = content.split(b'\n')
  lines = [(text, _contents(text)) for text in whole]
  damaged = [i for i, (_, line) in enumerate(lines, 1) if line is None]
  if damaged:
    _name(str(path), tuple(damaged))
  line = _contents(last)
  return lines if line is None else [*lines, (last, line)]


def _contents(text: bytes) -> dict[str, Any] | None:
  try:
    line = json.loads(text)
  except (ValueError, RecursionError):  # no JSON, or no UTF-8
    return None
  right = isinstance(line, dict) and type(line.get('step')) is int
  return line if right else None


@functools.cache
def _name(path: str, damaged: tuple[int, ...]) -> None:
  """Warns once which lines of a file cannot be read."""
  shown = ', '.join(map(str, damaged[:3])) + ', ...' * (len(damaged) > 3)
  console.say(
    f'warning: {path}: {len(damaged)} damaged line(s) ({shown}), left out here '
    'and kept in the file'
  )


def _plain(value: Any) -> Any:
  """Returns a float, or None for NaN and infinity, which JSON does not have."""
  value = float(value)
  return value if math.isfinite(value) else None
