"""The input pipeline for training and evaluation, one for every source.

A source returns image i and its label whenever asked. Every later step is a
function of (seed, position): batch `step` of a run does not depend on the order
in which batches are asked for, nor on restarts. Batches stay uint8; the
training step normalises them.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np

from bignas_jax.data import (
  autoaugment,
  decode,
  loader,
  sources,
  transforms,
)
from bignas_jax.values import errors

# Practically endless: Grain's own endless repeat cannot be batched by one.
_EPOCHS = 2**31
_TRAINING, _CALIBRATION, _SECOND = 0, 1, 2  # what a seed is used for


def train_batches(
  source: sources.Source,
  data: sources.Data,
  *,
  batch_size: int,
  resolution: int,
  seed: int,
  rows: Sequence[int] | None = None,
) -> loader.Batches:
  """Returns endless augmented batches; element `step` is batch `step` of a run.

  Every image comes once an epoch, and each epoch has an order of its own. A
  batch may hold the end of one epoch and the start of the next, so no image is
  dropped.

  Args:
    source: training images, at least one.
    data: how to augment.
    batch_size: images in a batch, over all devices.
    resolution: height and width, in pixels.
    seed: seed of the run. Order and augmentation are functions of the seed and
      of the position in the run, but not of the resolution.
    rows: rows of every batch that this process prepares; None: all rows.

  Returns:
    Batches, dicts of `image`, uint8 [rows, resolution, resolution, channels],
    and `label`, int32 [rows].
  """
  elements = _augmented(source, data, resolution, _seeds(seed, _TRAINING))
  return _shared(elements, source, data, batch_size, rows)


def second_batches(
  source: sources.Source,
  data: sources.Data,
  *,
  batch_size: int,
  resolution: int,
  seed: int,
  rows: Sequence[int] | None = None,
) -> loader.Batches:
  """Returns endless batches of the second split, as evaluation sees images.

  All else is as in `train_batches`.
  """
  plain = dataclasses.replace(data, augment='none')
  elements = _augmented(source, plain, resolution, _seeds(seed, _SECOND))
  return _shared(elements, source, data, batch_size, rows)


def _shared(
  elements: grain.MapDataset,
  source: sources.Source,
  data: sources.Data,
  batch_size: int,
  rows: Sequence[int] | None,
) -> loader.Batches:
  """Returns this process's rows of endless batches."""
  rows = range(batch_size) if rows is None else rows
  mine = _Share(elements, batch_size, rows)
  return loader.Batches(mine, len(rows), _stack, source, data)


class _Share(grain.MapDataset):
  """The same rows of every batch, as single elements."""

  def __init__(
    self, elements: grain.MapDataset, batch_size: int, rows: Sequence[int]
  ):
    super().__init__(elements)
    self._batch_size, self._rows = batch_size, rows

  def __len__(self) -> int:
    return len(self._parent) // self._batch_size * len(self._rows)

  def __getitem__(self, index: Any) -> Any:
    if isinstance(index, slice):
      return self.slice(index)
    step, number = divmod(index, len(self._rows))
    return self._parent[step * self._batch_size + self._rows[number]]


def calibration_batches(
  source: sources.Source,
  data: sources.Data,
  *,
  images: int,
  batch_size: int,
  resolution: int,
  seed: int,
) -> list[loader.Batch]:
  """Returns a fixed set of augmented training images to calibrate with.

  Args:
    source: training images, at least one.
    data: how to augment.
    images: number of images, which is rounded up to whole batches.
    batch_size: images in a batch.
    resolution: height and width, in pixels.
    seed: seed of the set; training with this seed sees other images.

  Returns:
    Full batches, dicts of `image`, uint8 [batch_size, resolution, resolution,
    channels], and `label`, int32 [batch_size]. No image comes twice while the
    source has others.
  """
  seeds = _seeds(seed, _CALIBRATION)
  elements = _augmented(source, data, resolution, seeds)
  whole = loader.Batches(elements, batch_size, _stack, source, data)
  return list(whole[: math.ceil(images / batch_size)])


def eval_batches(
  source: sources.Source,
  data: sources.Data,
  *,
  batch_size: int,
  resolution: int,
) -> loader.Batches:
  """Returns every image once, in the source's order, as evaluation sees it.

  Args:
    source: images.
    data: how much of an image is seen.
    batch_size: images in a batch; the last batch is filled up with zeros.
    resolution: height and width, in pixels.

  Returns:
    Batches, dicts of `image`, uint8 [batch_size, resolution, resolution,
    channels], `label`, int32 [batch_size], and `mask`, bool [batch_size], which
    is False where a batch was filled up.

  Raises:
    UserError: there is no image, because none was held out.
  """
  if len(source) == 0:
    raise errors.UserError(
      'data.held_out', data.held_out, 'at least 1, to evaluate on those images'
    )
  transform = functools.partial(
    _evaluated, source=source, data=data, size=resolution
  )
  return loader.Batches(
    grain.MapDataset.range(len(source)).map(transform),
    batch_size,
    functools.partial(_padded, batch_size=batch_size),
    source,
    data,
    strict=True,
  )


def _augmented(
  source: sources.Source,
  data: sources.Data,
  resolution: int,
  seeds: tuple[int, int],
) -> grain.MapDataset:
  """Returns single images without end.

  Args:
    source: training images, at least one.
    data: how to augment.
    resolution: height and width, in pixels.
    seeds: a seed of the order and one of the augmentation.
  """
  order, noise = seeds
  transform = functools.partial(
    _transformed, source=source, data=data, size=resolution
  )
  indices = grain.MapDataset.range(len(source)).shuffle(seed=order)
  return indices.repeat(_EPOCHS).random_map(transform, seed=noise)


def _seeds(seed: int, use: int) -> tuple[int, int]:
  """Returns seeds of an order and of an augmentation for one use of a seed.

  They are mixed, because Grain adds the epoch to the seed of an order:
  otherwise the second epoch of seed 0 would have the order of seed 1's first
  epoch.
  """
  order, noise = np.random.SeedSequence((seed, use)).generate_state(2)
  return int(order), int(noise)


def _transformed(
  index: int,
  rng: np.random.Generator,
  *,
  source: sources.Source,
  data: sources.Data,
  size: int,
) -> loader.Batch:
  """Returns an augmented training image as an element of a batch.

  It is a plain function, so that it can be pickled.
  """
  make = functools.partial(_augment, rng, data=data, size=size)
  image, label, damaged = loader.first_whole(source, index, make)
  return _element(image, label, damaged)


def _augment(
  rng: np.random.Generator,
  image: decode.Image,
  *,
  data: sources.Data,
  size: int,
) -> np.ndarray:
  if data.augment == 'none':
    return transforms.centre(image, size, crop=data.eval_crop)
  if data.augment == 'affine':
    return transforms.affine(rng, image, size)
  out = transforms.random_resized_crop(
    rng, image, size, scale=(data.min_crop_area, 1.0)
  )
  if data.augment == 'randaugment':
    layers, magnitude = data.randaugment_layers, data.randaugment_magnitude
    return autoaugment.randaugment(rng, out, layers, magnitude)
  if data.augment != 'crop':
    return autoaugment.autoaugment(
      rng, out, autoaugment.AUTOAUGMENT[data.augment]
    )
  return out


def _evaluated(
  index: int, *, source: sources.Source, data: sources.Data, size: int
) -> loader.Batch:
  """Returns an image as evaluation sees it; all zeros if it is damaged."""
  try:
    image, label = source[index]
    out = transforms.centre(image, size, crop=data.eval_crop)
  except decode.Damaged:
    nothing = np.zeros((size, size, len(data.mean)), np.uint8)
    return _element(nothing, 0, index)
  return _element(out, label, loader.NONE)


def _element(image: np.ndarray, label: int, damaged: int) -> loader.Batch:
  return {
    'image': image,
    'label': np.asarray(label, np.int32),
    'damaged': np.asarray(damaged, np.int64),
  }


def _stack(elements: Sequence[loader.Batch]) -> loader.Batch:
  return {name: np.stack([e[name] for e in elements]) for name in elements[0]}


def _padded(
  elements: Sequence[loader.Batch], *, batch_size: int
) -> loader.Batch:
  """Stacks elements, fills them up with zeros, and adds the `mask`."""
  batch = _stack(elements)
  whole = batch['damaged'] == loader.NONE
  filling = batch_size - len(elements)
  padded = {
    name: np.pad(values, [(0, filling)] + [(0, 0)] * (values.ndim - 1))
    for name, values in batch.items()
    if name != 'damaged'
  }
  mask = np.pad(whole, (0, filling))
  return padded | {'mask': mask, 'damaged': batch['damaged']}
