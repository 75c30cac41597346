"""Files read and written whole, with an error that names file and reason."""

import errno
import json
import math
import os
import pathlib
import re
import tempfile
from typing import Any

from etils import epath

from bignas_jax.system import storage
from bignas_jax.values import errors

# What the system says when there is no room for a file, or no way to write it.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# What else it says of a place and not of a program.
_OF_PLACE = (
  *(errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR),
  *(errno.EIO, errno.ESTALE, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO),
  *(errno.ENOTEMPTY, errno.EEXIST, errno.EINVAL, errno.ENODEV),
)
_NAMES = {dict: 'a JSON object', list: 'a JSON list'}


def write_json(path: epath.Path, value: Any) -> None:
  """Writes a whole file or none; once this returns, it is on the disk.

  JSON has no infinity and no NaN: they become null.
  """
  storage.write(path, json.dumps(finite(value), indent=2) + '\n')


def write_text(path: epath.Path, text: str) -> None:
  """Writes a whole file or none; once this returns, it is on the disk."""
  storage.write(path, text)


def finite(value: Any) -> Any:
  """Returns nested dicts and lists with None for floats that JSON has not."""
  if isinstance(value, dict):
    return {name: finite(inner) for name, inner in value.items()}
  if isinstance(value, list | tuple):
    return [finite(inner) for inner in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def read_bytes(path: os.PathLike, at_most: int | None = None) -> bytes:
  """Returns what is in a file.

  Args:
    path: of the file.
    at_most: bytes that it may have; None: any number.

  Raises:
    UserError: it cannot be read, says why; or it is too large.
  """
  try:
    with epath.Path(path).open('rb') as file:
      found = file.read() if at_most is None else file.read(at_most + 1)
  except OSError as error:
    why = error.strerror or type(error).__name__
    raise errors.UserError(str(path), why, 'a file that can be read') from None
  if at_most is not None and len(found) > at_most:
    more, allowed = f'more than {at_most:,} bytes', 'a smaller file'
    raise errors.UserError(str(path), more, allowed)
  return found


def read_text(path: os.PathLike, at_most: int | None = None) -> str:
  """Returns the text in a file; see `read_bytes`.

  Raises:
    UserError: it cannot be read, is too large, or is not UTF-8.
  """
  try:
    return read_bytes(path, at_most).decode()
  except UnicodeDecodeError as error:
    why = f'byte {error.start} is no UTF-8'
    raise errors.UserError(str(path), why, 'a text file') from None


def read_json(
  path: os.PathLike, kind: type = dict, at_most: int | None = None
) -> Any:
  """Returns a JSON object, or a list; see `read_bytes`.

  Raises:
    UserError: the file cannot be read, is too large, is not JSON, or not of
      that kind.
  """
  return parse_json(read_text(path, at_most), str(path), kind)


def parse_json(text: str, field: str, kind: type = dict) -> Any:
  """Returns the JSON object, or the list, that a text is.

  Raises:
    UserError: it is not JSON, or not of that kind; names the field.
  """
  try:
    value = json.loads(text)
  except (ValueError, RecursionError) as error:  # also of a number too long
    raise errors.UserError(field, str(error), 'valid JSON') from None
  if not isinstance(value, kind):
    raise errors.UserError(field, value, _NAMES[kind])
  return value


def check_writable(path: os.PathLike, field: str) -> None:
  """Checks, before any work, that a file or directory can be made or changed.

  A file is made and removed where `path` will lie: what permissions say is not
  all that a file system asks.

  Raises:
    UserError: nothing can be written there; says why, and names the field.
  """
  if storage.in_bucket(path):
    return
  target = pathlib.Path(os.path.realpath(path))
  try:
    nearest = target if target.is_dir() else target.parent
    while not nearest.exists():
      nearest = nearest.parent
    with tempfile.NamedTemporaryFile(prefix='.bignas_jax', dir=nearest):
      pass
  except OSError as error:
    allowed = f'a place that can be written to ({error.strerror})'
    raise errors.UserError(field, str(path), allowed) from None


def check_file(path: os.PathLike, field: str) -> None:
  """Checks, before any work, that a file can be written, or written anew.

  Raises:
    UserError: a directory or a device is there, or nothing can be written;
      names the field.
  """
  if storage.in_bucket(path):
    return
  if os.path.exists(path) and not os.path.isfile(path):
    raise errors.UserError(field, str(path), 'a file, or a new name for one')
  check_writable(path, field)


def no_room(error: BaseException) -> bool:
  """Whether an error, of the system or of TensorStore, is of a full disk."""
  return _number(error) in _NO_ROOM


def of_place(error: OSError) -> bool:
  """Whether an error tells of a file, a disk or a permission, not of us."""
  return error.filename is not None and error.errno in (*_NO_ROOM, *_OF_PLACE)


def reason(error: BaseException) -> str:
  """The system's words for such an error; TensorStore has many more."""
  return os.strerror(_number(error))


def _number(error: BaseException) -> int:
  """The system's number for an error; 0: it has none."""
  if isinstance(error, OSError):
    return error.errno or 0
  code = re.search(r"os_error_code='(\d+)'", str(error))
  return int(code[1]) if code else 0
