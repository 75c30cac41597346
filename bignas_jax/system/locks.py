"""Locks between processes, as files that a process holds."""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from typing import IO

from bignas_jax.system import console, storage
from bignas_jax.values import errors

_POLL_S = 0.2
# What file systems say that have no locks: Lustre without -o flock, some NFS,
# and NFS of a directory.
_NO_LOCKS = (
  *(errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK),
  errno.EBADF,
)


@contextlib.contextmanager
def hold(
  path: os.PathLike, field: str, allowed: str, *, wait_s: float = 0.0
) -> Iterator[None]:
  """Holds a lock, which ends with the process at the latest.

  A bucket has no locks, and some file systems have none: there, nobody is kept
  out; of the latter a warning tells.

  Args:
    path: of the lock's file, in a directory that exists: the file stays; or
      a directory, which is its own lock.
    field: what the user said that leads here, such as `workdir`.
    allowed: what is allowed, when another process holds the lock.
    wait_s: seconds to wait for it before that is said.

  Raises:
    UserError: another process holds it.
  """
  if storage.in_bucket(path):
    yield
    return
  is_directory = os.path.isdir(path)
  with _opened(path, is_directory) as number:
    try:
      _lock(number, path, wait_s)
    except BlockingIOError:
      where = os.fspath(path)
      where = where if is_directory else os.path.dirname(where)
      raise errors.UserError(field, where, allowed) from None
    except OSError as error:
      if error.errno not in _NO_LOCKS:
        raise
      console.say(
        f'warning: {path}: this file system has no locks ({error.strerror}); '
        'make sure that no other process writes here'
      )
    yield


def _lock(number: int, path: os.PathLike, wait_s: float) -> None:
  """Locks an open file; says so if it has to wait for another process."""
  end, told = time.monotonic() + wait_s, False
  while True:
    try:
      return fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      if time.monotonic() >= end:
        raise
    if not told:
      console.say(f'{path}: waiting for another process')
      told = True
    time.sleep(_POLL_S)


_shared: list[IO] = []  # open as long as this process lives


def share(path: os.PathLike, first: Callable[[], None]) -> None:
  """Holds a lock beside other processes, until this one ends.

  Args:
    path: of the lock's file, in a directory that exists.
    first: called if no other process holds it; those that come meanwhile wait.
      Where there are no locks nobody knows, and it is not called.
  """
  if storage.in_bucket(path):
    return
  file = open(path, 'ab')  # noqa: SIM115 (closed by the system)
  _shared.append(file)
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    first()
  except BlockingIOError:
    pass  # another process is there
  except OSError as error:
    if error.errno not in _NO_LOCKS:
      raise
    return
  fcntl.flock(file, fcntl.LOCK_SH)


@contextlib.contextmanager
def _opened(path: os.PathLike, is_directory: bool) -> Iterator[int]:
  """Opens a lock's file, which is made if it is missing, or a directory."""
  flags = os.O_RDONLY if is_directory else os.O_WRONLY | os.O_CREAT
  number = os.open(path, flags | os.O_CLOEXEC, 0o666)
  try:
    yield number
  finally:
    os.close(number)
