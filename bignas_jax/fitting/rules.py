"""The rules that choose a config: tables of plain values, and their reasons.

Each rule is a table, read from its first row to the first one that applies. A
rule returns what it chose and a sentence that says why.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from bignas_jax.costs import counting
from bignas_jax.data.sources import Augment
from bignas_jax.fitting import sizes
from bignas_jax.fitting.survey import Survey
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.space import Space

# Multiply-adds a second that training is first taken to compute: of a core,
# and of an accelerator. Steps are measured before anything depends on it.
_CORE_RATE, _ACCELERATOR_RATE = 6e9, 1e12
# A step trains the biggest, the smallest and two random children, of about half
# the cost; a backward pass takes twice the forward pass, and some of it again.
_CHILDREN, _PASSES = 2.2, 3.5
# Share of the whole time that is taken to be left for training at first.
_TRAINING = 0.5
_SEVERAL_FROM = 10  # minutes
_SECONDS = 60


class Size(NamedTuple):
  """A row of `SIZES`: a space at a size.

  Attributes:
    space: name of the space (`sizes.SPACES`).
    side: largest resolution, pixels.
    images_side: least side of the images, pixels.
    images: least number of training images.
    minutes: least time; larger programs take longer to compile.
  """

  space: str
  side: int
  images_side: int
  images: int
  minutes: float


# From the largest to the smallest; the last row takes all images.
SIZES = (
  Size('bignas', 224, images_side=200, images=100_000, minutes=1440),
  Size('large', 160, images_side=144, images=5000, minutes=60),
  Size('large', 128, images_side=112, images=1000, minutes=30),
  Size('medium', 96, images_side=88, images=500, minutes=15),
  Size('medium', 64, images_side=44, images=0, minutes=5),
  Size('wide', 32, images_side=26, images=5000, minutes=15),
  Size('small', 32, images_side=26, images=0, minutes=2),
  Size('small', 24, images_side=0, images=0, minutes=0),
)

# Fewer images than -> epochs that a space must be able to train.
EPOCHS = ((1000, 30), (10_000, 15), (100_000, 6), (None, 4))
# Fewer images than -> epochs that a run has at most.
MOST_EPOCHS = ((1000, 300), (10_000, 200), (None, 100))
# Fewer images than -> images of a step.
BATCHES = ((500, 32), (5000, 64), (None, 128))
# Fewer images than -> share of them that is held out to choose children by.
HELD_OUT = ((1000, 0.2), (None, 0.1))
# Fewer minutes than -> most images held out, since each child is evaluated.
MOST_HELD_OUT = ((10, 500), (60, 2000), (None, 5000))
# Smaller sides than -> smallest area of a random box over the image's.
BOXES = ((40, 0.4), (100, 0.25), (None, 0.15))
# Digits and letters are small and gray, and must not be mirrored.
_GRAY_SIDE = 40
# More varied images help only where they come often.
_RANDAUGMENT_MINUTES = 180
# Epochs from which on a network is kept from learning single images.
_REGULARISED = 30


class Choice(NamedTuple):
  """What was chosen before anything is measured, with a sentence for each.

  Attributes:
    size: row of `SIZES`.
    space: the space.
    batch_size: images of a step.
    held_out: number of images to choose children by.
    augment: augmentation.
    min_crop_area: smallest area of a random box over the image's.
    why: the reasons.
  """

  size: Size
  space: Space
  batch_size: int
  held_out: int
  augment: Augment
  min_crop_area: float
  why: tuple[str, ...]


def below(table: Sequence[tuple[float | None, Any]], value: float) -> Any:
  """Returns the entry of the first row whose bound is above a value."""
  return next(one for bound, one in table if bound is None or value < bound)


def choose(
  survey: Survey,
  minutes: float,
  *,
  cores: int,
  devices: int = 1,
  accelerated: bool = False,
  smaller_than: Size | None = None,
) -> Choice:
  """Chooses all that does not depend on how fast a step is.

  Args:
    survey: what the images are like.
    minutes: time for everything.
    cores: number of CPUs.
    devices: number of devices that share a batch.
    accelerated: whether the devices are GPUs or TPUs.
    smaller_than: a row that was tried and is too slow; None: none was.
  """
  rate = devices * _ACCELERATOR_RATE if accelerated else cores * _CORE_RATE
  held_out = min(
    round(survey.train * below(HELD_OUT, survey.train)),
    below(MOST_HELD_OUT, minutes),
  )
  size, space, why = _size(survey, minutes, rate, smaller_than)
  images = survey.train - held_out
  batch_size = below(BATCHES, images)
  if accelerated and images >= BATCHES[-2][0]:
    batch_size *= 4
  batch_size = -(-batch_size // devices) * devices
  augment, area, of_augment = _augment(survey, minutes)
  return Choice(
    size,
    space,
    batch_size,
    held_out,
    augment,
    area,
    (
      *why,
      f'A step has {batch_size} images, as is usual for {images:,} images to '
      'train on.',
      f'Of the training images, {held_out} are held out: they train nothing, '
      'and children are chosen by them.',
      of_augment,
    ),
  )


def _size(
  survey: Survey, minutes: float, rate: float, smaller_than: Size | None
) -> tuple[Size, Space, list[str]]:
  """Returns the largest space that the images and the time allow."""
  first = 0 if smaller_than is None else SIZES.index(smaller_than) + 1
  rows = [
    row
    for row in SIZES[first:] or SIZES[-1:]
    if survey.side >= row.images_side and survey.train >= row.images
  ] or [SIZES[-1]]
  wanted = below(EPOCHS, survey.train)
  seconds = _SECONDS * minutes * _TRAINING
  possible = []
  for row in rows:
    space = _space(row, survey, minutes)
    epochs = seconds * rate / _macs(space) / survey.train
    if minutes >= row.minutes and epochs >= wanted:
      possible.append((row, space))
  row, space = possible[0] if possible else (rows[-1], space)
  count = f'{arch_lib.count(space):,}'
  why = [
    f'The space is {space.name}: {count} children of up to {row.side} pixels, '
    f'for images of {survey.side} pixels.'
  ]
  if row is not rows[0]:
    larger = rows[0]
    why.append(
      f'A larger space, such as {larger.space}_{larger.side}, needs more time: '
      f'for its programs, and to see all images {wanted} times.'
    )
  sizes_there = ', '.join(map(str, space.resolution))
  if len(space.resolution) > 1:
    why.append(f'Children see images of {sizes_there} pixels.')
  else:
    why.append(
      f'All children see images of {sizes_there} pixels: from {_SEVERAL_FROM} '
      'minutes on there is time for several sizes.'
    )
  return row, space, why


def _space(row: Size, survey: Survey, minutes: float) -> Space:
  several = minutes >= _SEVERAL_FROM
  return sizes.at(row.space, row.side, several, survey.channels, survey.classes)


def _macs(space: Space) -> float:
  """Returns the multiply-adds of a step for one image, roughly."""
  biggest = counting.cost(space, arch_lib.biggest(space)).macs
  return biggest * _CHILDREN * _PASSES


def _augment(survey: Survey, minutes: float) -> tuple[Augment, float, str]:
  area = below(BOXES, survey.side)
  if survey.channels == 1 and survey.side <= _GRAY_SIDE:
    why = 'Training images are turned, scaled and moved a little, but not '
    why += 'mirrored: small gray images are often digits or letters.'
    return 'affine', area, why
  if minutes >= _RANDAUGMENT_MINUTES and survey.channels == 3:
    why = 'Training images are cut at random, mirrored, and changed by two '
    why += 'random operations, since there is time to learn from such variety.'
    return 'randaugment', area, why
  why = (
    f'Training images are boxes of at least {area:.0%} of an image, mirrored '
  )
  why += 'at random.'
  return 'crop', area, why


class Length(NamedTuple):
  """How long a run trains.

  Attributes:
    steps: number of updates.
    epochs: how often each image is seen.
    late_s: seconds that the steps take beyond the time for them.
    why: the reason.
  """

  steps: int
  epochs: float
  late_s: float
  why: str


def length(
  images: int, batch_size: int, seconds: float, step_s: float, least: int
) -> Length:
  """Returns how many steps a time allows.

  Args:
    images: number of images to train on.
    batch_size: images of a step.
    seconds: time for training.
    step_s: measured time of a step, seconds.
    least: least number of steps, even if they take longer.
  """
  possible = max(0, int(seconds / step_s))
  most = int(below(MOST_EPOCHS, images) * images / batch_size)
  steps = max(least, min(possible, most))
  epochs = steps * batch_size / images
  late_s = steps * step_s - seconds if steps > possible else 0.0
  if steps == most:
    why = f'{steps} steps, in which each image is seen {epochs:.3g} times: '
    why += 'more would not help with so few images.'
  else:
    why = f'{steps} steps: each takes {step_s:.2g} s here, and '
    why += f'{max(0, seconds):.0f} s are left for them. Each image is seen '
    why += f'{epochs:.3g} times.'
  return Length(steps, epochs, late_s, why)


def too_short(length: Length, minutes: float) -> str:
  """Returns a warning of steps that take longer than the time for them."""
  return (
    f'warning: --minutes={minutes:g} is too short here: {length.steps} steps '
    'are trained all the same, and the end is about '
    f'{math.ceil(length.late_s / _SECONDS)} min later'
  )


def regularised(epochs: float) -> bool:
  """Returns whether a run sees its images so often that it may overfit."""
  return epochs >= _REGULARISED
