"""What a set of images is like: classes, counts, sizes, colours, damage."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from bignas_jax.data import decode, sources
from bignas_jax.data.sources import Data, Source
from bignas_jax.system import console, storage
from bignas_jax.values import errors

FIELD = '--images'
_LOOKED_AT = 400  # images of each split that are decoded
_GRAY = 3.0  # largest mean difference of two colours in a gray image
_MOST_DAMAGED = 0.1  # as training allows (`Data.max_replaced`)
_FEWEST = 30  # training images, held-out ones among them
_DIGITS = 3
TFDS = 'tfds:'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Survey:
  """What was found out about a set of images.

  Attributes:
    name: name of the source (`Data.name`).
    directory: absolute path of a folder; '' where there is none.
    classes: number of classes.
    train: number of images to train on, held-out ones among them.
    test: number of images to test on.
    cut: whether the test images are cut from the others, because the folder has
      no `test` or `val`.
    fewest: number of training images in the smallest class; 0: unknown.
    most: number of training images in the largest class; 0: unknown.
    side: median of the shorter sides, pixels.
    smallest_side: smallest of the shorter sides, pixels.
    largest_side: largest of the shorter sides, pixels.
    channels: 1 if all images are gray, else 3.
    mean: mean of each channel, for pixels in 0..1.
    std: standard deviation of each channel, for pixels in 0..1.
    looked_at: number of images that were decoded.
    damaged: number of these that cannot be decoded.
  """

  name: str
  directory: str
  classes: int
  train: int
  test: int
  cut: bool
  fewest: int
  most: int
  side: int
  smallest_side: int
  largest_side: int
  channels: int
  mean: tuple[float, ...]
  std: tuple[float, ...]
  looked_at: int
  damaged: int


def look(images: str) -> Survey:
  """Looks at a folder of images, or at a set of TensorFlow Datasets.

  Args:
    images: a folder with `train/CLASS/*` and `test/CLASS/*`, or with `CLASS/*`;
      or `tfds:NAME`.

  Raises:
    UserError: no network can be trained on these images; says what to change.
  """
  with _of_images():
    data, cut = _data(images)
    splits = sources.load(data, channels=3)
  count = len(splits.train) + len(splits.held_out)
  if count < _FEWEST:
    allowed = f'at least {_FEWEST} images to train on; there are {count}'
    raise errors.UserError(FIELD, images, allowed)
  numbers = _of_each_class(splits.train)
  pixels = _pixels(images, splits.train, splits.test)
  return Survey(
    name=data.name,
    directory=data.directory,
    classes=len(splits.train.classes),
    train=count,
    test=len(splits.test),
    cut=cut,
    fewest=min(numbers, default=0),
    most=max(numbers, default=0),
    **pixels,
  )


@contextlib.contextmanager
def _of_images() -> Iterator[None]:
  """Makes errors name the option instead of the config's field."""
  try:
    yield
  except errors.UserError as error:
    _, _, rest = str(error).partition(': ')
    raise errors.UserError.quoted(f'{FIELD}: {rest}') from None


def test_share(count: int) -> int:
  """Returns how many of a folder's images are tested on, if it has no test."""
  return round(count * (0.2 if count < 1000 else 0.1))


def opened(images: str) -> Data:
  """Returns how images are opened before anything is known of them."""
  return Data(
    name=images if images.startswith(TFDS) else 'image_folder',
    held_out=0,
    augment='none',
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
  )


def _data(images: str) -> tuple[Data, bool]:
  """Returns how the images are opened, and whether the test images are cut."""
  data = opened(images)
  if images.startswith(TFDS):
    return data, False
  data = sources.placed(data, images)
  root = storage.path(data.directory, FIELD)
  if not images or not root.is_dir():
    allowed = (
      'a folder that has a folder of images for each class, or tfds:NAME'
    )
    raise errors.UserError(FIELD, images, allowed)
  tested = [name for name in ('test', 'val') if (root / name).is_dir()]
  _say_others(root, tested)
  if (root / 'train').is_dir() and tested:
    return data, False
  one = dataclasses.replace(data, test_images=1)
  count = len(sources.load(one, channels=3).train) + 1
  return dataclasses.replace(data, test_images=test_share(count)), True


def _say_others(root: Any, tested: list[str]) -> None:
  """Names the folders beside `train` that nothing is read from."""
  if not (root / 'train').is_dir():
    return
  read = 'train', *tested[:1]
  others = sorted(
    path.name
    for path in root.iterdir()
    if path.name not in read and path.is_dir() and path.name[0] != '.'
  )
  if others:
    console.say(
      f'warning: nothing is read from {", ".join(others)} beside train: images '
      'to test on are read from test, or else from val'
    )


def _of_each_class(source: Source) -> list[int]:
  """Returns the number of images of each class, if no file must be opened."""
  labels = getattr(source, 'labels', None)
  if labels is None:
    return []
  return np.bincount(labels, minlength=len(source.classes)).tolist()


def _pixels(images: str, *splits: Source) -> dict[str, Any]:
  """Returns what the pixels of some images of each split are like.

  Raises:
    UserError: too many of them are damaged.
  """
  sides, colours, gray, damaged = [], [], [], []
  for split in splits:
    for index in _some(len(split)):
      try:
        pixels = decode.decode(split[index][0])
      except decode.Damaged as error:
        damaged.append(f'{split.name(index)} ({error})')
        continue
      sides.append(min(pixels.shape[:2]))
      flat = pixels.reshape(-1, 3).astype(np.float32) / 255
      colours.append([flat.mean(0), (flat**2).mean(0)])
      gray.append(_is_gray(flat))
  looked_at = len(sides) + len(damaged)
  if len(damaged) > _MOST_DAMAGED * looked_at:
    allowed = f'a set in which at most {_MOST_DAMAGED:.0%} of the images are '
    allowed += f'damaged; of {looked_at} looked at {len(damaged)} are, such as '
    raise errors.UserError(FIELD, images, allowed + damaged[0])
  mean, square = np.mean(colours, axis=0)
  std = np.sqrt(np.maximum(square - mean**2, 1e-4))
  channels = 1 if all(gray) else 3
  return {
    'side': int(np.median(sides)),
    'smallest_side': min(sides),
    'largest_side': max(sides),
    'channels': channels,
    'mean': _rounded(mean, channels),
    'std': _rounded(std, channels),
    'looked_at': looked_at,
    'damaged': len(damaged),
  }


def _some(count: int) -> list[int]:
  """Returns indices that are spread evenly over a split."""
  number = min(count, _LOOKED_AT)
  return [round(i * (count - 1) / max(number - 1, 1)) for i in range(number)]


def _is_gray(flat: np.ndarray) -> bool:
  """Returns whether the colours of an image hardly differ."""
  spread = flat.max(1) - flat.min(1)
  return bool(255 * spread.mean() <= _GRAY)


def _rounded(values: np.ndarray, channels: int) -> tuple[float, ...]:
  chosen = values if channels == 3 else values[1:2]
  return tuple(round(float(value), _DIGITS) for value in chosen)


def sentences(survey: Survey) -> list[str]:
  """Returns in sentences what was found, for a person."""
  place = ascii(survey.directory or survey.name)
  text = f'{place} has {survey.train + survey.test:,} images of '
  text += f'{survey.classes} classes.'
  lines = [text]
  if survey.cut:
    lines.append(
      f'It has no test folder: {survey.test} images, always the same, are set '
      'aside to test on.'
    )
  if survey.most:
    lines.append(
      f'The smallest class has {survey.fewest} images to train on, the largest '
      f'{survey.most}.'
    )
  kind = 'gray' if survey.channels == 1 else 'in colour'
  smallest, largest = survey.smallest_side, survey.largest_side
  sides = f'{smallest} to {largest} pixels, half of them at most {survey.side}'
  if smallest == largest:
    sides = f'{survey.side} pixels'
  lines.append(f'They are {kind}; their shorter sides have {sides}.')
  if survey.damaged:
    lines.append(
      f'Damaged images are left out: {survey.damaged} of the '
      f'{survey.looked_at} that were decoded.'
    )
  return lines
