"""What a person sees meanwhile: lines, a bar, what is being done; on stderr."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

import rich.console
import rich.progress

from bignas_jax.system import process
from bignas_jax.values import errors

# What a speed is taken over: long enough to hold evaluations.
_SPEED_S = 3600


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


def leave_preempted() -> NoReturn:
  """Ends the process as Preempted does, at once and from any thread."""
  say('stopped: before the first step, none lost')
  os._exit(errors.PREEMPTED)
