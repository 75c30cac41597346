"""Parallel members: linear computations whose sum is one convolution.

In training, the convolution of a layer may be the sum of several members, each
with batch norms of its own (ACNet, DBB, RepVGG, RepNAS). A child keeps a set of
them for each layer, written as a bit mask. What is deployed is one convolution.
"""

import itertools
from typing import NamedTuple


class Step(NamedTuple):
  """A linear operation of a member, which batch norm follows.

  Attributes:
    name: name of its parameters; those of its batch norm end in `_bn`.
    tall: whether its window has as many rows as the layer's kernel; else one.
    wide: whether its window has as many columns as the layer's kernel; else
      one.
    learnt: whether it is a convolution; else it is the mean over its window,
      which of one pixel is the pixel itself.
    output: which width its output has: the layer's `in` or its `out` channels.
  """

  name: str
  tall: bool = False
  wide: bool = False
  learnt: bool = True
  output: str = 'out'

  @property
  def shared(self) -> bool:
    """Returns whether the centre of a layer's kernel can be its kernel.

    A 1x1 convolution before another one has another shape.
    """
    return self.learnt and self.output == 'out'

  def windows(self, size: int) -> tuple[int, int]:
    """Returns the rows and columns of its window, for a kernel's size."""
    return size if self.tall else 1, size if self.wide else 1


# The members in the order of their bits, the first of which is 1. The first of
# two steps is a 1x1 convolution.
MEMBERS: dict[str, tuple[Step, ...]] = {
  'square': (Step('square', tall=True, wide=True),),
  'point': (Step('point'),),
  'row': (Step('row', wide=True),),
  'column': (Step('column', tall=True),),
  'point_square': (
    Step('point_square_in', output='in'),
    Step('point_square', tall=True, wide=True),
  ),
  'point_average': (
    Step('point_average_in'),
    Step('point_average', tall=True, wide=True, learnt=False),
  ),
  'identity': (Step('identity', learnt=False),),
}
ALL = (1 << len(MEMBERS)) - 1  # the mask of all members


def mask(*names: str) -> int:
  """Returns the mask of members."""
  return sum(1 << [*MEMBERS].index(name) for name in {*names})


_IDENTITY = mask('identity')


def members(mask: int) -> list[str]:
  """Returns the names of a mask's members."""
  return [name for i, name in enumerate(MEMBERS) if mask >> i & 1]


def subsets(*names: str) -> tuple[int, ...]:
  """Returns the masks of all sets of these members but the empty one."""
  every = itertools.product(*((0, mask(name)) for name in names))
  return tuple(sorted({sum(bits) for bits in every} - {0}))


def allowed(masks: tuple[int, ...], *, same_shape: bool) -> tuple[int, ...]:
  """Returns the masks that a layer may have, ascending.

  Args:
    masks: masks of the stage.
    same_shape: whether the output has the shape of the input; else no layer has
      the identity.
  """
  if same_shape:
    return masks
  return tuple(sorted({one & ~_IDENTITY for one in masks} - {0}))


def steps(mask: int) -> list[Step]:
  """Returns the steps of all members of a mask."""
  return [step for name in members(mask) for step in MEMBERS[name]]
