"""Handling of signals even while Python's main thread is in a long call."""

import contextlib
import ctypes
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

ASK_TO_STOP = signal.SIGTERM, signal.SIGINT
_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)
_handlers = []  # what C has been given, which Python must not free


@contextlib.contextmanager
def heard(tell: Callable[[int], None]) -> Iterator[None]:
  """Calls `tell` from a thread with the number of each signal that arrives.

  Python runs its own handlers only after the main thread returns from its
  current call, and a call of XLA's compiler may take minutes.

  Args:
    tell: called with a signal's number; only for signals that have a handler in
      Python.
  """
  receiver, sender = socket.socketpair()
  sender.setblocking(False)

  def listen() -> None:
    while number := receiver.recv(1):
      tell(number[0])

  before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
  thread = threading.Thread(target=listen, daemon=True)
  thread.start()
  try:
    yield
  finally:
    signal.set_wakeup_fd(before)
    sender.close()
    thread.join()
    receiver.close()


@contextlib.contextmanager
def raised(
  error: Callable[[str], BaseException], status: int, grace_s: float
) -> Iterator[None]:
  """Makes the first stop signal raise an error in the main thread.

  All later stop signals are ignored, so that they cannot interrupt the handling
  of the error. Code in the context may set other handlers for a time, which
  then take precedence. If the context ends with another error after that, which
  a library may have made of the first, the first one is raised. In any thread
  but the main one, nothing is changed.

  Args:
    error: makes the error from the signal's name.
    status: exit status of the process if the context has not ended `grace_s`
      seconds after the signal, because Python is in a long call or waits.
    grace_s: seconds from the signal to the forced exit.
  """
  if threading.current_thread() is not threading.main_thread():
    yield  # Python lets the main thread alone handle signals
    return
  late: list[threading.Timer] = []
  asked: list[BaseException] = []

  def stop(number: int, frame: FrameType | None) -> None:
    del frame
    for other in ASK_TO_STOP:
      signal.signal(other, signal.SIG_IGN)
    asked.append(error(signal.Signals(number).name))
    raise asked[0]

  def tell(number: int) -> None:
    if signal.getsignal(number) in (stop, signal.SIG_IGN) and not late:
      late.append(threading.Timer(grace_s, os._exit, [status]))
      late[0].daemon = True
      late[0].start()

  before = {number: signal.signal(number, stop) for number in ASK_TO_STOP}
  try:
    with heard(tell):
      yield
  except BaseException as other:
    if asked and other is not asked[0]:
      raise asked[0] from other
    raise
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
    for timer in late:
      timer.cancel()


def on_abort(end: Callable[[], None]) -> None:
  """Calls `end` where a library aborts this process, in the library's thread.

  JAX aborts a process that cannot reach the others of its run. It takes a
  function to call instead, but a function of Python's fails there: JAX 0.10.2
  cannot convert the function's argument. A handler of the module `signal` would
  run too late, when the C library has ended the process.

  Args:
    end: ends the process; if it returns, the process is aborted as before.
  """

  def aborted(number: int) -> None:
    del number
    end()

  _handlers.append(_HANDLER(aborted))
  install = ctypes.CDLL(None).signal
  install.argtypes, install.restype = [ctypes.c_int, _HANDLER], ctypes.c_void_p
  install(signal.SIGABRT, _handlers[-1])
