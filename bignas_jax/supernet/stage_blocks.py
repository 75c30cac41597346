"""The blocks of a stage: their choices, and the few sizes to compile."""

import bisect
import collections
import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from bignas_jax.operations import ops
from bignas_jax.spaces import block_kinds, decisions
from bignas_jax.spaces.arch import Indices
from bignas_jax.spaces.space import Space, multiplied
from bignas_jax.spaces.stage import Choices, Stage, hidden_width, squeeze_width
from bignas_jax.supernet.batch_norm import Pooling

_WASTE = 1.05  # most hidden channels computed for one that is needed
_MOST = 4  # sizes, even if more is wasted: each is compiled


@dataclasses.dataclass(frozen=True)
class Block:
  """One block of a stage, at its largest.

  Attributes:
    stage: stage with the allowed kernel sizes, expand ratios and output widths.
    width_in: allowed input widths.
    first: whether it is first in its stage; only the first changes the width.
    changes_width: whether the first block of any child has another width than
      its input.
    padding: padding of the space's convolutions.
    bn_epsilon: epsilon of the space's batch norms.
    pooling: how batch statistics are pooled.
    most_hidden: number of a variant's hidden channels; None: all.
    gated: whether parallel members have gates, zeros added to their 0 or 1.
  """

  stage: Stage
  width_in: Choices
  first: bool
  changes_width: bool
  padding: ops.Padding
  bn_epsilon: float | None
  pooling: Pooling
  most_hidden: int | None = None
  gated: bool = False

  @property
  def has_shortcut_conv(self) -> bool:
    """Returns whether any child's block has a convolution in its shortcut."""
    if self.stage.shortcut == 'pooled':
      return self.changes_width
    changes = self.changes_width or self.stride > 1
    return self.stage.shortcut in block_kinds.PROJECTED_SHORTCUTS and changes

  @property
  def has_shortcut(self) -> bool:
    """Returns whether every child's block has a shortcut."""
    if self.stage.shortcut == 'identity':
      return not self.changes_width and self.stride == 1
    return self.stage.shortcut != 'none'

  @property
  def stride(self) -> int:
    """Returns the block's stride."""
    return self.stage.stride if self.first else 1

  @property
  def by_output(self) -> bool:
    """Returns whether hidden channels follow from the output's width."""
    return self.stage.block in block_kinds.BY_OUTPUT

  def operations(self) -> dict[str, 'Block']:
    """Returns the block of each operation with parameters of its own."""
    stage, first = self.stage, self.first
    return {
      block_kinds.operation_name(*choice): dataclasses.replace(
        self, stage=block_kinds.alone(stage, *choice)
      )
      for choice in block_kinds.operations(stage, first=first)
    }

  def operation(self, active: 'Active') -> Int[Array, '*blocks']:
    """Returns the number in `operations` of the active choices."""
    rows = block_kinds.operations(self.stage, first=self.first)
    numbers = [
      rows.index(pair) if pair in rows else 0
      for pair in itertools.product(
        self.stage.kernel_size, self.stage.expand_ratio
      )
    ]
    ratios = len(self.stage.expand_ratio)
    pair = active.kernel_size * ratios + active.expand_ratio
    return jnp.asarray(ops.pick(numbers, pair))

  def variants(self) -> list['Block']:
    """Returns blocks with fewer hidden channels, and last the whole block."""
    return [
      dataclasses.replace(self, most_hidden=most)
      for most in few_sizes(tuple(self.hidden()))
    ]

  def variant(self) -> list[int]:
    """Returns the smallest variant that holds each entry of `hidden`."""
    hidden = self.hidden()
    few = few_sizes(tuple(hidden))
    return [bisect.bisect_left(few, one) for one in hidden]

  def hidden(self) -> list[int]:
    """Returns hidden channels of each (width, expand ratio).

    The width is that of the output in residual blocks, else the input's.
    """
    widths = self.stage.width if self.by_output else self.width_in
    hidden = [
      hidden_width(self.stage, width, width, ratio)
      for width, ratio in itertools.product(widths, self.stage.expand_ratio)
    ]
    most = self.most_hidden or max(hidden)
    return [min(h, most) for h in hidden]

  def squeeze(self) -> list[int]:
    """Returns squeeze channels of each (input width, expand ratio)."""
    se = self.stage.se
    assert se is not None and not self.by_output
    pairs = itertools.product(self.width_in, self.stage.expand_ratio)
    return [
      squeeze_width(se, width, hidden)
      for (width, _), hidden in zip(pairs, self.hidden(), strict=True)
    ]

  def pair(self, active: 'Active') -> Int[Array, '*blocks']:
    """Returns the position in `hidden` of the active choices."""
    ratios = len(self.stage.expand_ratio)
    width = active.output if self.by_output else active.input
    return width * ratios + active.expand_ratio


class Active(NamedTuple):
  """Positions of the active choices, in `width_in` and the stage's tuples.

  All but the widths may have an entry for each of a stack of blocks.
  """

  input: Int[Array, '']
  output: Int[Array, '']
  kernel_size: Int[Array, '*blocks']
  expand_ratio: Int[Array, '*blocks']
  parallel: Int[Array, '*blocks'] | None = None
  squeeze_excite: Int[Array, '*blocks'] | None = None


def own_indices(space: Space, indices: Indices, number: int) -> Indices:
  """Returns a stage's entries, of all its blocks if each has its own."""
  own = jax.tree.map(lambda a: a[number], indices)
  if not space.per_block:
    return own
  places = decisions.of_stage(space, number)
  several = {f: getattr(indices, f)[places] for f in decisions.per_block(space)}
  return own._replace(**several)


def of_stage(space: Space, number: int, pooling: Pooling) -> dict[str, Block]:
  """Returns the `first` block of a stage, and what all others are: `rest`.

  In a stage that may have no block, all are `rest`.

  Args:
    space: space of the supernet.
    number: number of the stage, from 0.
    pooling: how batch statistics are pooled.
  """
  stage = space.stages[number]
  before = space.stages[number - 1].width if number else space.stem_width
  describe = functools.partial(
    Block,
    stage,
    padding=space.padding,
    bn_epsilon=space.bn_epsilon,
    pooling=pooling,
  )
  rest = describe(stage.width, first=False, changes_width=False)
  if stage.optional:
    return {'rest': rest}
  pairs = itertools.product(before, stage.width)
  if space.multipliers:
    pairs = [row[number : number + 2] for row in multiplied(space)]
  changes = any(width_in != width_out for width_in, width_out in pairs)
  described = {'first': describe(before, first=True, changes_width=changes)}
  if max(stage.depth) > 1:
    described['rest'] = rest
  return described


@functools.cache
def few_sizes(hidden: tuple[int, ...]) -> tuple[int, ...]:
  """Returns the fewest of these sizes that keep within `_WASTE`, ascending.

  There are at most `_MOST`, even if a space of many widths then wastes more.
  Of equally good choices, it takes the one whose first sizes are the smallest.
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
