"""Files of a run, on a disk or in a bucket (`gs://...`).

Both are `epath.Path`s. An object of a bucket appears whole or not at all, is
never appended to or renamed, and a directory is there as long as something is
in it. Only what follows from that is in this file.
"""

import contextlib
import errno
import importlib.util
import os
import uuid

from etils import epath

from bignas_jax.values import errors

_BUCKETS = 'gs://'


def path(text: str, field: str = 'path') -> epath.Path:
  """Where a user says that something lies.

  Args:
    text: what was said.
    field: where it was said.

  Raises:
    UserError: what it needs is not installed, or nobody knows what it is.
  """
  scheme, found, _ = text.partition('://')
  if found and scheme + found != _BUCKETS:
    raise errors.UserError(field, text, f'a path, or {_BUCKETS}BUCKET/...')
  if found and importlib.util.find_spec('gcsfs') is None:
    raise errors.UserError(
      field, text, "a path; a bucket with the extra: pip install -e '.[gcs]'"
    )
  if not text or '\0' in text:
    raise errors.UserError(field, text, 'a path')
  return epath.Path(text)


def in_bucket(where: os.PathLike) -> bool:
  return os.fspath(where).startswith(_BUCKETS)


def absolute(where: epath.Path) -> epath.Path:
  return where if in_bucket(where) else where.absolute()


def beside(where: os.PathLike | str) -> str:
  """Returns a name for what will become `where`, that nobody else uses.

  It is hidden and lies in the same directory.
  """
  folder, name = os.path.split(os.fspath(where))
  return os.path.join(folder, f'.{name[:200]}.{uuid.uuid4().hex[:12]}.new')


def write(where: epath.Path, content: str | bytes) -> None:
  """Writes a whole file or none; once this returns, it is on the disk.

  A link stays, and what it leads to is written.

  Raises:
    OSError: nothing can be written there; an older file is intact.
  """
  data = content.encode() if isinstance(content, str) else content
  if in_bucket(where):
    where.write_bytes(data)
    return
  target = os.path.realpath(where)
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
  """Has the disk know which names are in a directory."""
  number = os.open(directory or '.', os.O_RDONLY)
  try:
    os.fsync(number)
  except OSError as error:
    if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
      raise  # those are of file systems that cannot, and need not
  finally:
    os.close(number)


def append(where: epath.Path, text: str, durable: bool = False) -> None:
  """Appends to a file, which is made if missing; in a bucket, anew.

  Args:
    where: the file.
    text: comes whole or not at all.
    durable: once this returns, the text is on the disk.

  Raises:
    OSError: it cannot be written; the file is as it was.
  """
  if in_bucket(where):
    where.write_text((where.read_text() if where.exists() else '') + text)
    return
  with open(where, 'ab', buffering=0) as file:
    end, data = file.seek(0, os.SEEK_END), text.encode()
    try:
      while data:
        data = data[file.write(data) :]
      if durable:
        os.fsync(file.fileno())
    except BaseException as error:
      file.truncate(end)
      _tell(error, where)
      raise


def _tell(error: BaseException, where: os.PathLike | str) -> None:
  """Has an error of the system name the file that is meant.

  The system names none where there is no room, and we write beside it.
  """
  if isinstance(error, OSError):
    error.filename = os.fspath(where)
