"""Data sets that TensorFlow Datasets has prepared, read without TensorFlow."""

import functools
import importlib
import os
from typing import Any

import numpy as np

from bignas_jax.data import array_records, decode
from bignas_jax.values import errors

PREFIX = 'tfds:'
# Which split is tested on: the first of these that has labels.
_TEST = ('test', 'validation')
# TFDS's ImageNet has labels for `validation` alone.
_UNLABELLED = {('imagenet2012', 'test')}


def read(
  name: str, directory: str, channels: int
) -> tuple[array_records.RecordSource, array_records.RecordSource]:
  """Returns the training and the test images, in the order of the files.

  Args:
    name: `tfds:NAME`, or `tfds:NAME/CONFIG:VERSION`.
    directory: TFDS's `data_dir`; '': its default, `~/tensorflow_datasets`.
    channels: 1 (gray) or 3 (RGB) of the images wanted.

  Raises:
    UserError: the set is unknown, is not prepared as ArrayRecord, has no
      training or no test images, or no image and label in its examples.
  """
  builder = _builder(name, directory)
  image, label = _features(name, builder.info)
  splits = builder.info.splits
  test = next(
    (
      split
      for split in _TEST
      if split in splits and (builder.name, split) not in _UNLABELLED
    ),
    None,
  )
  if 'train' not in splits or test is None:
    allowed = 'a set with the splits train and test (or validation)'
    raise errors.UserError('data.name', name, allowed)
  trained, tested = (
    _source(name, builder, split, image, label, channels)
    for split in ('train', test)
  )
  return trained, tested


def _tfds() -> Any:
  """Imports TFDS, which takes a second."""
  return importlib.import_module('tensorflow_datasets')


def _builder(name: str, directory: str) -> Any:
  """Returns TFDS's builder of a prepared set."""
  tfds = _tfds()
  place = os.path.expanduser(directory) if directory else None
  try:
    builder = tfds.builder(name.removeprefix(PREFIX), data_dir=place)
  except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as error:
    first = str(error).strip().partition('\n')[0]
    allowed = f'tfds:NAME of a set that TFDS knows, or has prepared ({first})'
    raise errors.UserError('data.name', name, allowed) from None
  kind = tfds.core.FileFormat.ARRAY_RECORD
  if not builder.info.splits or builder.info.file_format != kind:
    command = f'tfds build {builder.name} --file_format=array_record'
    allowed = f'a directory in which it is prepared: {command} {errors.MOVED}'
    path = str(directory or builder.data_dir)
    raise errors.UserError('data.directory', path, allowed)
  return builder


def _features(name: str, info: Any) -> tuple[str, str]:
  """Returns the names of a set's image and label."""
  tfds = _tfds()
  kinds = tfds.features.Image, tfds.features.ClassLabel
  keys = [
    [key for key, one in info.features.items() if isinstance(one, kind)]
    for kind in kinds
  ]
  images, labels = keys
  image, label = info.supervised_keys or (*images[:1], *labels[:1], None)[:2]
  if image in images and label in labels:
    return str(image), str(label)
  allowed = 'a set for image classification: with an image and its label'
  raise errors.UserError('data.name', name, allowed)


def _source(
  name: str, builder: Any, split: str, image: str, label: str, channels: int
) -> array_records.RecordSource:
  """Returns the images of a split, still encoded when they are read."""
  skip = _tfds().decode.SkipDecoding()
  info = builder.info.splits[split]
  paths = [os.fspath(path) for path in info.filepaths]
  if any(not os.path.isfile(path) for path in paths):
    allowed = f'a directory with all files of {name} {errors.MOVED}'
    raise errors.UserError('data.directory', str(builder.data_dir), allowed)
  records = builder.as_data_source(split=split, decoders={image: skip})
  shards = zip(map(os.path.basename, paths), info.shard_lengths, strict=True)
  return array_records.RecordSource(
    records,
    np.arange(len(records)),
    tuple(builder.info.features[label].names),
    channels,
    tuple((file, int(count)) for file, count in shards),
    functools.partial(_example, image, label),
  )


def _example(
  image: str, label: str, record: dict[str, Any]
) -> tuple[str, bytes, int]:
  """Returns file name, encoded image and label of one of TFDS's examples."""
  name = record.get('file_name', record.get('id', b''))
  if not isinstance(record[image], bytes):
    raise decode.Damaged('not an encoded image')
  text = name.decode(errors='backslashreplace') if name else ''
  return text, record[image], int(record[label])
