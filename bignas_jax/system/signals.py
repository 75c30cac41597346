"""Signals, as the system tells them: also while Python is in a long call."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

ASK_TO_STOP = signal.SIGTERM, signal.SIGINT


@contextlib.contextmanager
def heard(tell: Callable[[int], None]) -> Iterator[None]:
  """Calls `tell` from a thread with the number of each signal that comes.

  Python's own handlers run when the main thread comes back from the call that
  it is in, which may take XLA's compiler minutes.

  Args:
    tell: takes the number of a signal that has a handler in Python.
  """
  told, tells = socket.socketpair()
  tells.setblocking(False)

  def listen() -> None:
    while number := told.recv(1):
      tell(number[0])

  before = signal.set_wakeup_fd(tells.fileno(), warn_on_full_buffer=False)
  thread = threading.Thread(target=listen, daemon=True)
  thread.start()
  try:
    yield
  finally:
    signal.set_wakeup_fd(before)
    tells.close()
    thread.join()
    told.close()


@contextlib.contextmanager
def raised(
  error: Callable[[str], BaseException], status: int, grace_s: float
) -> Iterator[None]:
  """Has the first signal that asks to stop raise an error in the main thread.

  Others are ignored from then on, so that the error can do its work. Inside,
  other handlers may be set for a time, and answer in its place.

  Args:
    error: makes the error, of the signal's name.
    status: that the process ends with if the error has not come out of the
      context `grace_s` after the signal: Python is in a call, or waits.
    grace_s: seconds.
  """
  if threading.current_thread() is not threading.main_thread():
    yield  # Python lets the main thread alone handle signals
    return
  late: list[threading.Timer] = []

  def stop(number: int, frame: FrameType | None) -> None:
    del frame
    for other in ASK_TO_STOP:
      signal.signal(other, signal.SIG_IGN)
    raise error(signal.Signals(number).name)

  def tell(number: int) -> None:
    if signal.getsignal(number) in (stop, signal.SIG_IGN) and not late:
      late.append(threading.Timer(grace_s, os._exit, [status]))
      late[0].daemon = True
      late[0].start()

  before = {number: signal.signal(number, stop) for number in ASK_TO_STOP}
  try:
    with heard(tell):
      yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
    for timer in late:
      timer.cancel()
