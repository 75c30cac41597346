"""Images that cannot be decoded: replaced in training, counted, named once.

Which image stands in for a damaged one is a function of the index alone, so
that a resumed run, any process and any number of workers see the same. Workers
report damage with the element it belongs to; the process that trains says it.
"""

from collections.abc import Callable, Iterable

import numpy as np

from bignas_jax import errors, images, metrics
from bignas_jax.sources import Source

NONE = -1
# In a row: then it is not an image that is damaged but the data.
_MOST = 100
_reported: set[str] = set()


def first_whole(
  source: Source, index: int, make: Callable[[images.Image], np.ndarray]
) -> tuple[np.ndarray, int, int]:
  """Makes something of an image, or of the next one that is not damaged.

  Args:
    source: at least one image.
    index: of the image.
    make: may raise `images.Damaged`, as the source may.

  Returns:
    What was made, the label of the image it was made of, and `index` if that
    was another image, else NONE.

  Raises:
    UserError: the next hundred images are damaged as well.
  """
  for step in range(min(_MOST, len(source))):
    try:
      image, label = source[(index + step) % len(source)]
      return make(image), label, index if step else NONE
    except images.Damaged:
      continue
  raise errors.UserError(
    'data.directory', source.name(index), 'images that OpenCV can decode'
  )


def report(source: Source, indices: Iterable[int], consequence: str) -> int:
  """Names damaged images on stderr, each once in the life of a process.

  Args:
    source: of the images.
    indices: of those that are damaged; NONE is none.
    consequence: what became of them.

  Returns:
    How many they are, named before or not.
  """
  found = sorted(set(map(int, indices)) - {NONE})
  for index in found:
    text = f'{source.name(index)}: {consequence}'
    if text not in _reported:
      _reported.add(text)
      metrics.say(f'damaged image {len(_reported)}: {text}')
  return len(found)
