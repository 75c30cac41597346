"""JSON files that a crash leaves whole: the old contents or the new."""

import errno
import json
import os
import pathlib
from typing import Any

from bignas_jax import errors

# What the system says when there is no room for a file, or no way to write it.
_NO_ROOM = {
  errno.ENOSPC: 'ENOSPC',
  errno.EDQUOT: 'EDQUOT',
  errno.EFBIG: 'EFBIG',
  errno.EROFS: 'EROFS',
}
_NAMES = {dict: 'a JSON object', list: 'a JSON list'}


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes a whole file or none; once this returns, it is on the disk."""
  fresh = path.with_name(path.name + '.new')
  with fresh.open('w') as file:
    file.write(json.dumps(value, indent=2) + '\n')
    file.flush()
    os.fsync(file.fileno())
  os.replace(fresh, path)


def read_json(path: pathlib.Path, kind: type = dict) -> Any:
  """Reads a JSON object, or a list.

  Raises:
    UserError: it is not JSON, or not of that kind.
  """
  try:
    value = json.loads(path.read_bytes())
  except ValueError as error:
    raise errors.UserError(str(path), str(error), 'valid JSON') from None
  if not isinstance(value, kind):
    raise errors.UserError(str(path), value, _NAMES[kind])
  return value


def no_room(error: BaseException) -> bool:
  """Whether an error, of the system or of TensorStore, is of a full disk."""
  if isinstance(error, OSError):
    return error.errno in _NO_ROOM
  return any(f': {name} ' in str(error) for name in _NO_ROOM.values())


def reason(error: BaseException) -> str:
  """That error in a few words; TensorStore's have many."""
  if isinstance(error, OSError):
    return os.strerror(error.errno or 0)
  text = str(error)
  number = next(n for n, name in _NO_ROOM.items() if f': {name} ' in text)
  return os.strerror(number)
