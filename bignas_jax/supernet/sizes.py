"""The sizes of a block that are compiled: few, and little computed in vain."""

import collections
import functools
import itertools
import math
from collections.abc import Sequence

_WASTE = 1.05  # most hidden channels computed for one that is needed
_MOST = 4  # sizes, even if more is wasted: each is compiled


@functools.cache
def few(hidden: tuple[int, ...]) -> tuple[int, ...]:
  """Returns the fewest of these sizes that keep within `_WASTE`, ascending.

  There are at most `_MOST`, even if a space of many widths then wastes more.
  Of choices that compute equally few channels, it takes the one whose first
  size is the smallest, then whose second is, and so on.
  """
  uses = collections.Counter(hidden)
  sizes = sorted(uses)
  below = [0, *itertools.accumulate(uses[size] for size in sizes)]

  def computed(first: int, size: int, rest: Sequence[float]) -> float:
    """Returns computed channels, if `size` serves all from `first` on."""
    return sizes[size] * (below[size + 1] - below[first]) + rest[size + 1]

  # least[n][i]: fewest channels for sizes[i:], with n chosen, the largest too.
  least = [[math.inf] * len(sizes) + [0]]
  while least[-1][0] > _WASTE * sum(hidden) and len(least) <= _MOST:
    rest = least[-1]
    some = [
      min(computed(i, j, rest) for j in range(i, len(sizes)))
      for i in range(len(sizes))
    ]
    least.append([*some, math.inf])
  chosen, first = [], 0
  for best, rest in itertools.pairwise(reversed(least)):
    size = next(
      j
      for j in range(first, len(sizes))
      if computed(first, j, rest) == best[first]
    )
    chosen.append(sizes[size])
    first = size + 1
  return tuple(chosen)
