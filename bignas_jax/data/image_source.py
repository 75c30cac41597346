"""What a source of images is; one in memory, and one of a user's own."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from bignas_jax.data import decode
from bignas_jax.values import errors, functions

_FIELD = 'data.name'


class Source(Protocol):
  """Random access to labelled images; can be pickled for worker processes."""

  @property
  def classes(self) -> tuple[str, ...]:
    """Returns the names of the classes; a label is an index into them."""
    ...

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> tuple[decode.Image, int]:
    """Returns an image and its label.

    Raises:
      decode.Damaged: the stored data cannot be read, or are no image.
    """
    ...

  def name(self, index: int) -> str:
    """Returns the name of an image for a message."""
    ...

  def subset(self, indices: Sequence[int]) -> 'Source':
    """Returns the images at some indices, in their order."""
    ...

  def digest(self) -> str:
    """Returns a SHA-256 of the images' labels, and of their names, if any."""
    ...


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
  """Images of one size in memory.

  Attributes:
    images: uint8 [n, height, width, channels].
    labels: int32 [n].
    classes: names of the classes.
  """

  images: np.ndarray
  labels: np.ndarray
  classes: tuple[str, ...]

  def __len__(self) -> int:
    return len(self.labels)

  def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
    return self.images[index], int(self.labels[index])

  def name(self, index: int) -> str:
    """Returns the name of an image for a message."""
    return f'image {index}'

  def subset(self, indices: Sequence[int]) -> 'ArraySource':
    """Returns the images at some indices, in their order."""
    chosen = np.asarray(indices, int)
    return dataclasses.replace(
      self, images=self.images[chosen], labels=self.labels[chosen]
    )

  def digest(self) -> str:
    """Returns the SHA-256 of pixels and labels."""
    digest = hashlib.sha256(repr(self.images.shape).encode())
    digest.update(self.images.tobytes())
    digest.update(self.labels.astype('<i4').tobytes())
    return digest.hexdigest()


def load(name: str, directory: str, channels: int) -> tuple[Source, Source]:
  """Returns the training and the test images of a user's function, checked.

  Args:
    name: name of a function of (directory, channels), such as
      `package.module:function`.
    directory: `data.directory`.
    channels: channels of the images wanted.

  Raises:
    UserError: there is no such function, a split has no image, the splits have
      other classes, or the first image of one is wrong.
  """
  result = tuple[Source, Source]
  read = functions.load(_FIELD, name, (str, int), result)
  train, test = read(directory, channels)
  for split, images in ('train', train), ('test', test):
    _check(images, channels, f'{_FIELD} {name}: {split}')
  if tuple(train.classes) != tuple(test.classes):
    allowed = f'the classes of the training images, {list(train.classes)}'
    field = f'{_FIELD} {name}: classes of test'
    raise errors.UserError(field, list(test.classes), allowed)
  return train, test


def _check(images: Source, channels: int, field: str) -> None:
  """Raises UserError if a split has no image, or its first one is wrong."""
  if not len(images):
    raise errors.UserError(field, 'no image', 'at least one')
  try:
    first, label = images[0]
    pixels = decode.decode(first)
  except decode.Damaged:
    return  # treated like any other damaged image
  if pixels.dtype != np.uint8 or pixels.shape[2:] != (channels,):
    allowed = f'images of uint8 [height, width, {channels}]'
    got = f'{pixels.dtype} {list(pixels.shape)}'
    raise errors.UserError(field, got, allowed)
  if not 0 <= label < len(images.classes):
    allowed = f'a label from 0 to {len(images.classes) - 1}'
    raise errors.UserError(field, label, allowed)
