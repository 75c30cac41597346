"""This process's place in a run and the CPUs it may use, without JAX.

Commands need the place before they print, and some commands never import JAX.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from bignas_jax.values import errors

_index: int | None = None  # None: alone
# What an error's text contains if a process of the run does not answer: names
# of what processes exchange arrays and messages by, and gRPC's statuses.
_OUT_OF_REACH = (
  *('Gloo', 'NCCL', 'UNAVAILABLE', 'DEADLINE_EXCEEDED', 'ABORTED'),
  # With a capital: XLA's own operation is called optimization_barrier.
  *('coordination service', 'Barrier'),
)
_said_lost = threading.Lock()  # held for ever by the thread that says it
_CLOSED = 'Event loop is closed'  # asyncio's words


def joined_as(index: int) -> None:
  """Records this process's index in its run; `cluster.join` calls it once."""
  global _index
  _index = index


def joined() -> bool:
  """Returns whether this process has joined a run, perhaps a run of one."""
  return _index is not None


def leads() -> bool:
  """Returns whether this process is the leader, which writes shared files."""
  return not _index


def label() -> str:
  """Returns the prefix of this process's output lines; '' for the leader."""
  return '' if leads() else f'[{_index}] '


def leave(status: int, grace_s: float = 5) -> None:
  """Makes sure that this process, which has failed, ends after a few seconds.

  JAX's exit waits minutes for all processes to exit. If all have failed alike,
  they do so soon. If the others do not know of the failure, this process ends
  with `status` after `grace_s` seconds, and they notice its closed connections.
  A process that runs alone is not affected.
  """
  if joined():
    timer = threading.Timer(grace_s, os._exit, [status])
    timer.daemon = True
    timer.start()


@contextlib.contextmanager
def exiting_with_the_others() -> Iterator[None]:
  """Ends this process if the work inside fails because another one is lost.

  The others cannot go on without it: a step is computed by all. What is done on
  the way out may wait for the lost process, so `leave` bounds it.

  Raises:
    SystemExit: with status 1; one line has said why.
  """
  try:
    yield
  except Exception as error:
    reason = out_of_reach(error)
    if not reason:
      raise
    _say_lost(reason)
    leave(errors.FAILED)
    raise SystemExit(errors.FAILED) from error


def abandoned() -> NoReturn:
  """Ends this process at once, with a line; JAX has found a process lost.

  It may be called from any thread (`signals.on_abort`).
  """
  try:
    _say_lost('JAX says more above')
  finally:
    os._exit(errors.FAILED)


def out_of_reach(error: BaseException) -> str:
  """Returns what an error says of a process that is lost; '' if it is none.

  A process that runs alone cannot lose another.
  """
  cause: BaseException | None = error if joined() else None
  passed = set()  # an error that is raised again may be among its own causes
  while cause is not None and id(cause) not in passed:
    passed.add(id(cause))
    text = ' '.join(str(cause).split())
    ours = isinstance(cause, errors.UserError)
    if not ours and any(words in text for words in _OUT_OF_REACH):
      return text[:200]
    cause = cause.__cause__ or cause.__context__
  return ''


def _say_lost(reason: str) -> None:
  if _said_lost.acquire(blocking=False):
    print(
      f'{label()}error: another process of the run is gone or does not answer '
      f'({reason}); start all processes again, to go on from what was saved',
      file=sys.stderr,
      flush=True,
    )


def ignore_closed_loops() -> None:
  """Keeps threads of TensorStore from printing that an event loop is closed.

  Orbax writes the arrays of a checkpoint in an event loop, and closes it when
  the first array fails, with the error that ends the run. A thread that writes
  another array then prints a traceback, one for each array.
  """
  others: Callable[[Any], Any] = sys.unraisablehook
  if getattr(others, 'ignores_closed_loops', False):
    return

  def hook(one: Any) -> None:
    closed = isinstance(one.exc_value, RuntimeError)
    if not (closed and str(one.exc_value) == _CLOSED):
      others(one)

  hook.ignores_closed_loops = True
  sys.unraisablehook = hook


def cores() -> int:
  """Returns how many CPUs this process may use.

  Only Linux reports that number; elsewhere it is taken to be all CPUs.
  """
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
