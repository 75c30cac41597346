"""Output for a person while a command runs, on stderr: lines, bars, status."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

import rich.console
import rich.progress

from bignas_jax.system import process
from bignas_jax.values import errors

# Seconds over which speed is averaged: long enough to include evaluations.
_SPEED_S = 3600


class Progress:
  """A live bar on a terminal, or plain lines elsewhere; both on stderr."""

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
    """Sets how many units of work are done."""
    self._bar.update(self._task, completed=done)

  def left_s(self) -> float | None:
    """Returns the seconds left at the present speed, or None if unknown yet."""
    return self._bar.tasks[0].time_remaining

  @contextlib.contextmanager
  def doing(self, phase: str) -> Iterator[None]:
    """Shows a phase as the bar's description until the context ends."""
    self._bar.update(self._task, description=phase, refresh=True)
    try:
      yield
    finally:
      self._bar.update(self._task, description=self._what)

  def note(self, text: str) -> None:
    """Prints a line that stays above the bar."""
    say(text, self._bar.console if self._live else None)


@contextlib.contextmanager
def busy(text: str) -> Iterator[None]:
  """Shows a text and its seconds until the context ends, or prints a line.

  Only the first of several processes does so.
  """
  if not process.leads():
    yield
    return
  if not sys.stderr.isatty():
    say(text)
    yield
    return
  with rich.progress.Progress(
    rich.progress.SpinnerColumn(),
    rich.progress.TextColumn('{task.description}'),
    rich.progress.TimeElapsedColumn(),
    console=rich.console.Console(stderr=True),
    transient=True,
  ) as bar:
    bar.add_task(text, total=None)
    yield


def say(text: str, console: rich.console.Console | None = None) -> None:
  """Prints a text for a person on stderr; stdout is for results alone."""
  text = '\n'.join(process.label() + line for line in text.split('\n'))
  if console is not None:
    console.print(text, highlight=False, markup=False)
  else:
    print(text, file=sys.stderr, flush=True)


def leave_preempted() -> NoReturn:
  """Says that no step is lost and exits as Preempted does, from any thread."""
  say('stopped: before the first step, none lost')
  os._exit(errors.PREEMPTED)
