"""Exports: sets of files that are put into a directory which may hold others.

A manifest lists the files of an export with their SHA-256 digests. A file is
only replaced or removed if its digest is in a manifest. While files are moved
there is no manifest; instead two hidden ones list the old and the new files, so
that a command that was killed then can be run again. A directory without a
manifest holds no export.
"""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

from etils import epath

from bignas_jax.system import console, digests, files, locks, replacing, storage
from bignas_jax.values import errors

MANIFEST, FORMAT = 'export.json', 1
# Manifests of the old and the new export while files are moved.
HIDDEN = _OLDER, _NEWER = '.export.json.old', '.export.json.new'
_WRITABLE = 'a directory that can be written to'


def read_manifest(out: epath.Path, name: str = MANIFEST) -> dict[str, Any]:
  """Returns the manifest of an earlier export, or {} if there is none.

  Args:
    out: directory of the export.
    name: file name of the manifest.

  Raises:
    UserError: the file of that name is not a manifest.
  """
  path = out / name
  if not _exists(path):
    return {}
  content = files.read_json(path)
  if _is_link(path) or not _is_manifest(content):
    raise errors.UserError(
      str(path), content, 'a manifest of an export, or none'
    )
  return content


def _is_manifest(content: dict[str, Any]) -> bool:
  try:
    entries = content['formats'].values()
    listed = [(n, f['sha256']) for e in entries for n, f in _files(e)]
  except (AttributeError, KeyError, TypeError):
    return False
  right = all(_inside(n) and isinstance(sha, str) for n, sha in listed)
  return right and content.get('format', FORMAT) == FORMAT


def _files(entry: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
  """Returns (name, facts) of each file that a manifest lists for a format."""
  return entry['files'].items()


def _inside(name: str) -> bool:
  """Returns whether a name leads to a place inside its manifest's directory.

  Files outside of it must never be touched.
  """
  path = pathlib.PurePosixPath(name)
  return bool(path.parts) and not path.is_absolute() and '..' not in path.parts


def earlier(out: epath.Path) -> dict[str, Any]:
  """Returns the manifest of the export in a directory, or one without formats.

  If an export was killed while files were moved, the result lists the formats
  of the older export whose files are all unchanged.

  Raises:
    UserError: a file with a manifest's name is not a manifest.
  """
  manifest = read_manifest(out)
  if manifest:
    return manifest
  manifest = read_manifest(out, _OLDER)
  whole = {
    name: entry
    for name, entry in manifest.get('formats', {}).items()
    if all(_unchanged(out / n, {f['sha256']}) for n, f in _files(entry))
  }
  return manifest | {'formats': whole}


def names(manifest: dict[str, Any]) -> set[str]:
  """Returns the names of all files in a manifest."""
  return {n for e in manifest.get('formats', {}).values() for n, _ in _files(e)}


def check_place(out: epath.Path, reserved: Iterable[epath.Path]) -> None:
  """Checks that a directory may be made, or may be exported into.

  Args:
    out: directory of the export.
    reserved: directories that have another purpose.

  Raises:
    UserError: `out` is one of the reserved directories or the current one, is a
      file or a link, or cannot be written to.
  """
  if storage.in_bucket(out):
    return
  if _is_link(out):
    real = os.path.realpath(out)
    allowed = f'{_WRITABLE}, not a link (it leads to {real})'
    raise errors.UserError('--out', str(out), allowed)
  if os.path.lexists(out) and not out.is_dir():
    raise errors.UserError('--out', str(out), _WRITABLE)
  files.check_writable(out, '--out')
  for other in (pathlib.Path.cwd(), *reserved):
    if os.path.realpath(out) == os.path.realpath(other):
      allowed = 'a directory for exports alone, such as CHILD/export'
      raise errors.UserError('--out', str(out), allowed)


def check_files(
  out: epath.Path, made: Iterable[str], older: Iterable[str]
) -> None:
  """Checks that this package wrote all that an export replaces or removes.

  Args:
    out: directory of the export.
    made: names of the files and directories in `out` that it will write.
    older: names of an earlier export's files that it will replace or remove.

  Raises:
    UserError: a file is in no manifest, or has changed since it was written.
  """
  storage.forget_listings(out)
  ours = _ours(out)
  there = {name for top in made for name in _below(out, top)}
  there |= {name for name in older if _exists(out / name)}
  for name in sorted(there):
    empty = name.endswith('/') and any(n.startswith(name) for n in ours)
    if not empty and not _unchanged(out / name, ours.get(name, set())):
      allowed = (
        f'a directory in which {name} is missing, or as its manifest says'
      )
      raise errors.UserError('--out', f'{out} with {name} in it', allowed)


def _ours(out: epath.Path) -> dict[str, set[str]]:
  """Returns all SHA-256 digests that a directory's manifests list, by name."""
  ours: dict[str, set[str]] = {}
  for name in (MANIFEST, *HIDDEN):
    for entry in read_manifest(out, name).get('formats', {}).values():
      for file, facts in _files(entry):
        ours.setdefault(file, set()).add(facts['sha256'])
  return ours


def as_listed(out: epath.Path, manifest: str) -> set[str]:
  """Returns the names of a manifest and of the files that are as it says.

  The set is empty if the file of that name is not a manifest.
  """
  try:
    entries = read_manifest(out, manifest)['formats'].values()
  except errors.UserError:
    return set()
  listed = [(n, {facts['sha256']}) for e in entries for n, facts in _files(e)]
  return {manifest, *(n for n, valid in listed if _unchanged(out / n, valid))}


def _below(out: epath.Path, top: str) -> set[str]:
  """Returns the names of the files at a place or below it."""
  path = out / top
  if path.is_dir() and not _is_link(path):
    return replacing.names(path, f'{top}/')
  return {top} if _exists(path) else set()


def _exists(path: epath.Path) -> bool:
  return path.exists() or _is_link(path)


def _is_link(path: epath.Path) -> bool:
  return not storage.in_bucket(path) and os.path.islink(path)


def _unchanged(path: epath.Path, valid: set[str]) -> bool:
  return path.is_file() and not _is_link(path) and digests.digest(path) in valid


@contextlib.contextmanager
def staging(out: epath.Path) -> Iterator[pathlib.Path]:
  """Holds the lock on `out` and yields a temporary directory to write to.

  The temporary directory is a hidden one in `out`, or on the local disk if
  `out` is in a bucket. It is removed at the end; so are `out` and its parents,
  if they were made here and are empty.

  Raises:
    UserError: another process holds the lock, nothing can be written there, or
      the disk is full.
  """
  stage, made = None, _missing(out)
  try:
    out.mkdir(parents=True, exist_ok=True)
    with locks.hold(out, '--out', 'a directory that no other export writes to'):
      if storage.in_bucket(out):
        stage = tempfile.mkdtemp()
      else:
        _name_older(out)
        stage = storage.beside(out / 'export')
        os.mkdir(stage)
      yield pathlib.Path(stage)
  except OSError as error:
    if stage is not None and not files.no_room(error):
      raise
    allowed = f'{_WRITABLE} ({error.strerror})'
    raise errors.UserError('--out', str(out), allowed) from None
  finally:
    if stage is not None:
      shutil.rmtree(stage, ignore_errors=True)
    for path in made:
      with contextlib.suppress(OSError):  # it is not empty: it stays
        os.rmdir(path)


def _missing(out: epath.Path) -> list[str]:
  """Returns the directories that must be made, the innermost one first."""
  if storage.in_bucket(out):
    return []
  return [str(path) for path in (out, *out.parents) if not path.exists()]


def _name_older(out: epath.Path) -> None:
  """Warns of the temporary directories that killed exports have left."""
  for path in sorted(out.glob('.export.*.new')):
    if path.is_dir():
      console.say(f'warning: {path} is of an export that was killed; remove it')


def install(
  out: epath.Path,
  stage: pathlib.Path,
  manifest: dict[str, Any],
  fresh: dict[str, Iterable[str]],
) -> None:
  """Moves an export from its temporary directory to its final place.

  Files of an earlier export that the new manifest does not list are removed if
  they are unchanged.

  Args:
    out: directory of the export, locked and accepted by `check_files`.
    stage: temporary directory, with one directory for each format in it.
    manifest: the new manifest.
    fresh: names of the new files by format.
  """
  ours, before = _ours(out), earlier(out)
  files.write_json(out / _OLDER, {'format': FORMAT} | before)
  files.write_json(out / _NEWER, manifest)
  (out / MANIFEST).unlink(missing_ok=True)
  for name in sorted(set(ours) - names(manifest)):
    if _unchanged(out / name, ours[name]):
      (out / name).unlink()
    _prune(out, name)
  for directory, file_names in fresh.items():
    for name in file_names:
      _move(stage / directory / name, out / name)
  files.write_json(out / MANIFEST, manifest)
  for name in HIDDEN:
    (out / name).unlink(missing_ok=True)


def _move(made: pathlib.Path, target: epath.Path) -> None:
  """Moves a file to its final place, durably on return."""
  target.parent.mkdir(parents=True, exist_ok=True)
  if storage.in_bucket(target):
    target.write_bytes(made.read_bytes())
    return
  storage.sync(made)
  os.replace(made, target)
  storage.sync(target.parent)


def _prune(out: epath.Path, name: str) -> None:
  """Removes the directories above a removed file, if they are empty."""
  if storage.in_bucket(out):
    return
  for directory in (out / name).parents:
    if directory == out or (directory.is_dir() and any(directory.iterdir())):
      return
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
      directory.rmdir()
