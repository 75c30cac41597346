"""Manifests of checkpoints: the SHA-256 digest of every file.

They are needed because Orbax does not notice a flipped byte in an array. The
manifest is written into a checkpoint's directory before the directory gets its
final name, so no checkpoint is ever seen without one.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from etils import epath

NAME = 'receipt.json'
_CHUNK = 2**20  # bytes read at a time
# Not in manifests: Orbax writes the time of the commit into it later, and
# restores without it.
_CHANGES = '_CHECKPOINT_METADATA'


def seal(directory: epath.Path, notes: dict[str, Any]) -> None:
  """Writes the manifest of all files that are in the directory now.

  Args:
    directory: a checkpoint in which all other files are complete.
    notes: plain JSON values to keep in the manifest.
  """
  body = {'notes': notes, 'files': digests(directory)}
  text = json.dumps(body | {'sha256': _digest_of(body)}, indent=1)
  (directory / NAME).write_text(text + '\n')


def read(directory: epath.Path) -> dict[str, Any] | None:
  """Returns a manifest's notes, or None if it is missing or damaged."""
  body = _body(directory)
  return None if body is None else body['notes']


def damage(directory: epath.Path) -> str | None:
  """Returns in a few words what is wrong with the files, or None."""
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


def of_sealed(directory: epath.Path) -> str:
  """Returns the SHA-256 that names the files of an undamaged checkpoint."""
  body = _body(directory)
  assert body is not None, 'damaged'
  return _digest_of(body['files'])


def _body(directory: epath.Path) -> dict[str, Any] | None:
  path = directory / NAME
  if not path.is_file():
    return None
  try:
    body = json.loads(path.read_bytes())
    digest = body.pop('sha256')
  except (ValueError, KeyError, AttributeError, TypeError):
    return None  # `damage` reports it
  return body if digest == _digest_of(body) else None


def _digest_of(body: dict[str, Any]) -> str:
  text = json.dumps(body, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def digests(directory: epath.Path) -> dict[str, str]:
  """Returns the SHA-256 of every file below a directory, by relative name."""
  names = sorted(set(_names(directory)) - {_CHANGES})
  return {name: digest(directory / name) for name in names}


def facts(directory: epath.Path) -> dict[str, dict[str, Any]]:
  """Returns `bytes` and `sha256` of every file below a directory, by name."""
  return {
    name: {'bytes': (directory / name).stat().length, 'sha256': sha256}
    for name, sha256 in digests(directory).items()
  }


def _names(directory: epath.Path, prefix: str = '') -> Iterator[str]:
  """Yields the relative names of all files below a directory, with `/`.

  The walk of epath is not used, because it loses a bucket's scheme.
  """
  for path in directory.iterdir():
    if path.is_dir():
      yield from _names(path, f'{prefix}{path.name}/')
    else:
      yield prefix + path.name


def digest(path: epath.Path) -> str:
  """Returns the SHA-256 of a file, in hexadecimal."""
  sha256 = hashlib.sha256()
  with path.open('rb') as file:
    while chunk := file.read(_CHUNK):
      sha256.update(chunk)
  return sha256.hexdigest()
