"""Replacement of whole directories that hold only what this package wrote."""

import ctypes
import errno
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence

from etils import epath

from bignas_jax.system import console, files, storage
from bignas_jax.values import errors

_AT_FDCWD, _EXCHANGE = -100, 2  # renameat2(2)
_SWAP = 2  # renamex_np(2), of macOS
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)

# From a directory to the names in it, with `/`, that this package has written.
# A file by which others are known comes after them: that is the order in which
# files are removed, so that after a kill the rest of them is still known.
Ours = Callable[[epath.Path], Sequence[str]]


def check(out: epath.Path, ours: Ours, field: str, what: str) -> None:
  """Checks, before any work, that a directory may be made or replaced.

  Args:
    out: the directory.
    ours: returns the names of files in a directory that this package wrote.
    field: the user's option that names the directory, such as `--out`.
    what: the kind of directory that may be replaced, such as `a child package`.

  Raises:
    UserError: the path is not a directory, the directory has a file in it that
      this package has not written, it is the current directory and not empty,
      or nothing can be written there.
  """
  storage.forget_listings(out)
  bucket = storage.in_bucket(out)
  exists = out.exists() if bucket else os.path.lexists(out)
  if exists and not out.is_dir():
    allowed = f'a new directory, an empty one, or {what}'
    raise errors.UserError(field, str(out), allowed)
  if not bucket:
    files.check_writable(out, field)
    files.check_writable(_place(out).parent, field)
  there = names(out)
  foreign = sorted(there - set(ours(out))) if there else []
  if foreign:
    allowed = f'a new directory, an empty one, or {what} and nothing else'
    place = f'{out} with {foreign[0]} in it'
    raise errors.UserError(field, place, allowed)
  if there and _is_current(out):
    allowed = f'a directory other than the current one, which holds {what}'
    raise errors.UserError(field, str(out), allowed)


def replace(
  out: epath.Path, contents: dict[str, bytes], ours: Ours, what: str
) -> None:
  """Makes or replaces a directory of files, as a whole or not at all.

  A process that is killed leaves either the old directory or the new one. If
  the file system cannot exchange two directories, the old one is renamed first;
  a kill right after that leaves both directories complete, under other names in
  the same parent directory. In a bucket, after older files are removed, and in
  an empty directory files are written one by one, while the last one lies there
  as `unfinished`.

  Args:
    out: a directory that `check` has accepted.
    contents: contents of the files by name. The last file is the one that marks
      the directory as complete: where files are written one by one, they are
      written in this order.
    ours: returns the names of files in a directory that this package wrote.
    what: the kind of directory that may be replaced, such as `a child package`.

  Raises:
    UserError: something else has come into the directory since `check`.
  """
  check(out, ours, '--out', what)
  older = names(out)
  if storage.in_bucket(out) or (out.is_dir() and not older):
    written = [name for name in ours(out) if name in older]
    _write_one_by_one(out, contents, written)
  else:
    _write_beside(out, contents, ours)
  *_, last = contents
  gone = {name.split('/')[0] for name in older} - {*contents, unfinished(last)}
  if gone:
    said = ', '.join(sorted(gone))
    console.say(f'{out}: removed with the older one: {said}')


def _write_beside(
  out: epath.Path, contents: dict[str, bytes], ours: Ours
) -> None:
  """Writes a directory beside an older one, then renames it."""
  target = _place(out)
  target.parent.mkdir(parents=True, exist_ok=True)
  fresh = pathlib.Path(storage.beside(target))
  fresh.mkdir()
  try:
    for name, content in contents.items():
      storage.write(epath.Path(fresh / name), content)
    _put(fresh, target)
  finally:
    _remove(fresh, {*contents, *ours(epath.Path(fresh))})
  storage.sync(target.parent)


def _write_one_by_one(
  out: epath.Path, contents: dict[str, bytes], written: Iterable[str]
) -> None:
  """Removes files that this package wrote, then writes the new ones.

  After a kill at any point, `ours` knows all files that are left.
  """
  *_, last = contents
  marker = out / unfinished(last)
  older = [name for name in written if name != marker.name]
  if last not in older:
    # They are of a directory that was not finished. Only its marker tells so,
    # and the next line replaces it.
    _unlink(out, older)
  storage.write(marker, contents[last])
  _unlink(out, older)
  for name, content in contents.items():
    storage.write(out / name, content)
  marker.unlink()


def _unlink(directory: epath.Path, file_names: Iterable[str]) -> None:
  for name in file_names:
    (directory / name).unlink(missing_ok=True)


def unfinished(name: str) -> str:
  """Returns the name of a directory's last file while others are written."""
  return f'.{name}.new'


def names(directory: epath.Path, prefix: str = '') -> set[str]:
  """Returns the relative names of all files below a directory, with `/`.

  An empty directory is listed with a `/` at its end. A link counts as a file.
  """
  entries = set()
  for path in directory.iterdir() if directory.is_dir() else ():
    is_link = not storage.in_bucket(path) and os.path.islink(path)
    if path.is_dir() and not is_link:
      inside = f'{prefix}{path.name}/'
      entries |= names(path, inside) or {inside}
    else:
      entries.add(prefix + path.name)
  return entries


def _place(out: epath.Path) -> pathlib.Path:
  """Returns a path with all links resolved."""
  return pathlib.Path(os.path.realpath(out))


def _is_current(out: epath.Path) -> bool:
  return not storage.in_bucket(out) and _place(out) == pathlib.Path.cwd()


def _put(fresh: pathlib.Path, target: pathlib.Path) -> None:
  """Renames the fresh directory to `target`, and an older one to its name."""
  if not target.exists():
    fresh.rename(target)
    return
  try:
    _exchange(fresh, target)
  except OSError as error:
    if error.errno not in _CANNOT:
      raise
    old = pathlib.Path(storage.beside(target))
    target.rename(old)
    fresh.rename(target)
    old.rename(fresh)


def _exchange(one: pathlib.Path, other: pathlib.Path) -> None:
  """Exchanges the names of two directories in one atomic step.

  Raises:
    OSError: the system or the file system cannot do that, or it failed.
  """
  libc = ctypes.CDLL(None, use_errno=True)
  a, b = os.fsencode(one), os.fsencode(other)
  if hasattr(libc, 'renameat2'):
    failed = libc.renameat2(_AT_FDCWD, a, _AT_FDCWD, b, _EXCHANGE)
  elif hasattr(libc, 'renamex_np'):
    failed = libc.renamex_np(a, b, _SWAP)
  else:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
  if failed:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), str(other))


def _remove(directory: pathlib.Path, written: set[str]) -> None:
  """Removes the written files below a directory, then the empty directories.

  It stops with a warning at the first directory that holds anything else.
  """
  for name in sorted(names(epath.Path(directory)) & written):
    (directory / name).unlink()
  inside = [pathlib.Path(path) for path, *_ in os.walk(directory)]
  for path in sorted(inside, reverse=True):
    if any(path.iterdir()):
      console.say(f'warning: {path} stays, it holds what we have not written')
      return
    path.rmdir()
