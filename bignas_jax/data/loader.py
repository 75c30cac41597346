"""Batches of single images, prepared in advance by threads or processes.

The images in a batch, and their order, do not depend on the number or the kind
of workers.

An image that cannot be read or decoded is damaged. Training uses another image
in its place; evaluation leaves it out. Each damaged image is named once. Which
image replaces a damaged one depends on its index alone, so that a resumed run,
any process and any number of workers use the same replacement. Workers report
damage along with the affected element; the process that trains prints it.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from bignas_jax.data import decode, sources
from bignas_jax.system import console, process
from bignas_jax.values import errors

Batch = dict[str, np.ndarray]

_TASK = 8  # images that a thread prepares before it hands them over
NONE = -1
# So many damaged images in a row show that the data as a whole are unusable.
_MOST = 100
_reported: set[str] = set()


@dataclasses.dataclass(frozen=True, eq=False)
class Batches(Sequence[Batch]):
  """A sequence of batches, made when asked for, by any number of workers.

  Grain's MapDataset starts over past its end, and prefetches hundreds of
  elements if it is iterated over; this sequence ends, and prefetches a few.

  Attributes:
    elements: single images, `{image, label, damaged}`.
    rows: images in a batch.
    stack: makes a batch of at most `rows` elements.
    source: the source of the images.
    data: how many workers there are, and how many images may be damaged.
    strict: whether damaged images are left out, as in evaluation, or replaced,
      as in training; `data` has a limit for each.
  """

  elements: grain.MapDataset
  rows: int
  stack: Callable[[Sequence[Batch]], Batch]
  source: sources.Source
  data: sources.Data
  strict: bool = False

  def __len__(self) -> int:
    return math.ceil(len(self.elements) / self.rows)

  def __getitem__(self, index: Any) -> Any:
    position = range(len(self))[index]
    if isinstance(index, slice):
      assert position.step == 1, index
      span = slice(position.start * self.rows, position.stop * self.rows)
      return dataclasses.replace(self, elements=self.elements.slice(span))
    first = position * self.rows
    last = min(first + self.rows, len(self.elements))
    made: list[Any] = [self.elements[i] for i in range(first, last)]
    return self._checked(self.stack(made), set())

  def __iter__(self) -> Iterator[Batch]:
    return self.prepared()

  def prepared(
    self, start: int = 0, prefetch: int | None = None
  ) -> Generator[Batch, None, None]:
    """Yields all batches from one on, prepared in advance.

    Their order is the same, whichever worker is faster. Workers start with the
    first batch and end when the iterator is closed or dropped.

    Args:
      start: index of the first batch.
      prefetch: batches kept ready; 0: none, and no workers; None: as many as
        `data` says.
    """
    if prefetch is None:
      prefetch = self.data.prefetch
    workers = self.data.workers or process.cores()
    if prefetch and self.data.worker == 'process':
      # Each process makes whole batches: few and large things to hand over.
      flags.FLAGS.mark_as_parsed()  # Grain asks for its own, which nobody sets
      whole = self.elements.batch(self.rows, batch_fn=self.stack)
      options = grain.MultiprocessingOptions(
        workers, per_worker_buffer_size=math.ceil(prefetch / workers)
      )
      none = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
      iterator = iter(
        whole.slice(slice(start, None))
        .to_iter_dataset(none)
        .mp_prefetch(options)
      )
      batches = map(_copied, iterator)
    else:
      # Threads share one batch: the fewest images in memory. They take a few
      # at a time, since to hand over a task costs as much as a small image.
      few = math.gcd(self.rows, _TASK)
      ahead = grain.ReadOptions(
        num_threads=workers if prefetch else 0,
        prefetch_buffer_size=max(prefetch * self.rows // few, workers)
        * bool(prefetch),
      )
      rest = self.elements.slice(slice(start * self.rows, None))
      iterator = iter(rest.batch(few, batch_fn=list).to_iter_dataset(ahead))
      batches = self._stacked(itertools.chain.from_iterable(iterator))
    damaged: set[int] = set()
    try:
      for batch in batches:
        yield self._checked(batch, damaged)
    finally:
      iterator.close()

  def _stacked(self, elements: Iterator[Batch]) -> Iterator[Batch]:
    while made := list(itertools.islice(elements, self.rows)):
      yield self.stack(made)

  def _checked(self, batch: Batch, damaged: set[int]) -> Batch:
    """Returns a batch without its key `damaged`, after reporting its damage.

    Batches come here in their order, so that a run ends at the same batch for
    any number of workers.

    Args:
      batch: a batch as a worker made it.
      damaged: indices of the images that were damaged so far; grows.

    Raises:
      UserError: too many images are damaged.
    """
    batch = dict(batch)
    indices = batch.pop('damaged').tolist()
    if self.strict:
      field, use, consequence = 'max_damaged', 'evaluate', 'left out'
    else:
      field, use = 'max_replaced', 'train'
      consequence = 'the next one in its place'
    damaged |= report_damage(self.source, indices, consequence)
    limit = getattr(self.data, field)
    check_damage(self.source, damaged, f'data.{field}', limit, use)
    return batch


def _copied(batch: Batch) -> Batch:
  """Returns a copy of a batch in memory of this process.

  Grain's batch is in memory that is shared with a worker. JAX on a CPU would
  use that memory without a copy, and batches that are still in use when the
  process ends, such as the images for evaluation, would be reported as leaked.
  """
  return {name: np.array(values) for name, values in batch.items()}


def stream(
  batches: Batches, draws: Iterable[int]
) -> Generator[tuple[int, Batch], None, None]:
  """Yields (draw, batches[draw]) for each draw, prepared in advance.

  Workers start with the first batch, and again after a draw that does not
  follow the one before it. They end when the iterator is closed or dropped.
  """
  ahead, following = None, None
  try:
    for draw in draws:
      if ahead is None or draw != following:
        if ahead is not None:
          ahead.close()
        ahead = batches.prepared(draw)
      yield draw, next(ahead)
      following = draw + 1
  finally:
    if ahead is not None:
      ahead.close()


def first_whole(
  source: sources.Source, index: int, make: Callable[[decode.Image], np.ndarray]
) -> tuple[np.ndarray, int, int]:
  """Applies a function to an image, or to the next one that is not damaged.

  Args:
    source: has at least one image.
    index: index of the image.
    make: the function; it may raise `decode.Damaged`, as the source may.

  Returns:
    The function's result, the label of the image that was used, and `index` if
    that image is a replacement, else NONE.

  Raises:
    UserError: a hundred images in a row, or all of the source, are damaged.
  """
  tries = min(_MOST, len(source))
  for step in range(tries):
    try:
      image, label = source[(index + step) % len(source)]
      return make(image), label, index if step else NONE
    except decode.Damaged:
      continue
  raise errors.UserError(
    'data.directory',
    source.name(index),
    f'images that OpenCV can decode, unlike this one ({_reason(source, index)})'
    f' and those after it, {tries} in a row',
  )


def report_damage(
  source: sources.Source, indices: Iterable[int], consequence: str
) -> set[int]:
  """Prints damaged images on stderr, each one once in the life of a process.

  Args:
    source: the source of the images.
    indices: indices of damaged images; entries that are NONE are ignored.
    consequence: what is done about a damaged image, for the message.

  Returns:
    The indices of the damaged images, printed before or not.
  """
  damaged = set(map(int, indices)) - {NONE}
  for index in sorted(damaged):
    text = f'{source.name(index)}: {consequence}'
    if text not in _reported:
      _reported.add(text)
      reason = _reason(source, index)
      console.say(f'damaged image {len(_reported)}: {text} ({reason})')
  return damaged


def check_damage(
  source: sources.Source, damaged: set[int], field: str, limit: float, use: str
) -> None:
  """Raises UserError if too many of a source's images are damaged.

  Args:
    source: the source of the images.
    damaged: indices of the images that are known to be damaged so far.
    field: the config's field that limits how many may be damaged.
    limit: value of that field, a fraction of the source's images.
    use: what the images are used for, as a verb for the message.
  """
  if len(damaged) > limit * len(source):
    raise errors.UserError(
      field,
      limit,
      f'at least {len(damaged) / len(source):.3g}, where {len(damaged)} of '
      f'{len(source)} images to {use} on are damaged',
    )


def _reason(source: sources.Source, index: int) -> str:
  """Returns why an image is damaged, after reading it once more."""
  try:
    decode.decode(source[index][0])
  except decode.Damaged as error:
    return str(error)
  return 'it could not be read the first time'
