"""ImageNet as ArrayRecord files, from what people have: tar files or TFRecords.

Neither TensorFlow nor TensorFlow Datasets is needed. A file appears under its
name when it is whole, so that an interrupted command goes on where it was.
"""

import os
import pathlib
import re
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from concurrent import futures
from typing import NamedTuple

import grain
import scipy.io
from array_record.python import (
  array_record_module,  # pyright: ignore[reportAttributeAccessIssue]
)
from etils import epath

from bignas_jax import array_records, errors, examples, files, metrics

NAME = 'imagenet2012'
# As many images a file as TFDS puts in each of its 1,024: about 140 MB.
_PER_SHARD = 1251
_TFRECORD = re.compile(rf'{NAME}-(\w+)\.tfrecord-(\d+)-of-(\d+)')


class _Member(NamedTuple):
  """An image inside a tar file."""

  name: str
  label: int
  offset: int
  size: int


def from_tars(
  train: pathlib.Path,
  val: pathlib.Path,
  devkit: pathlib.Path,
  out: pathlib.Path,
  per_shard: int = _PER_SHARD,
) -> dict[str, int]:
  """Writes ArrayRecord files of the original archives.

  Images come in the order of their classes, then of their names: the order,
  and so the held-out images, of a folder of the same files.

  Args:
    train: ILSVRC2012_img_train.tar, a tar file a class in it.
    val: ILSVRC2012_img_val.tar.
    devkit: ILSVRC2012_devkit_t12.tar.gz, which has the labels of `val`.
    out: directory to write to.
    per_shard: images a file.

  Returns:
    Images by split.

  Raises:
    UserError: an archive is not there or not what it should be.
  """
  for field, path in (('train', train), ('val', val), ('devkit', devkit)):
    if not path.is_file() or not tarfile.is_tarfile(path):
      raise errors.UserError(f'--{field}', str(path), 'an ILSVRC2012 tar file')
  classes, of_val = _devkit(devkit)
  members = {
    'train': (train, _train_members(train, classes)),
    'validation': (val, _val_members(val, classes, of_val)),
  }
  out.mkdir(parents=True, exist_ok=True)
  (out / array_records.LABELS).write_text('\n'.join(classes) + '\n')
  for split, (path, found) in members.items():
    shards = max(1, round(len(found) / per_shard))
    bounds = [len(found) * i // shards for i in range(shards + 1)]
    for i in range(shards):
      part = found[bounds[i] : bounds[i + 1]]
      target = out / array_records.shard(NAME, split, i, shards)
      _write(target, _tar_examples(path, part))
      metrics.say(f'{split}: {i + 1} of {shards} files')
  return {split: len(found) for split, (_, found) in members.items()}


def from_tfrecords(
  directory: pathlib.Path, out: pathlib.Path, workers: int = 1
) -> dict[str, int]:
  """Writes an ArrayRecord file for each of TFDS's TFRecord files.

  Images keep their order, so that the held-out ones are those that TFDS's own
  ArrayRecord files have.

  Args:
    directory: of one version, with files imagenet2012-train.tfrecord-*.
    out: directory to write to.
    workers: files at once.

  Returns:
    Images by split.

  Raises:
    UserError: files are missing or damaged.
  """
  labels = directory / array_records.LABELS
  found = {
    p: m
    for p in sorted(directory.glob('*.tfrecord-*'))
    if (m := _TFRECORD.fullmatch(p.name))
  }
  if not labels.is_file() or not found:
    raise errors.UserError(
      '--tfrecords',
      str(directory),
      f'a directory with {array_records.LABELS} and {NAME}-train.tfrecord-*',
    )
  out.mkdir(parents=True, exist_ok=True)
  for name in (array_records.LABELS, 'features.json'):
    if (directory / name).is_file():
      shutil.copyfile(directory / name, out / name)
  _copy_info(directory, out)
  counts: dict[str, int] = {}
  with futures.ThreadPoolExecutor(workers) as pool:
    jobs = {
      path: pool.submit(
        _write,
        out / array_records.shard(NAME, m[1], int(m[2]), int(m[3])),
        _tfrecords(path),
      )
      for path, m in found.items()
    }
    for done, (path, job) in enumerate(jobs.items()):
      split = found[path][1]
      counts[split] = counts.get(split, 0) + job.result()
      metrics.say(f'{done + 1} of {len(jobs)} files')
  return counts


def _write(target: pathlib.Path, records: Iterable[bytes]) -> int:
  """Writes a whole file or none; how many records it has."""
  if target.is_file():
    reader = array_record_module.ArrayRecordReader(str(target))
    count = reader.num_records()
    reader.close()
    return count
  fresh, count = target.with_name(target.name + '.new'), 0
  # One record a group, to be read at random; JPEGs are compressed already.
  writer = array_record_module.ArrayRecordWriter(
    str(fresh), 'group_size:1,uncompressed'
  )
  try:
    for record in records:
      writer.write(record)
      count += 1
  finally:
    writer.close()
  os.replace(fresh, target)
  return count


def _tfrecords(path: pathlib.Path) -> Iterator[bytes]:
  records = iter(grain.experimental.TFRecordIterDataset(str(path)))
  while True:
    try:
      record = next(records)
    except StopIteration:
      return
    except ValueError:
      raise errors.UserError(
        '--tfrecords', str(path), 'a whole TFRecord file'
      ) from None
    yield record


def _copy_info(directory: pathlib.Path, out: pathlib.Path) -> None:
  """TFDS's own description, so that it can read the new files as well."""
  path = directory / 'dataset_info.json'
  if path.is_file():
    info = files.read_json(epath.Path(path))
    info['fileFormat'] = 'array_record'
    files.write_json(epath.Path(out / path.name), info)


def _devkit(path: pathlib.Path) -> tuple[list[str], list[str]]:
  """Sorted classes, as TFDS numbers them; the class of each image of val."""
  with tarfile.open(path) as archive:
    files = {pathlib.PurePosixPath(m.name).name: m for m in archive}
    try:
      meta = archive.extractfile(files['meta.mat'])
      truth = archive.extractfile(
        files['ILSVRC2012_validation_ground_truth.txt']
      )
    except KeyError as error:
      raise errors.UserError(
        '--devkit', str(path), f'ILSVRC2012_devkit_t12.tar.gz, with {error}'
      ) from None
    assert meta and truth
    synsets = scipy.io.loadmat(meta, squeeze_me=True)['synsets']
    ids = [int(line) for line in truth.read().split()]
  # The leaves are the classes; inner nodes of WordNet follow them.
  leaves = {
    int(s['ILSVRC2012_ID']): str(s['WNID'])
    for s in synsets
    if s['num_children'] == 0
  }
  return sorted(leaves.values()), [leaves[i] for i in ids]


def _train_members(path: pathlib.Path, classes: list[str]) -> list[_Member]:
  found = []
  with tarfile.open(path) as outer:
    for entry in outer:
      name = pathlib.PurePosixPath(entry.name).stem
      if name not in classes:
        raise errors.UserError(
          '--train', f'{path}: {entry.name}', 'the classes of the devkit'
        )
      file = outer.extractfile(entry)
      assert file is not None
      with tarfile.open(fileobj=file) as inner:
        found += [
          _Member(
            m.name,
            classes.index(name),
            entry.offset_data + m.offset_data,
            m.size,
          )
          for m in inner
          if m.isfile()
        ]
  return sorted(found, key=lambda m: (m.label, m.name))


def _val_members(
  path: pathlib.Path, classes: list[str], of_val: list[str]
) -> list[_Member]:
  with tarfile.open(path) as archive:
    entries = sorted((m for m in archive if m.isfile()), key=lambda m: m.name)
  if len(entries) != len(of_val):
    raise errors.UserError(
      '--val', f'{path}: {len(entries)} images', f'{len(of_val)} images'
    )
  found = [
    _Member(m.name, classes.index(name), m.offset_data, m.size)
    for m, name in zip(entries, of_val, strict=True)
  ]
  return sorted(found, key=lambda m: (m.label, m.name))


def _tar_examples(
  path: pathlib.Path, members: Iterable[_Member]
) -> Iterator[bytes]:
  with path.open('rb') as file:
    for member in members:
      file.seek(member.offset)
      image = file.read(member.size)
      yield examples.encode(member.name, image, member.label)
