"""Images in ArrayRecord files, laid out as TensorFlow Datasets (TFDS) does.

A directory holds `NAME-SPLIT.array_record-00000-of-00064` and so on, whose
records are tf.train.Examples, and `label.labels.txt`, one class a line.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

import numpy as np
from array_record.python import (
  array_record_module,  # pyright: ignore[reportAttributeAccessIssue]
)
from array_record.python.array_record_data_source import ArrayRecordDataSource
from google.protobuf import (
  descriptor_pb2,
  descriptor_pool,
  message,
  message_factory,
  text_format,
)

from bignas_jax.data import decode
from bignas_jax.system import files
from bignas_jax.values import errors

LABELS = 'label.labels.txt'
# Names of the test split. TFDS's `test` of ImageNet has no labels; the images
# with labels are in `validation`.
_TEST = ('validation', 'test')


# The part of TensorFlow's example.proto and feature.proto that is needed here.
_PROTO = """
name: "example.proto" package: "tensorflow" syntax: "proto3"
message_type { name: "BytesList" field {
  name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES } }
message_type { name: "Int64List" field {
  name: "value" number: 1 label: LABEL_REPEATED type: TYPE_INT64 } }
message_type { name: "Feature"
  field { name: "bytes_list" number: 1 label: LABEL_OPTIONAL
    type: TYPE_MESSAGE type_name: ".tensorflow.BytesList" }
  field { name: "int64_list" number: 3 label: LABEL_OPTIONAL
    type: TYPE_MESSAGE type_name: ".tensorflow.Int64List" } }
message_type { name: "Features"
  field { name: "feature" number: 1 label: LABEL_REPEATED
    type: TYPE_MESSAGE type_name: ".tensorflow.Features.Entry" }
  nested_type { name: "Entry" options { map_entry: true }
    field { name: "key" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
    field { name: "value" number: 2 label: LABEL_OPTIONAL
      type: TYPE_MESSAGE type_name: ".tensorflow.Feature" } } }
message_type { name: "Example" field {
  name: "features" number: 1 label: LABEL_OPTIONAL
  type: TYPE_MESSAGE type_name: ".tensorflow.Features" } }
"""
# A pool of its own: TensorFlow in the same process has the same names.
_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(text_format.Parse(_PROTO, descriptor_pb2.FileDescriptorProto()))
_Example = message_factory.GetMessageClass(
  _POOL.FindMessageTypeByName('tensorflow.Example')
)


def encode_example(file_name: str, image: bytes, label: int) -> bytes:
  """Returns an example with the features that TFDS gives to ImageNet."""
  example: Any = _Example()
  feature = example.features.feature
  feature['file_name'].bytes_list.value.append(file_name.encode())
  feature['image'].bytes_list.value.append(image)
  feature['label'].int64_list.value.append(label)
  return example.SerializeToString(deterministic=True)


def decode_example(record: bytes) -> tuple[str, bytes, int]:
  """Returns file name (empty if there is none), encoded image and label.

  Raises:
    Damaged: the record is no example with an `image` and a `label`.
  """
  try:
    example: Any = _Example.FromString(record)
    feature = example.features.feature
    image = feature['image'].bytes_list.value[0]
    label = feature['label'].int64_list.value[0]
  except (message.DecodeError, IndexError):
    raise decode.Damaged(
      'not a tf.train.Example with an image and a label'
    ) from None
  names = feature['file_name'].bytes_list.value
  name = names[0].decode(errors='backslashreplace') if names else ''
  return name, image, label


@dataclasses.dataclass(frozen=True, eq=False)
class RecordSource:
  """Images of a split, each read when it is asked for.

  Attributes:
    records: all records of the split, by their index.
    indices: indices of the records that belong to the source.
    classes: names of the classes.
    channels: 3 (RGB) or 1 (gray), whatever the stored image has.
    shards: name and number of images of each of the split's files.
    parse: takes a record apart: file name, encoded image and label.
  """

  records: Any
  indices: np.ndarray
  classes: tuple[str, ...]
  channels: int
  shards: tuple[tuple[str, int], ...]
  parse: Callable[[Any], tuple[str, bytes, int]] = decode_example

  def __len__(self) -> int:
    return len(self.indices)

  def __getitem__(self, index: int) -> tuple[decode.Image, int]:
    _, image, label = self._example(index)
    if not 0 <= label < len(self.classes):
      raise decode.Damaged(f'label {label} of {len(self.classes)} classes')
    return decode.open_image(image, self.channels), label

  def name(self, index: int) -> str:
    """Returns a record's index and, if it is readable, its file name."""
    try:
      name = self._example(index)[0]
    except decode.Damaged:
      name = ''
    return f'record {self.indices[index]} {name}'.rstrip()

  def subset(self, indices: Sequence[int]) -> 'RecordSource':
    """Returns the images at some indices, in their order."""
    return dataclasses.replace(
      self, indices=self.indices[np.asarray(indices, int)]
    )

  def digest(self) -> str:
    """Returns the SHA-256 of the files' names and lengths and the indices."""
    digest = hashlib.sha256(json.dumps(self.shards).encode())
    digest.update(self.indices.astype('<i8').tobytes())
    return digest.hexdigest()

  def _example(self, index: int) -> tuple[str, bytes, int]:
    """Returns file name, encoded image and label of an image.

    Raises:
      Damaged: the record cannot be read, or has no image or no label.
    """
    try:
      record = self.records[int(self.indices[index])]
    except (OSError, RuntimeError) as error:  # other records may be readable
      raise decode.Damaged(str(error).partition(';')[0]) from None
    return self.parse(record)


def shard(name: str, split: str, index: int, shards: int) -> str:
  """Returns TFDS's name of one of a split's files."""
  return f'{name}-{split}.array_record-{index:05}-of-{shards:05}'


def read(
  directory: str, name: str, channels: int
) -> tuple[RecordSource, RecordSource]:
  """Returns training and test images, in the order of the files.

  Args:
    directory: holds the files, or has them in NAME/VERSION inside it; of
      several versions, the newest is read.
    name: name of the dataset.
    channels: channels of the images wanted.

  Raises:
    UserError: files are missing or are no ArrayRecord; says which.
  """
  root = _root(directory, name)
  labels = root / LABELS
  if not labels.is_file():
    raise _error(root, f'a directory with {LABELS} in it, a class a line')
  lines = files.read_text(labels).split('\n')
  classes = tuple(line.strip() for line in lines if line.strip())
  splits = {path.name.split('.')[0] for path in _paths(root, name)}
  last = next((s for s in _TEST if f'{name}-{s}' in splits), _TEST[0])
  train, test = (
    _split(root, name, split, classes, channels) for split in ('train', last)
  )
  return train, test


def _root(directory: str, name: str) -> pathlib.Path:
  root = pathlib.Path(directory)
  if directory.startswith('gs://'):
    raise _error(directory, 'a mounted bucket (gcsfuse) or a copy of it')
  if not directory or not root.is_dir():
    allowed = f'a directory with {name} as ArrayRecord in it {errors.MOVED}'
    raise _error(directory, allowed)
  versions = [
    path
    for path in (root / name).glob('*.*.*')
    if re.fullmatch(r'\d+\.\d+\.\d+', path.name) and _paths(path, name)
  ]
  versions.sort(key=lambda path: tuple(map(int, path.name.split('.'))))
  return versions[-1] if versions and not _paths(root, name) else root


def _paths(root: pathlib.Path, name: str) -> list[pathlib.Path]:
  """Returns the finished files of the dataset, sorted by name."""
  kind = re.compile(rf'{name}-\w+\.array_record-\d+-of-\d+')
  return sorted(p for p in root.glob(f'{name}-*') if kind.fullmatch(p.name))


def _split(
  root: pathlib.Path,
  name: str,
  split: str,
  classes: tuple[str, ...],
  channels: int,
) -> RecordSource:
  finished = [
    p for p in _paths(root, name) if p.name.startswith(f'{name}-{split}.')
  ]
  if not finished:
    first = shard(name, split, 0, 1).replace('00001', 'N')
    raise _error(root, f'a directory with files {first} and so on')
  shards = int(finished[0].name.rpartition('-')[2])
  # If a file were missing, images would have other indices.
  for index in range(shards):
    path = root / shard(name, split, index, shards)
    if not path.is_file():
      raise _error(path, f'all {shards} files of {split}')
  paths = [str(root / shard(name, split, i, shards)) for i in range(shards)]
  with futures.ThreadPoolExecutor(16) as pool:
    lengths = list(pool.map(count, paths))
  records = ArrayRecordDataSource(
    [f'{path}[0:{count}]' for path, count in zip(paths, lengths, strict=True)]
  )
  names = (os.path.basename(path) for path in paths)
  return RecordSource(
    records,
    np.arange(len(records)),
    classes,
    channels,
    tuple(zip(names, lengths, strict=True)),
  )


def count(path: os.PathLike | str, field: str = 'data.directory') -> int:
  """Returns the number of records in a file.

  The reader is closed for that, since only then it notices a truncated file.

  Args:
    path: the file.
    field: the user's option that names the directory, for the message.

  Raises:
    UserError: the file is incomplete or empty.
  """
  num_records, reason = 0, 'it has no records'
  try:
    reader = array_record_module.ArrayRecordReader(os.fspath(path))
    num_records = reader.num_records()
    reader.close()
  except RuntimeError as error:
    num_records, reason = 0, str(error).partition(';')[0]
  if num_records == 0:
    allowed = f'a whole ArrayRecord file ({reason})'
    raise errors.UserError(field, str(path), allowed)
  return num_records


def _error(path: object, allowed: str) -> errors.UserError:
  return errors.UserError('data.directory', str(path), allowed)
