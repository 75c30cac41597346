"""Signals that ask a loop to stop, in one process or in several at once."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from jax.experimental import multihost_utils

from bignas_jax.system import process, signals


class Stopped(BaseException):
  """The error that a stop signal raises inside `StopRequest.raising`."""


class StopRequest:
  """A context that records SIGTERM and SIGINT for a loop to ask about.

  Signals reach the processes of a run at different steps, or reach only one of
  them. In a run of several, JAX records SIGTERM, tells the other processes in
  the background, and chooses the first call of `due` that no process has passed
  yet; a call costs a lock, not a message to the others. SIGINT is passed on as
  SIGTERM.
  """

  def __enter__(self) -> 'StopRequest':
    self._requested, self._calls = False, 0
    handlers: dict[int, Any] = dict.fromkeys(signals.ASK_TO_STOP, self._note)
    if process.joined():
      handlers = {signal.SIGINT: _pass_on}
    self._before = {
      number: signal.signal(number, handler)
      for number, handler in handlers.items()
    }
    return self

  def __exit__(self, *exception: object) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def due(self) -> bool:
    """Returns whether to stop; all processes must ask at the same points."""
    if process.joined() and not self._requested:
      self._calls += 1
      self._requested = multihost_utils.reached_preemption_sync_point(
        self._calls
      )
    return self._requested

  @contextlib.contextmanager
  def raising(self) -> Iterator[Callable[[], None]]:
    """Makes a stop signal raise Stopped, for work that can be done again.

    Several processes must stop at one common point. In a run of several,
    Stopped is therefore raised only by the function that is yielded, which all
    processes must call at the same points.
    """

    def check() -> None:
      if self.due():
        raise Stopped

    def stop(number: int, frame: object) -> NoReturn:
      self._note(number, frame)
      raise Stopped

    check()
    if process.joined():
      yield check
      return
    before = {number: signal.signal(number, stop) for number in self._before}
    try:
      yield check
    finally:
      for number, handler in before.items():
        signal.signal(number, handler)

  @contextlib.contextmanager
  def promptly(self, leave: Callable[[], NoReturn]) -> Iterator[None]:
    """Makes a stop signal end the process at once, where nothing need be saved.

    A thread watches for signals, because Python tells only the main thread,
    which may be inside XLA for minutes. In a run of several processes the
    context does nothing: they stop together at their next call of `due`.

    Args:
      leave: ends the process; it is called from any thread.
    """
    if process.joined():
      yield
      return
    if self._requested:
      leave()

    def tell(number: int) -> None:
      if number in self._before:
        leave()

    with signals.heard(tell):
      yield

  def _note(self, number: int, frame: object) -> None:
    del number, frame
    self._requested = True


def _pass_on(number: int, frame: object) -> None:
  del number, frame
  signal.raise_signal(signal.SIGTERM)
