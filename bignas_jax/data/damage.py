"""Images that cannot be read or decoded: replaced, counted, named once.

Training takes another image in their place, an evaluation leaves them out.

Which image stands in for a damaged one is a function of the index alone, so
that a resumed run, any process and any number of workers see the same. Workers
report damage with the element it belongs to; the process that trains says it.
"""

from collections.abc import Callable, Iterable

import numpy as np

from bignas_jax.data import decode
from bignas_jax.data.sources import Source
from bignas_jax.system import console
from bignas_jax.values import errors

NONE = -1
# In a row: then it is not an image that is damaged but the data.
_MOST = 100
_reported: set[str] = set()


def first_whole(
  source: Source, index: int, make: Callable[[decode.Image], np.ndarray]
) -> tuple[np.ndarray, int, int]:
  """Makes something of an image, or of the next one that is not damaged.

  Args:
    source: at least one image.
    index: of the image.
    make: may raise `decode.Damaged`, as the source may.

  Returns:
    What was made, the label of the image it was made of, and `index` if that
    was another image, else NONE.

  Raises:
    UserError: the next hundred images are damaged as well.
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
  """Names damaged images on stderr, each once in the life of a process.

  Args:
    source: of the images.
    indices: of those that are damaged; NONE is none.
    consequence: what became of them.

  Returns:
    Which ones they are, named before or not.
  """
  found = set(map(int, indices)) - {NONE}
  for index in sorted(found):
    text = f'{source.name(index)}: {consequence}'
    if text not in _reported:
      _reported.add(text)
      reason = _reason(source, index)
      console.say(f'damaged image {len(_reported)}: {text} ({reason})')
  return found


def check(
  source: Source, found: set[int], field: str, limit: float, use: str
) -> None:
  """Raises UserError if too many of a source's images are damaged.

  Args:
    source: of the images.
    found: which of them are damaged, so far.
    field: of the config, that says how many may be.
    limit: its value, a fraction of the source's images.
    use: what the images are for.
  """
  if len(found) > limit * len(source):
    raise errors.UserError(
      field,
      limit,
      f'at least {len(found) / len(source):.3g}, where {len(found)} of '
      f'{len(source)} images to {use} on are damaged',
    )


def _reason(source: Source, index: int) -> str:
  """Why an image is damaged: it is read once more."""
  try:
    decode.decode(source[index][0])
  except decode.Damaged as error:
    return str(error)
  return 'it could not be read the first time'
