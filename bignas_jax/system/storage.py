"""Files of a run, on a disk or in a bucket (`gs://...`), as `epath.Path`s.

An object in a bucket appears as a whole or not at all, cannot be appended to or
renamed, and a directory exists as long as it holds an object. This file has
only the operations that differ because of that.
"""

import contextlib
import errno
import importlib.util
import os
import uuid
from collections.abc import Callable

from etils import epath
from etils.epath import backend

from bignas_jax.values import errors

_BUCKETS = 'gs://'
# Removing a file whose path has one of these removes all files that match.
_WILDCARDS = frozenset('*?[')


def path(text: str, field: str = 'path') -> epath.Path:
  """Returns the path that a user's text names.

  Args:
    text: the user's text.
    field: the user's option that holds the text, for the message.

  Raises:
    UserError: the text is no path, its scheme is unknown, the package that
      reads buckets is not installed, or a path in a bucket has wildcards.
  """
  scheme, separator, _ = text.partition('://')
  if separator and scheme + separator != _BUCKETS:
    raise errors.UserError(field, text, f'a path, or {_BUCKETS}BUCKET/...')
  if separator and importlib.util.find_spec('gcsfs') is None:
    raise errors.UserError(
      field, text, "a path; a bucket with the extra: pip install -e '.[gcs]'"
    )
  if separator and not _WILDCARDS.isdisjoint(text):
    raise errors.UserError(field, text, 'in a bucket, a path without *, ? or [')
  if not text or '\0' in text:
    raise errors.UserError(field, text, 'a path')
  return epath.Path(text)


def of_value(
  value: object,
  field: str,
  make: Callable[[str, str], epath.Path] = path,
) -> epath.Path:
  """Returns the path that a value of a notebook is, text or an object.

  Args:
    value: the value.
    field: the argument that has the value, for the message.
    make: `path`, or a function like it.

  Raises:
    UserError: the value is no path.
  """
  text = os.fspath(value) if isinstance(value, os.PathLike) else value
  if not isinstance(text, str):
    raise errors.UserError(field, value, 'a path')
  return make(text, field)


def in_bucket(place: os.PathLike) -> bool:
  """Returns whether a path is in a bucket."""
  return os.fspath(place).startswith(_BUCKETS)


def forget_listings(place: os.PathLike) -> None:
  """Makes what other processes have changed in a bucket visible here.

  The client lists a directory once, and then knows its own changes only.
  """
  if in_bucket(place):
    backend.fsspec_backend.fs(place).invalidate_cache()


def absolute(place: epath.Path) -> epath.Path:
  """Returns the absolute form of a path; a path in a bucket has one already."""
  return place if in_bucket(place) else place.absolute()


def beside(place: os.PathLike | str) -> str:
  """Returns a unique hidden name in the directory of `place`.

  A file or directory is written under that name before it becomes `place`.
  """
  folder, name = os.path.split(os.fspath(place))
  return os.path.join(folder, f'.{name[:200]}.{uuid.uuid4().hex[:12]}.new')


def write(place: epath.Path, content: str | bytes) -> None:
  """Writes a whole file or none; on a disk it is durable on return.

  If the path is a link, the link stays and its target is written.

  Raises:
    OSError: nothing can be written there; an older file is intact.
  """
  data = content.encode() if isinstance(content, str) else content
  if in_bucket(place):
    place.write_bytes(data)
    return
  target = os.path.realpath(place)
  fresh = beside(target)
  try:
    with open(fresh, 'xb') as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    os.replace(fresh, target)
  except BaseException as error:
    with contextlib.suppress(FileNotFoundError):
      os.unlink(fresh)
    _tell(error, target)
    raise
  sync(os.path.dirname(target))


def sync(directory: os.PathLike | str) -> None:
  """Makes a directory's names, or a file's content, durable on the disk."""
  number = os.open(directory or '.', os.O_RDONLY)
  try:
    os.fsync(number)
  except OSError as error:
    if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
      raise  # file systems with these errors cannot sync, and need not
  finally:
    os.close(number)


def append(place: epath.Path, text: str, durable: bool = False) -> None:
  """Appends a text to a file, which is made if missing.

  An object in a bucket is written anew.

  Args:
    place: the file.
    text: what to append, as a whole or not at all.
    durable: whether the text must be on the disk on return.

  Raises:
    OSError: the text cannot be written; the file is as it was.
  """
  if in_bucket(place):
    place.write_text((place.read_text() if place.exists() else '') + text)
    return
  with open(place, 'ab', buffering=0) as file:
    end, data = file.seek(0, os.SEEK_END), text.encode()
    try:
      while data:
        data = data[file.write(data) :]
      if durable:
        os.fsync(file.fileno())
    except BaseException as error:
      file.truncate(end)
      _tell(error, place)
      raise


def _tell(error: BaseException, place: os.PathLike | str) -> None:
  """Sets the file name of a system error to the file that the caller meant.

  The system gives no name if the disk is full, and `write` writes to a
  temporary file.
  """
  if isinstance(error, OSError):
    error.filename = os.fspath(place)
