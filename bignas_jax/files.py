"""JSON files that a crash leaves whole: the old contents or the new."""

import errno
import json
import os
import re
from typing import Any

from etils import epath

from bignas_jax import errors, storage

# What the system says when there is no room for a file, or no way to write it.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_NAMES = {dict: 'a JSON object', list: 'a JSON list'}


def write_json(path: epath.Path, value: Any) -> None:
  """Writes a whole file or none; once this returns, it is on the disk."""
  storage.write(path, json.dumps(value, indent=2) + '\n')


def read_json(path: epath.Path, kind: type = dict) -> Any:
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
  return _number(error) in _NO_ROOM


def reason(error: BaseException) -> str:
  """The system's words for such an error; TensorStore has many more."""
  return os.strerror(_number(error))


def _number(error: BaseException) -> int:
  """The system's number for an error; 0: it has none."""
  if isinstance(error, OSError):
    return error.errno or 0
  code = re.search(r"os_error_code='(\d+)'", str(error))
  return int(code[1]) if code else 0
