"""Files that come to their place together: made beside it, moved when whole."""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator

from etils import epath

from bignas_jax import errors, files, storage

_WRITABLE = 'a directory that can be written to'


def check(directory: epath.Path, field: str) -> None:
  """Raises UserError, naming the field, where nothing can be written."""
  if storage.in_bucket(directory):
    return
  if not (directory.is_dir() and os.access(directory, os.W_OK)):
    raise errors.UserError(field, str(directory), _WRITABLE)


@contextlib.contextmanager
def staging(out: epath.Path) -> Iterator[pathlib.Path]:
  """A directory beside `out`, gone at the end.

  Raises:
    UserError: nothing can be written there, or the disk is full.
  """
  stage = None
  try:
    if storage.in_bucket(out):
      stage = tempfile.mkdtemp()
    else:
      if out.exists():
        check(out, '--out')
      out.parent.mkdir(parents=True, exist_ok=True)
      stage = tempfile.mkdtemp(prefix=f'{out.name}.', dir=out.parent)
    yield pathlib.Path(stage)
  except OSError as error:
    if stage is not None and not files.no_room(error):
      raise
    allowed = f'{_WRITABLE} ({error.strerror})'
    raise errors.UserError('--out', str(out), allowed) from None
  finally:
    if stage is not None:
      shutil.rmtree(stage, ignore_errors=True)


def place(
  names: Iterable[str], stage: pathlib.Path, directory: epath.Path
) -> None:
  """Moves files, each whole or not at all, over what has their names.

  Args:
    names: of files, which may have a `/`.
    stage: where they are.
    directory: where they belong.
  """
  for name in names:
    target = directory / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if storage.in_bucket(directory):
      target.write_bytes((stage / name).read_bytes())
    else:
      os.replace(stage / name, target)
