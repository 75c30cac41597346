"""Images for training and evaluation: one pipeline for every source.

A source gives image i and its label whenever asked. Everything after it is a
function of (seed, position): batch `step` of a run is the same in any order
of asking and after a restart. Batches stay uint8; the step normalises them.
"""

import dataclasses
import functools
import math
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import grain
import numpy as np

from bignas_jax import augment as augment_lib
from bignas_jax import errors, sources

Batch = dict[str, np.ndarray]
# Without end: Grain's own endless repeat cannot be batched by one.
_EPOCHS = 2**31
_TRAINING, _CALIBRATION = 0, 1  # what a seed is used for


@dataclasses.dataclass(frozen=True, eq=False)
class Batches(Sequence[Batch]):
  """A finite sequence of batches, made when asked for.

  A MapDataset starts over past its end, and prefetches hundreds of elements
  if it is iterated over; this ends, and prefetches a few.
  """

  dataset: grain.MapDataset

  def __len__(self) -> int:
    return len(self.dataset)

  def __getitem__(self, index: Any) -> Any:
    found = range(len(self))[index]
    if isinstance(index, slice):
      return [self.dataset[i] for i in found]
    return self.dataset[found]

  def __iter__(self) -> Iterator[Batch]:
    return stream(self.dataset)


def train_batches(
  source: sources.Source,
  data: sources.Data,
  *,
  batch_size: int,
  resolution: int,
  seed: int,
  share: tuple[int, int] = (0, 1),
) -> grain.MapDataset:
  """Augmented batches without end; element `step` is batch `step` of a run.

  Every image comes once an epoch, in an order of that epoch's own. Epochs run
  into each other in the middle of a batch, so no image is dropped.

  Args:
    source: training images, at least one.
    data: says how to augment.
    batch_size: images a batch, over all devices.
    resolution: height and width, pixels.
    seed: of the run. Order and augmentation are functions of it and of the
      position in the run; the resolution changes neither.
    share: (i, n): rows of part i of n of every batch, prepared by process i.

  Returns:
    A dataset of {image: uint8 [batch_size / n, resolution, resolution,
    channels], label: int32 [batch_size / n]}. Iterate over it with `stream`.
  """
  seeds = _seeds(seed, _TRAINING)
  images = _augmented(source, data, resolution, seeds)
  index, processes = share
  assert batch_size % processes == 0, (batch_size, processes)
  rows = batch_size // processes
  return _Share(images, batch_size, index * rows, rows).batch(rows)


class _Share(grain.MapDataset):
  """The same rows of every batch, before elements are made into batches."""

  def __init__(
    self, images: grain.MapDataset, batch_size: int, first: int, rows: int
  ):
    super().__init__(images)
    self._batch_size, self._first, self._rows = batch_size, first, rows

  def __len__(self) -> int:
    return len(self._parent) // self._batch_size * self._rows

  def __getitem__(self, index: Any) -> Any:
    if isinstance(index, slice):
      return self.slice(index)
    step, row = divmod(index, self._rows)
    return self._parent[step * self._batch_size + self._first + row]


def calibration_batches(
  source: sources.Source,
  data: sources.Data,
  *,
  images: int,
  batch_size: int,
  resolution: int,
  seed: int,
) -> list[Batch]:
  """A fixed set of augmented training images to take statistics of.

  Args:
    source: training images, at least one.
    data: says how to augment.
    images: how many; rounded up to whole batches.
    batch_size: images a batch.
    resolution: height and width, pixels.
    seed: of the set; training by the same seed sees other images.

  Returns:
    Full batches as those of `train_batches`. No image comes twice while the
    source has others.
  """
  seeds = _seeds(seed, _CALIBRATION)
  dataset = _augmented(source, data, resolution, seeds).batch(batch_size)
  return list(stream(dataset[: math.ceil(images / batch_size)]))


def eval_batches(
  source: sources.Source,
  data: sources.Data,
  *,
  batch_size: int,
  resolution: int,
) -> Batches:
  """Every image once, in the source's order, as evaluation sees it.

  Args:
    source: images.
    data: says how much of an image to see.
    batch_size: images a batch; the last one is filled up with zeros.
    resolution: height and width, pixels.

  Returns:
    Batches {image: uint8 [batch_size, resolution, resolution, channels],
    label: int32 [batch_size], mask: bool [batch_size], False where filled}.

  Raises:
    UserError: there is no image, because none was held out.
  """
  if len(source) == 0:
    raise errors.UserError(
      'data.held_out', data.held_out, 'at least 1, to evaluate on those images'
    )
  transform = functools.partial(
    _evaluated, size=resolution, crop=data.eval_crop
  )
  pad = functools.partial(_padded, batch_size=batch_size)
  dataset = grain.MapDataset.source(source).map(transform)
  return Batches(dataset.batch(batch_size, batch_fn=pad))


def stream(
  dataset: grain.MapDataset,
  start_step: int = 0,
  prefetch: int = 4,
  threads: int = 2,
) -> Generator[Any, None, None]:
  """Yields dataset[start_step], the next one, ..., prepared ahead in threads.

  The order is the dataset's own, whichever thread is faster. Threads start
  with the first element and end when the iterator is closed or dropped.

  Args:
    dataset: finite or not.
    start_step: first element.
    prefetch: elements kept ready; 0: none, and no threads.
    threads: that prepare them.
  """
  options = grain.ReadOptions(
    num_threads=threads if prefetch else 0, prefetch_buffer_size=prefetch
  )
  rest = dataset.slice(slice(start_step, None))
  iterator = iter(rest.to_iter_dataset(options))
  try:
    yield from iterator
  finally:
    iterator.close()


def _augmented(
  source: sources.Source,
  data: sources.Data,
  resolution: int,
  seeds: tuple[int, int],
) -> grain.MapDataset:
  """Single images without end; seeds of the order and of the augmentation."""
  order, noise = seeds
  transform = functools.partial(
    _transformed, how=data.augment, size=resolution, crop=data.eval_crop
  )
  images = grain.MapDataset.source(source).shuffle(seed=order).repeat(_EPOCHS)
  return images.random_map(transform, seed=noise)


def _seeds(seed: int, use: int) -> tuple[int, int]:
  """Seeds of an order and of an augmentation for one use of a run's seed.

  Mixed, because Grain adds the epoch to the seed of an order: seed 0 would
  have in its second epoch the order of seed 1's first.
  """
  order, noise = np.random.SeedSequence((seed, use)).generate_state(2)
  return int(order), int(noise)


def _transformed(
  element: tuple[np.ndarray, int],
  rng: np.random.Generator,
  *,
  how: str,
  size: int,
  crop: float,
) -> Batch:
  """A training image; a plain function, so that it can be pickled."""
  image, label = element
  if how == 'affine':
    image = augment_lib.affine(rng, image, size)
  elif how == 'crop':
    image = augment_lib.random_resized_crop(rng, image, size)
  else:
    assert how == 'none', how
    image = augment_lib.centre(image, size, crop=crop)
  return {'image': image, 'label': np.asarray(label, np.int32)}


def _evaluated(
  element: tuple[np.ndarray, int], *, size: int, crop: float
) -> Batch:
  image, label = element
  image = augment_lib.centre(image, size, crop=crop)
  return {'image': image, 'label': np.asarray(label, np.int32)}


def _padded(elements: Sequence[Batch], *, batch_size: int) -> Batch:
  """Stacks elements, fills them up with zeros, and says which are real."""
  n = len(elements)
  image = np.zeros((batch_size, *elements[0]['image'].shape), np.uint8)
  label = np.zeros(batch_size, np.int32)
  image[:n] = [e['image'] for e in elements]
  label[:n] = [e['label'] for e in elements]
  return {'image': image, 'label': label, 'mask': np.arange(batch_size) < n}
