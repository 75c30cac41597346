"""A folder of image files, one directory a class."""

import dataclasses
import errno
from collections.abc import Sequence
from typing import Any

from etils import epath

from bignas_jax import errors, images, storage

_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.webp')
# These are not about the file that was to be opened.
_OF_THE_PROCESS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


@dataclasses.dataclass(frozen=True)
class FileSource:
  """Image files, opened when asked for.

  Attributes:
    paths: of the files; of any file system that epath knows.
    labels: one a file.
    classes: their names.
    channels: 3 (RGB) or 1 (gray), whatever the file has.
  """

  paths: tuple[str, ...]
  labels: tuple[int, ...]
  classes: tuple[str, ...]
  channels: int

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int) -> tuple[images.Image, int]:
    data = _content(self.paths[index])
    return images.open_image(data, self.channels), self.labels[index]

  def name(self, index: int) -> str:
    return self.paths[index]

  def subset(self, indices: Sequence[int]) -> 'FileSource':
    return dataclasses.replace(
      self,
      paths=tuple(self.paths[i] for i in indices),
      labels=tuple(self.labels[i] for i in indices),
    )


def read(directory: str, channels: int) -> tuple[FileSource, FileSource]:
  """Training and test images, labelled in the order of the folders' names.

  Args:
    directory: `train/CLASS/*` and `test/CLASS/*` (or `val`) inside it.
    channels: of the images wanted.

  Raises:
    UserError: something is missing; says what.
  """
  root = storage.path(directory)
  if not directory or not root.is_dir():
    raise _error(directory, 'a directory with train/ and test/')
  last = 'test' if (root / 'test').is_dir() else 'val'
  for split in ('train', last):
    if not (root / split).is_dir():
      missing = 'train/' if split == 'train' else 'test/ (or val/)'
      raise _error(root, f'a directory with {missing} in it')
  train = _files(root / 'train', channels)
  test = _files(root / last, channels)
  if train.classes != test.classes:
    extra = sorted(set(train.classes) ^ set(test.classes))
    raise _error(
      root, f'the same classes in train/ and {last}/, unlike {extra[0]}'
    )
  return train, test


def _content(path: str) -> bytes:
  """Reads a file; raises Damaged if the system cannot."""
  try:
    if '://' in path:
      return epath.Path(path).read_bytes()
    with open(path, 'rb') as file:  # a tenth of a millisecond less
      return file.read()
  except OSError as error:
    if error.errno in _OF_THE_PROCESS:
      raise
    raise images.Damaged(error.strerror or str(error)) from None


def _files(directory: Any, channels: int) -> FileSource:
  """All images below a directory, sorted by class, then by name."""
  classes = sorted(
    entry.name
    for entry in directory.iterdir()
    if entry.is_dir() and not entry.name.startswith('.')
  )
  if not classes:
    raise _error(directory, 'one directory a class in it')
  paths, labels = [], []
  for label, name in enumerate(classes):
    found = sorted(
      str(path)
      for path in (directory / name).iterdir()
      if path.suffix.lower() in _SUFFIXES and not path.name.startswith('.')
    )
    if not found:
      raise _error(directory / name, 'images in it: ' + ', '.join(_SUFFIXES))
    paths += found
    labels += [label] * len(found)
  return FileSource(tuple(paths), tuple(labels), tuple(classes), channels)


def _error(path: object, allowed: str) -> errors.UserError:
  return errors.UserError('data.directory', str(path), allowed)
