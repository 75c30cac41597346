"""Where numbers go: JSON lines and TensorBoard; and a line for a person."""

import contextlib
import json
import math
import sys
from collections.abc import Iterator
from typing import Any

import rich.console
import rich.progress
import tensorboardX
from etils import epath

from bignas_jax import process, storage

# What a speed is taken over: long enough to hold evaluations.
_SPEED_S = 3600


class Writer:
  """Appends to `metrics.jsonl` and to TensorBoard's event files.

  Opened at a step, it first drops the lines of later steps: those that an
  interrupted run wrote after its last checkpoint, and will write again.
  """

  def __init__(self, workdir: epath.Path, step: int):
    self._path = workdir / 'metrics.jsonl'
    kept = [line for line in read(workdir) if line['step'] <= step]
    lines = ''.join(json.dumps(line) + '\n' for line in kept)
    storage.write(self._path, lines)
    self._board = tensorboardX.SummaryWriter(
      str(workdir), purge_step=step + 1 if kept else None, flush_secs=60
    )

  def write(self, step: int, values: dict[str, float]) -> None:
    """Writes one line, and each value as a scalar of its name."""
    plain = {name: _plain(value) for name, value in values.items()}
    line = json.dumps({'step': step} | plain)
    storage.append(self._path, line + '\n')
    for name, value in values.items():
      self._board.add_scalar(name, float(value), step)

  def close(self) -> None:
    self._board.close()


class NoWriter:
  """In place of a Writer, where another process writes."""

  def write(self, step: int, values: dict[str, float]) -> None:
    pass

  def close(self) -> None:
    pass


def read(workdir: epath.Path) -> list[dict[str, Any]]:
  """All lines of `metrics.jsonl`; one cut short by a crash is left out."""
  path = workdir / 'metrics.jsonl'
  lines = []
  for line in path.read_text().splitlines() if path.exists() else []:
    try:
      lines.append(json.loads(line))
    except json.JSONDecodeError:
      break
  return lines


def _plain(value: Any) -> Any:
  """JSON has no NaN or infinity: they become null."""
  value = float(value)
  return value if math.isfinite(value) else None


class Progress:
  """A live bar on a terminal, plain lines elsewhere; both on stderr."""

  def __init__(self, what: str, total: int, done: int = 0):
    self._what = what
    self._live = sys.stderr.isatty() and process.leads()
    self._bar = rich.progress.Progress(
      rich.progress.TextColumn('{task.description}'),
      rich.progress.BarColumn(),
      rich.progress.MofNCompleteColumn(),
      rich.progress.TimeRemainingColumn(),
      console=rich.console.Console(stderr=True),
      disable=not self._live,
      speed_estimate_period=_SPEED_S,
    )
    self._task = self._bar.add_task(what, total=total, completed=done)

  def __enter__(self) -> 'Progress':
    self._bar.start()
    return self

  def __exit__(self, *exception: object) -> None:
    self._bar.stop()

  def advance(self, done: int) -> None:
    self._bar.update(self._task, completed=done)

  def left_s(self) -> float | None:
    """Seconds to the end at the speed so far; None: not known yet."""
    return self._bar.tasks[0].time_remaining

  @contextlib.contextmanager
  def doing(self, phase: str) -> Iterator[None]:
    """On a terminal, the bar says so meanwhile."""
    self._bar.update(self._task, description=phase, refresh=True)
    try:
      yield
    finally:
      self._bar.update(self._task, description=self._what)

  def note(self, text: str) -> None:
    """A line that stays."""
    say(text, self._bar.console if self._live else None)


@contextlib.contextmanager
def busy(text: str) -> Iterator[None]:
  """Says so for as long as it lasts, where there is a terminal."""
  if sys.stderr.isatty() and process.leads():
    with rich.console.Console(stderr=True).status(text):
      yield
  else:
    yield


def say(text: str, console: rich.console.Console | None = None) -> None:
  """A line for a person, on stderr; results alone go to stdout."""
  text = '\n'.join(process.label() + line for line in text.split('\n'))
  if console is not None:
    console.print(text, highlight=False, markup=False)
  else:
    print(text, file=sys.stderr, flush=True)
