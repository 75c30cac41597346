"""Whole files, read and written; errors name the file and the reason."""

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

# Errors of the system if there is no room for a file, or no way to write it.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# Other errors that are due to a file or a disk, not to this program.
_OF_PLACE = (
  *(errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR),
  *(errno.EIO, errno.ESTALE, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO),
  *(errno.ENOTEMPTY, errno.EEXIST, errno.EINVAL, errno.ENODEV),
)
_NAMES = {dict: 'a JSON object', list: 'a JSON list'}


def write_json(path: epath.Path, value: Any) -> None:
  """Writes a value as a whole JSON file or not at all, durably on return.

  JSON has no infinity and no NaN, so they are written as null.
  """
  storage.write(path, json.dumps(finite(value), indent=2) + '\n')


def write_text(path: epath.Path, text: str) -> None:
  """Writes a text as a whole file or not at all, durably on return."""
  storage.write(path, text)


def finite(value: Any) -> Any:
  """Returns nested dicts and lists with None in place of infinity and NaN."""
  if isinstance(value, dict):
    return {name: finite(inner) for name, inner in value.items()}
  if isinstance(value, list | tuple):
    return [finite(inner) for inner in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def read_bytes(path: os.PathLike, at_most: int | None = None) -> bytes:
  """Returns the content of a file.

  Args:
    path: the file to read.
    at_most: largest size allowed, in bytes; None: any size.

  Raises:
    UserError: the file is too large, or cannot be read; the message says why.
  """
  try:
    with epath.Path(path).open('rb') as file:
      content = file.read() if at_most is None else file.read(at_most + 1)
  except OSError as error:
    why = error.strerror or type(error).__name__
    raise errors.UserError(str(path), why, 'a file that can be read') from None
  if at_most is not None and len(content) > at_most:
    more, allowed = f'more than {at_most:,} bytes', 'a smaller file'
    raise errors.UserError(str(path), more, allowed)
  return content


def read_text(path: os.PathLike, at_most: int | None = None) -> str:
  """Returns the text in a file.

  Args:
    path: the file to read.
    at_most: largest size allowed, in bytes; None: any size.

  Raises:
    UserError: the file cannot be read, is too large, or is not UTF-8.
  """
  try:
    return read_bytes(path, at_most).decode()
  except UnicodeDecodeError as error:
    why = f'byte {error.start} is no UTF-8'
    raise errors.UserError(str(path), why, 'a text file') from None


def read_json(
  path: os.PathLike, kind: type = dict, at_most: int | None = None
) -> Any:
  """Returns the JSON object, or the JSON list, in a file.

  Args:
    path: the file to read.
    kind: type that the value must have, dict or list.
    at_most: largest size allowed, in bytes; None: any size.

  Raises:
    UserError: the file cannot be read, is too large, is not JSON, or holds a
      value of another kind.
  """
  return parse_json(read_text(path, at_most), str(path), kind)


def parse_json(text: str, field: str, kind: type = dict) -> Any:
  """Returns the JSON object, or the JSON list, that a text encodes.

  Args:
    text: the JSON text.
    field: what a message calls the text.
    kind: type that the value must have, dict or list.

  Raises:
    UserError: the text is not JSON, or encodes a value of another kind.
  """
  try:
    value = json.loads(text)
  except (ValueError, RecursionError) as error:  # also for a number too long
    raise errors.UserError(field, str(error), 'valid JSON') from None
  if not isinstance(value, kind):
    raise errors.UserError(field, value, _NAMES[kind])
  return value


def check_writable(path: os.PathLike, field: str) -> None:
  """Checks, before any work, that a file or directory can be made or changed.

  It creates and removes a file where `path` will be, because permissions alone
  do not show whether a file system accepts a file. A bucket is not checked.

  Args:
    path: the file or directory.
    field: the user's option that leads to the path, for the message.

  Raises:
    UserError: nothing can be written there; the message says why.
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
  """Checks, before any work, that a file can be created or overwritten.

  A bucket is not checked.

  Args:
    path: the file.
    field: the user's option that leads to the path, for the message.

  Raises:
    UserError: something other than a file is at the path, or nothing can be
      written there.
  """
  if storage.in_bucket(path):
    return
  if os.path.exists(path) and not os.path.isfile(path):
    raise errors.UserError(field, str(path), 'a file, or a new name for one')
  check_writable(path, field)


def no_room(error: BaseException) -> bool:
  """Returns whether an error means that a file could not be stored.

  The causes are a full disk, a quota, a size limit and a read-only disk. The
  error may come from the system or from TensorStore.
  """
  return _number(error) in _NO_ROOM


def of_place(error: OSError) -> bool:
  """Returns whether an error is due to a file, a disk or a permission.

  If not, the error is due to this program.
  """
  return error.filename is not None and error.errno in (*_NO_ROOM, *_OF_PLACE)


def reason(error: BaseException) -> str:
  """Returns the system's short text for an error that `no_room` accepts.

  TensorStore's own text is much longer.
  """
  return os.strerror(_number(error))


def _number(error: BaseException) -> int:
  """Returns the system's number for an error, or 0 if it has none."""
  if isinstance(error, OSError):
    return error.errno or 0
  code = re.search(r"os_error_code='(\d+)'", str(error))
  return int(code[1]) if code else 0
