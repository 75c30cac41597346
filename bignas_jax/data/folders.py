"""A folder of image files, with one directory for each class."""

import dataclasses
import errno
import hashlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from bignas_jax.data import decode
from bignas_jax.system import console, process, storage
from bignas_jax.values import errors

# Suffixes of files that OpenCV decodes. Contents are not checked in advance,
# because opening a million files takes as long as an epoch.
SUFFIXES = (
  *('.avif', '.bmp', '.dib', '.gif', '.jfif', '.jp2', '.jpe', '.jpeg', '.jpg'),
  *('.pbm', '.pgm', '.png', '.pnm', '.ppm', '.tif', '.tiff', '.webp'),
)
# Errors that are due to the process, not to the file to be opened.
_OF_THE_PROCESS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
# Accuracies were reported on these test images, so they must never change.
_CUT_SEED = 2021
_said: set[str] = set()


@dataclasses.dataclass(frozen=True)
class FileSource:
  """Image files, each read when it is asked for.

  Attributes:
    paths: paths of the files, on any file system that epath knows.
    labels: one label for each file.
    classes: names of the classes.
    channels: 3 (RGB) or 1 (gray), whatever the file has.
  """

  paths: tuple[str, ...]
  labels: tuple[int, ...]
  classes: tuple[str, ...]
  channels: int

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int) -> tuple[decode.Image, int]:
    data = _content(self.paths[index])
    return decode.open_image(data, self.channels), self.labels[index]

  def name(self, index: int) -> str:
    """Returns the path of a file."""
    return self.paths[index]

  def subset(self, indices: Sequence[int]) -> 'FileSource':
    """Returns the files at some indices, in their order."""
    return dataclasses.replace(
      self,
      paths=tuple(self.paths[i] for i in indices),
      labels=tuple(self.labels[i] for i in indices),
    )

  def digest(self) -> str:
    """Returns the SHA-256 of each file's CLASS/NAME and label."""
    names = ('/'.join(path.rsplit('/', 2)[1:]) for path in self.paths)
    lines = (f'{n} {k}' for n, k in zip(names, self.labels, strict=True))
    text = '\0'.join(lines).encode(errors='surrogateescape')
    return hashlib.sha256(text).hexdigest()


def read(
  directory: str, channels: int, test_images: int = 0
) -> tuple[FileSource, FileSource]:
  """Returns training and test images, labelled in the order of folder names.

  It prints on stderr, once for each split, what is left out: files without one
  of SUFFIXES, and what is not in the folder of a class. Hidden files are left
  out silently.

  Args:
    directory: has `train/CLASS/*` and `test/CLASS/*` (or `val`) inside it; if
      `test_images` is not 0, `train/CLASS/*` or `CLASS/*` alone.
    channels: channels of the images wanted.
    test_images: number of images that are set aside to test on, always the same
      ones; 0: the directory has them in a folder of their own.

  Raises:
    UserError: something is missing; says what.
  """
  root = storage.path(directory, 'data.directory') if directory else None
  if root is None or not root.is_dir():
    raise _error(directory, f'a directory with train/ and test/ {errors.MOVED}')
  last = 'test' if (root / 'test').is_dir() else 'val'
  if test_images:
    return _cut(root, last, channels, test_images)
  for split in ('train', last):
    if not (root / split).is_dir():
      missing = 'train/' if split == 'train' else 'test/ (or val/)'
      allowed = f'a directory with {missing} in it, or data.test_images > 0'
      raise _error(root, allowed)
  train = _files(root / 'train', channels)
  test = _files(root / last, channels)
  if train.classes != test.classes:
    extra = sorted(set(train.classes) ^ set(test.classes))
    raise _error(
      root, f'the same classes in train/ and {last}/, unlike {extra[0]}'
    )
  return train, test


def _cut(
  root: Any, last: str, channels: int, test_images: int
) -> tuple[FileSource, FileSource]:
  """Returns the images of a folder without a test folder, cut in two."""
  trained = root / 'train'
  if trained.is_dir() and (root / last).is_dir():
    allowed = f'0, where there are train/ and {last}/'
    raise errors.UserError('data.test_images', test_images, allowed)
  every = _files(trained if trained.is_dir() else root, channels)
  if test_images >= len(every):
    allowed = f'0 to {len(every) - 1}, of {len(every)} images'
    raise errors.UserError('data.test_images', test_images, allowed)
  order = np.random.RandomState(_CUT_SEED).permutation(len(every))
  tested, others = order[:test_images], order[test_images:]
  return every.subset(sorted(others)), every.subset(sorted(tested))


def _content(path: str) -> bytes:
  """Returns the content of a file.

  Raises:
    Damaged: the system cannot read the file.
  """
  try:
    if '://' in path:
      return epath.Path(path).read_bytes()
    with open(path, 'rb') as file:  # 0.1 ms faster
      return file.read()
  except OSError as error:
    if error.errno in _OF_THE_PROCESS:
      raise
    raise decode.Damaged(error.strerror or str(error)) from None


def _files(directory: Any, channels: int) -> FileSource:
  """Returns all images below a directory, sorted by class, then by name."""
  entries = _names(directory)
  classes = [name for name in entries if (directory / name).is_dir()]
  if not classes:
    raise _error(directory, 'a directory for each class in it')
  left_out = [name for name in entries if name not in set(classes)]
  paths, labels = [], []
  for label, name in enumerate(classes):
    folder = directory / name
    by_suffix = {True: [], False: []}
    for file in _names(folder):
      by_suffix[os.path.splitext(file)[1].lower() in SUFFIXES].append(file)
    if not by_suffix[True]:
      deeper = any((folder / file).is_dir() for file in by_suffix[False][:1])
      hint = '; is there a folder too many?' if deeper else ''
      raise _error(folder, f'images in it, {_form()}{hint}')
    paths += [f'{folder}/{file}' for file in by_suffix[True]]
    labels += [label] * len(by_suffix[True])
    left_out += [f'{name}/{file}' for file in by_suffix[False]]
  _say(directory, len(paths), left_out)
  return FileSource(tuple(paths), tuple(labels), tuple(classes), channels)


def _names(directory: Any) -> list[str]:
  """Returns the sorted names of a directory's entries, without hidden ones."""
  try:
    if storage.in_bucket(directory):
      names = [path.name for path in directory.iterdir()]
    else:  # paths of a million files would take seconds
      names = os.listdir(directory)
  except OSError as error:
    reason = error.strerror or str(error)
    raise _error(
      directory, f'a directory that can be read ({reason})'
    ) from None
  return sorted(name for name in names if not name.startswith('.'))


def _say(directory: Any, images: int, left_out: list[str]) -> None:
  """Prints what is left out, once in the life of a process."""
  text = f'{directory}: {len(left_out)} left out'
  if left_out and process.leads() and text not in _said:
    _said.add(text)
    console.say(f'{text}, such as {left_out[0]}; {images} images are {_form()}')


def _form() -> str:
  return f'CLASS/NAME with one of the suffixes {", ".join(SUFFIXES)}'


def _error(path: object, allowed: str) -> errors.UserError:
  return errors.UserError('data.directory', str(path), allowed)
