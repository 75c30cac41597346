"""Signals that ask a loop to stop, in one process or in several at once."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from jax.experimental import multihost_utils

from bignas_jax.system import process, signals


class Stopped(BaseException):
  """A signal asked to stop inside `StopRequest.raising`."""


class StopRequest:
  """Turns SIGTERM and SIGINT into an answer that a loop asks for.

  Signals reach several processes at different steps, or only one of them:
  there, JAX notes SIGTERM, spreads the news in the background and picks the
  first question of this class that no process has passed; to ask costs a
  lock, not a word with the others. SIGINT is made a SIGTERM.
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
    """Whether to stop here; all processes ask at the same points."""
    if process.joined() and not self._requested:
      self._calls += 1
      self._requested = multihost_utils.reached_preemption_sync_point(
        self._calls
      )
    return self._requested

  @contextlib.contextmanager
  def raising(self) -> Iterator[Callable[[], None]]:
    """Has a signal raise Stopped inside: for work that can be done again.

    Several processes have to stop at one point: there, the function that is
    yielded raises it, which all processes call at the same points.
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
    """Has a signal end the process at once: there is nothing to save in here.

    Python would tell the main thread, which may be in XLA for minutes; so the
    system tells a thread. Several processes stop where they next ask, together.

    Args:
      leave: ends the process; called from any thread.
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
