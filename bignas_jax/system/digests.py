"""Receipts of checkpoints: what every file in a directory was, by SHA-256.

Orbax takes a flipped byte in an array for another number. A receipt is written
into a checkpoint's directory before that gets its final name, so that a
checkpoint has one from its first moment on.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from etils import epath

NAME = 'receipt.json'
_PIECE = 2**20  # bytes read at a time
# Orbax writes the time of the commit into it after the receipt, and restores
# without it.
_CHANGES = '_CHECKPOINT_METADATA'


def seal(directory: epath.Path, notes: dict[str, Any]) -> None:
  """Writes the receipt of all files that lie in the directory now.

  Args:
    directory: complete.
    notes: plain JSON values to keep with it.
  """
  body = {'notes': notes, 'files': digests(directory)}
  text = json.dumps(body | {'sha256': _digest_of(body)}, indent=1)
  (directory / NAME).write_text(text + '\n')


def read(directory: epath.Path) -> dict[str, Any] | None:
  """The notes, or None: there is no receipt, or it is damaged."""
  body = _body(directory)
  return None if body is None else body['notes']


def damage(directory: epath.Path) -> str | None:
  """What is wrong with the files, in a few words, or None."""
  body = _body(directory)
  if body is None:
    there = (directory / NAME).is_file()
    return f'{NAME} is damaged' if there else f'{NAME} is missing'
  for name, expected in body['files'].items():
    path = directory / name
    if not path.is_file():
      return f'{name} is missing'
    if digest(path) != expected:
      return f'{name} has changed'
  return None


def _body(directory: epath.Path) -> dict[str, Any] | None:
  path = directory / NAME
  if not path.is_file():
    return None
  try:
    body = json.loads(path.read_bytes())
    digest = body.pop('sha256')
  except (ValueError, KeyError, AttributeError, TypeError):
    return None  # `damage` says so
  return body if digest == _digest_of(body) else None


def _digest_of(body: dict[str, Any]) -> str:
  text = json.dumps(body, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def digests(directory: epath.Path) -> dict[str, str]:
  """SHA-256 of every file in a directory, by name, which may have a `/`."""
  names = sorted(set(_names(directory)) - {_CHANGES})
  return {name: digest(directory / name) for name in names}


def _names(directory: epath.Path, prefix: str = '') -> Iterator[str]:
  """Of all files, with `/`; epath's own walk forgets a bucket's scheme."""
  for path in directory.iterdir():
    if path.is_dir():
      yield from _names(path, f'{prefix}{path.name}/')
    else:
      yield prefix + path.name


def digest(path: epath.Path) -> str:
  """SHA-256 of a file."""
  sha256 = hashlib.sha256()
  with path.open('rb') as file:
    while piece := file.read(_PIECE):
      sha256.update(piece)
  return sha256.hexdigest()
