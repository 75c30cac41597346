"""Locks between processes, each on a file or a directory."""

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
# Errors of file systems without locks: Lustre without -o flock, some NFS, and
# NFS if a directory is locked.
_NO_LOCKS = (
  *(errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK),
  errno.EBADF,
)


@contextlib.contextmanager
def hold(
  path: os.PathLike, field: str, allowed: str, *, wait_s: float = 0.0
) -> Iterator[None]:
  """Holds an exclusive lock in the context, at most until the process ends.

  Buckets and some file systems have no locks. There, no other process is kept
  out; for such a file system a warning says so.

  Args:
    path: the lock's file, in a directory that exists (the file stays), or a
      directory, which then is its own lock.
    field: the user's option that leads to the path, such as `workdir`.
    allowed: what the message allows if another process holds the lock.
    wait_s: seconds to wait for the lock before the error is raised.

  Raises:
    UserError: another process holds the lock.
  """
  if storage.in_bucket(path):
    yield
    return
  is_directory = os.path.isdir(path)
  with _opened(path, is_directory) as number:
    try:
      _lock(number, path, wait_s)
    except BlockingIOError:
      place = os.fspath(path)
      place = place if is_directory else os.path.dirname(place)
      raise errors.UserError(field, place, allowed) from None
    except OSError as error:
      if error.errno not in _NO_LOCKS:
        raise
      console.say(
        f'warning: {path}: this file system has no locks ({error.strerror}); '
        'make sure that no other process writes here'
      )
    yield


def _lock(number: int, path: os.PathLike, wait_s: float) -> None:
  """Locks an open file, and prints a line if another process must finish first.

  Raises:
    BlockingIOError: another process still holds the lock after `wait_s`.
  """
  end, reported = time.monotonic() + wait_s, False
  while True:
    try:
      return fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      if time.monotonic() >= end:
        raise
    if not reported:
      console.say(f'{path}: waiting for another process')
      reported = True
    time.sleep(_POLL_S)


_shared: list[IO] = []  # open as long as this process lives


def share(path: os.PathLike, first: Callable[[], None]) -> None:
  """Holds a lock that several processes can share, until this process ends.

  Args:
    path: the lock's file, in a directory that exists.
    first: called if no other process holds the lock; processes that come during
      the call wait for its end. It is not called where there are no locks,
      because other processes cannot be noticed there.
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
  """Yields the descriptor of a directory, or of a file (made if missing)."""
  flags = os.O_RDONLY if is_directory else os.O_WRONLY | os.O_CREAT
  number = os.open(path, flags | os.O_CLOEXEC, 0o666)
  try:
    yield number
  finally:
    os.close(number)
