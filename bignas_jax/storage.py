"""Files of a run, on a disk or in a bucket (`gs://...`).

Both are `epath.Path`s. An object of a bucket appears whole or not at all, is
never appended to or renamed, and a directory is there as long as something is
in it. Only what follows from that is in this file.
"""

import importlib.util
import os

from etils import epath

from bignas_jax import errors

_BUCKETS = 'gs://'


def path(text: str) -> epath.Path:
  """Where a user says that something lies.

  Raises:
    UserError: what it needs is not installed, or nobody knows what it is.
  """
  scheme, found, _ = text.partition('://')
  if found and scheme + found != _BUCKETS:
    raise errors.UserError('path', text, f'a path, or {_BUCKETS}BUCKET/...')
  if found and importlib.util.find_spec('gcsfs') is None:
    raise errors.UserError(
      'path', text, "a path; a bucket with the extra: pip install -e '.[gcs]'"
    )
  return epath.Path(text)


def in_bucket(where: os.PathLike) -> bool:
  return os.fspath(where).startswith(_BUCKETS)


def absolute(where: epath.Path) -> epath.Path:
  return where if in_bucket(where) else where.absolute()


def write(where: epath.Path, text: str) -> None:
  """Writes a whole file or none; once this returns, it is on the disk."""
  if in_bucket(where):
    where.write_text(text)
    return
  fresh = where.with_name(where.name + '.new')
  with open(fresh, 'w', encoding='utf-8') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  os.replace(fresh, where)


def append(where: epath.Path, text: str) -> None:
  """Appends to a file, which is made if missing; in a bucket, anew."""
  if in_bucket(where):
    where.write_text((where.read_text() if where.exists() else '') + text)
    return
  with open(where, 'a', encoding='utf-8', newline='') as file:
    file.write(text)
