"""What a child computes and holds, from its architecture alone.

Convolutions, dense layers, squeeze-excite and shortcut convolutions count
their multiply-adds; batch norm, activations, pooling and additions count 0.
Parameters include the scale and bias of batch norm, not its statistics.
Activations are the entries of all convolutions' outputs (Radosavovic et al.
2020, section 4): what memory bandwidth, and so time on accelerators, follows.
"""

import functools
import operator
from typing import NamedTuple

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space, Stage, hidden_width, squeeze_width


class Cost(NamedTuple):
  """What one part of a network costs for one image."""

  macs: int
  params: int
  activations: int
  statistics: int = 0  # means and variances of batch norms

  def __add__(self, other: 'Cost') -> 'Cost':
    return Cost(*map(operator.add, self, other))


class Row(NamedTuple):
  """One line of a network's overview."""

  name: str
  resolution: int  # of the output, pixels
  width: int  # of the output, channels
  cost: Cost


def cost(space: Space, arch: Arch) -> Cost:
  """What the whole child costs."""
  return total(rows(space, arch))


def total(table: list[Row]) -> Cost:
  return functools.reduce(operator.add, (row.cost for row in table))


def rows(space: Space, arch: Arch) -> list[Row]:
  """The child's stem, blocks and head with what each costs."""
  arch_lib.check(space, arch)
  size = _downsample(arch.resolution, space.stem_stride)
  width = arch.width[0]
  stem = _conv(size, 3, space.channels, width) + _norm(width)
  table = [Row('stem', size, width, stem)]
  for block in blocks(space, arch):
    table.append(Row(block.name, block.small, block.width_out, _block(block)))
    size, width = block.small, block.width_out
  table.append(Row('head', 1, space.classes, _head(space, arch, size, width)))
  return table


class Block(NamedTuple):
  """A block of a child, in numbers."""

  name: str
  stage: Stage
  size: int  # of its input, pixels
  stride: int
  width_in: int
  width_out: int
  kernel_size: int
  expand_ratio: int

  @property
  def small(self) -> int:
    """Pixels of its output."""
    return _downsample(self.size, self.stride)

  @property
  def hidden(self) -> int:
    """Channels in between."""
    return hidden_width(self.stage, self.width_in, self.expand_ratio)


def blocks(space: Space, arch: Arch) -> list[Block]:
  """The child's blocks in the order in which they run."""
  size = _downsample(arch.resolution, space.stem_stride)
  width, found = arch.width[0], []
  for i, stage in enumerate(space.stages):
    for j in range(arch.depth[i]):
      block = Block(
        f'stage{i + 1}.block{j + 1}',
        stage,
        size,
        stage.stride if j == 0 else 1,
        width,
        arch.width[i + 1],
        arch.kernel_size[i],
        arch.expand_ratio[i],
      )
      size, width = block.small, block.width_out
      found.append(block)
  return found


def peak_activations(space: Space, arch: Arch) -> int:
  """The most entries that activations of one image have at one time.

  Of a convolution its input and its output; with them what is kept for the
  block's shortcut (Lin et al. 2020, MCUNet, section 2). Batch norm, activation
  and gate are taken to work in place, and branches to run one by one.
  """
  arch_lib.check(space, arch)
  size = _downsample(arch.resolution, space.stem_stride)
  width = arch.width[0]
  alive = [space.channels * arch.resolution**2 + width * size**2]
  for block in blocks(space, arch):
    kept = block.width_in * block.size**2
    wide, narrow = block.hidden * block.size**2, block.hidden * block.small**2
    if block.stage.has_expand:
      alive.append(kept + wide)
      alive.append(kept + wide + narrow)
    else:
      alive.append(kept + narrow)
    alive.append(kept + narrow + block.width_out * block.small**2)
    size, width = block.small, block.width_out
  expanded = arch.width[-1]
  if space.head_expand is not None:
    expanded = width * space.head_expand
  alive.append((width + expanded) * size**2)
  return max(alive)


def _block(block: Block) -> Cost:
  stage, hidden, small = block.stage, block.hidden, block.small
  width_in, width_out = block.width_in, block.width_out
  found = _depthwise(small, block.kernel_size, hidden) + _norm(hidden)
  if stage.has_expand:
    found += _conv(block.size, 1, width_in, hidden) + _norm(hidden)
  if stage.se is not None:
    squeeze = squeeze_width(stage.se, width_in, hidden)
    found += _dense(hidden, squeeze) + _dense(squeeze, hidden)
  found += _conv(small, 1, hidden, width_out) + _norm(width_out)
  if width_in != width_out:
    found += _conv(small, 1, width_in, width_out)
  return found


def _head(space: Space, arch: Arch, size: int, width: int) -> Cost:
  features = arch.width[-1]
  found = _dense(features, space.classes)
  if space.head_expand is None:
    return found + _conv(size, 1, width, features) + _norm(features)
  hidden = width * space.head_expand
  found += _conv(size, 1, width, hidden) + _norm(hidden)
  return found + _conv(1, 1, hidden, features)


def _downsample(size: int, stride: int) -> int:
  return -(-size // stride)


def _conv(size: int, kernel_size: int, width_in: int, width_out: int) -> Cost:
  weights = kernel_size**2 * width_in * width_out
  return Cost(size**2 * weights, weights, size**2 * width_out)


def _depthwise(size: int, kernel_size: int, width: int) -> Cost:
  weights = kernel_size**2 * width
  return Cost(size**2 * weights, weights, size**2 * width)


def _dense(width_in: int, width_out: int) -> Cost:
  weights = width_in * width_out
  return Cost(weights, weights + width_out, width_out)


def _norm(width: int) -> Cost:
  return Cost(0, 2 * width, 0, 2 * width)
