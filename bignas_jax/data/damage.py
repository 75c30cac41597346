"""Handling of damaged images, which cannot be read or decoded.

Training uses another image in place of a damaged one; evaluation leaves it out.
Each damaged image is named once.

Which image replaces a damaged one depends on its index alone, so that a resumed
run, any process and any number of workers use the same replacement. Workers
report damage along with the affected element; the process that trains prints
it.
"""

from collections.abc import Callable, Iterable

import numpy as np

from bignas_jax.data import decode
from bignas_jax.data.sources import Source
from bignas_jax.system import console
from bignas_jax.values import errors

NONE = -1
# So many damaged images in a row show that the data as a whole are unusable.
_MOST = 100
_reported: set[str] = set()


def first_whole(
  source: Source, index: int, make: Callable[[decode.Image], np.ndarray]
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


def report(
  source: Source, indices: Iterable[int], consequence: str
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


def check(
  source: Source, damaged: set[int], field: str, limit: float, use: str
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


def _reason(source: Source, index: int) -> str:
  """Returns why an image is damaged, after reading it once more."""
  try:
    decode.decode(source[index][0])
  except decode.Damaged as error:
    return str(error)
  return 'it could not be read the first time'
