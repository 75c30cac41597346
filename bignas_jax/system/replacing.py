"""Directories that are replaced whole, and only where all in them is ours."""

import ctypes
import errno
import os
import pathlib
from collections.abc import Callable, Iterable

from etils import epath

from bignas_jax.system import console, files, storage
from bignas_jax.values import errors

_AT_FDCWD, _EXCHANGE = -100, 2  # renameat2(2)
_SWAP = 2  # renamex_np(2), of macOS
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)

# From a directory to the names in it, with `/`, that we have written.
Ours = Callable[[epath.Path], Iterable[str]]


def check(out: epath.Path, ours: Ours, field: str, what: str) -> None:
  """Checks, before any work, that a directory may be made or replaced.

  Args:
    out: of the directory.
    ours: what in it would be ours.
    field: what the user said that names it, such as `--out`.
    what: such as `a child package`, which may be replaced.

  Raises:
    UserError: it is no directory, has something in it that we have not
      written, or nothing can be written there.
  """
  if not storage.in_bucket(out):
    if os.path.lexists(out) and not out.is_dir():
      allowed = f'a new directory, an empty one, or {what}'
      raise errors.UserError(field, str(out), allowed)
    files.check_writable(out, field)
    files.check_writable(_place(out).parent, field)
  there = names(out)
  foreign = sorted(there - set(ours(out))) if there else []
  if foreign:
    allowed = f'a new directory, an empty one, or {what} and nothing else'
    where = f'{out} with {foreign[0]} in it'
    raise errors.UserError(field, where, allowed)
  if there and _is_current(out):
    allowed = f'a directory other than the current one, which holds {what}'
    raise errors.UserError(field, str(out), allowed)


def replace(
  out: epath.Path, contents: dict[str, bytes], ours: Ours, what: str
) -> None:
  """Makes a directory of files, whole or not at all, in place of an older one.

  A process that is killed leaves the old directory or the new one. Where the
  file system cannot exchange two directories, the old one is renamed first,
  and a kill right then leaves both complete under other names beside it.

  Args:
    out: that `check` has passed.
    contents: of the files by their names, the most telling one last: in a
      bucket and in an empty directory they are written in this order.
    ours: as for `check`.
    what: likewise.

  Raises:
    UserError: meanwhile, something else has come into the directory.
  """
  check(out, ours, '--out', what)
  older, known = names(out), set(ours(out))
  if storage.in_bucket(out) or (out.is_dir() and not older):
    # Without the last of them it is none: that one goes first.
    for name in sorted(older & known, key=lambda n: n != list(contents)[-1]):
      (out / name).unlink(missing_ok=True)
    for name, content in contents.items():
      storage.write(out / name, content)
    return
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
  if beside := sorted({n.split('/')[0] for n in older} - set(contents)):
    console.say(f'{out}: removed with the older one: {", ".join(beside)}')


def names(directory: epath.Path, prefix: str = '') -> set[str]:
  """Returns the names of all files below a directory, with `/`.

  An empty directory is a name that ends in `/`; a link is a file.
  """
  found = set()
  for path in directory.iterdir() if directory.is_dir() else ():
    is_link = not storage.in_bucket(path) and os.path.islink(path)
    if path.is_dir() and not is_link:
      inside = f'{prefix}{path.name}/'
      found |= names(path, inside) or {inside}
    else:
      found.add(prefix + path.name)
  return found


def _place(out: epath.Path) -> pathlib.Path:
  """Returns what a path means, without links."""
  return pathlib.Path(os.path.realpath(out))


def _is_current(out: epath.Path) -> bool:
  return not storage.in_bucket(out) and _place(out) == pathlib.Path.cwd()


def _put(fresh: pathlib.Path, target: pathlib.Path) -> None:
  """Gives the fresh directory its name, and an older one the fresh one's."""
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
  """Exchanges two directories' names at once."""
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


def _remove(directory: pathlib.Path, known: set[str]) -> None:
  """Removes the files that are known, and directories that are then empty."""
  for name in sorted(names(epath.Path(directory)) & known):
    (directory / name).unlink()
  inside = [pathlib.Path(path) for path, *_ in os.walk(directory)]
  for path in sorted(inside, reverse=True):
    if any(path.iterdir()):
      console.say(f'warning: {path} stays, it holds what we have not written')
      return
    path.rmdir()
