"""Conversion of ImageNet to ArrayRecord files, from tar files or TFRecords.

Neither TensorFlow nor TensorFlow Datasets is needed.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import grain

from bignas_jax.data import array_records, shards, tars
from bignas_jax.data.shards import NAME, Shard
from bignas_jax.system import files
from bignas_jax.values import errors, parsing, schema

# As many images a file as TFDS puts in each of its 1,024: about 140 MB.
_PER_SHARD = 1251
_TFRECORD = re.compile(rf'{NAME}-(\w+)\.tfrecord-(\d+)-of-(\d+)')
# Errors of grain for a file that is cut off, or is no TFRecord file.
_BROKEN = (ValueError, OverflowError, MemoryError, OSError)


def from_tars(
  train: pathlib.Path,
  val: pathlib.Path,
  devkit: pathlib.Path,
  out: pathlib.Path,
  per_shard: int = _PER_SHARD,
) -> dict[str, int]:
  """Writes ArrayRecord files from the original archives.

  Images are ordered by class, then by name. That is the order of a folder of
  the same files, so the held-out images are equal, too.

  Args:
    train: ILSVRC2012_img_train.tar, which has one tar file for each class.
    val: ILSVRC2012_img_val.tar.
    devkit: ILSVRC2012_devkit_t12.tar.gz, which has the labels of `val`.
    out: directory to write to.
    per_shard: images in a file, approximately.

  Returns:
    The number of images by split, as they are in the files.

  Raises:
    UserError: an archive is missing, incomplete or not what it should be, or
      `out` holds files that are not made from these archives.
  """
  shards.check_place(out)
  kit = tars.devkit(devkit)
  splits = {
    'train': ('--train', train, tars.train(train, kit)),
    'validation': ('--val', val, tars.val(val, kit)),
  }
  outputs = {}
  for split, (field, path, images) in splits.items():
    number = max(1, round(len(images) / per_shard))
    bounds = [len(images) * i // number for i in range(number + 1)]
    for i in range(number):
      members = images[bounds[i] : bounds[i + 1]]
      read = functools.partial(tars.read, field, path, members)
      text = json.dumps(members).encode()
      made_of = {
        'archive_bytes': path.stat().st_size,
        'members_sha256': hashlib.sha256(text).hexdigest(),
      }
      name = array_records.shard(NAME, split, i, number)
      source = (field, str(path))
      outputs[name] = Shard(split, len(members), read, source, made_of)
  labels = '\n'.join(kit.classes) + '\n'
  return shards.prepare(out, {array_records.LABELS: labels}, outputs, 1)


def from_tfrecords(
  directory: pathlib.Path, out: pathlib.Path, workers: int = 1
) -> dict[str, int]:
  """Writes one ArrayRecord file for each of TFDS's TFRecord files.

  Images keep their order, so that the held-out images are those that TFDS's own
  ArrayRecord files would give.

  Args:
    directory: directory of one version, with imagenet2012-train.tfrecord-*
      files.
    out: directory to write to.
    workers: number of files that are written at once.

  Returns:
    The number of images by split, as they are in the files.

  Raises:
    UserError: TFRecord files are missing or damaged, or `out` holds files that
      are not made from them.
  """
  shards.check_place(out)
  tfrecords = _tfrecord_files(directory)
  texts = {
    name: files.read_text(directory / name)
    for name in shards.TEXTS[:2]
    if (directory / name).is_file()
  }
  lengths = {}
  if (directory / shards.TEXTS[2]).is_file():
    info = files.read_json(directory / shards.TEXTS[2])
    lengths = _lengths(info)
    # TFDS's own description, so that it can read the new files as well.
    info['fileFormat'] = 'array_record'
    texts[shards.TEXTS[2]] = json.dumps(info, indent=2) + '\n'
  outputs = {}
  for path, key in tfrecords.items():
    read = functools.partial(_tfrecords, path)
    source, made_of = ('--tfrecords', str(path)), {'bytes': path.stat().st_size}
    name = array_records.shard(NAME, *key)
    outputs[name] = Shard(key[0], lengths.get(key), read, source, made_of)
  return shards.prepare(out, texts, outputs, workers)


def _tfrecord_files(
  directory: pathlib.Path,
) -> dict[pathlib.Path, tuple[str, int, int]]:
  """Returns the TFRecord files with their split, index and number of files.

  Raises:
    UserError: a file is missing.
  """
  tfrecords = {
    p: (m[1], int(m[2]), int(m[3]))
    for p in sorted(directory.glob('*.tfrecord-*'))
    if (m := _TFRECORD.fullmatch(p.name))
  }
  if not (directory / array_records.LABELS).is_file() or not tfrecords:
    raise errors.UserError(
      '--tfrecords',
      str(directory),
      f'a directory with {array_records.LABELS} and {NAME}-train.tfrecord-*',
    )
  there = set(tfrecords.values())
  for split, _, number in sorted(there):
    for index in range(number):
      if (split, index, number) not in there:
        name = f'{NAME}-{split}.tfrecord-{index:05}-of-{number:05}'
        allowed = f'all {number} files of {split}; {name} is missing'
        raise errors.UserError('--tfrecords', str(directory), allowed)
  return tfrecords


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Split:
  """The part of a split's description that is read.

  TFDS writes numbers of images as text.
  """

  name: str = ''
  shardLengths: tuple[str | int, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Info:
  """The part of TFDS's `dataset_info.json` that is read."""

  splits: tuple[_Split, ...] = ()


def _lengths(info: dict[str, Any]) -> dict[tuple[str, int, int], int]:
  """Returns the number of images of each file in `dataset_info.json`."""
  lengths = {}
  dataset = schema.convert(_Info, info, f'{shards.TEXTS[2]}:', others=True)
  for split in dataset.splits:
    for index, images in enumerate(split.shardLengths):
      field = f'{shards.TEXTS[2]}: shardLengths'
      number = parsing.value(schema.Whole, str(images), field)
      lengths[split.name, index, len(split.shardLengths)] = number
  return lengths


def _tfrecords(path: pathlib.Path) -> Iterator[bytes]:
  try:
    yield from grain.experimental.TFRecordIterDataset(str(path))
  except _BROKEN:
    raise errors.UserError(
      '--tfrecords', str(path), 'a whole TFRecord file'
    ) from None
