"""Multiply-adds, parameters and activations of a child, from its architecture.

Convolutions, dense layers, squeeze-excite and shortcut convolutions count
their multiply-adds; batch norm, activations, pooling and additions count 0.
Parameters include the scale and bias of batch norm, not its statistics.
Activations are the entries of all convolutions' outputs (Radosavovic et al.
2020, section 4): what memory bandwidth, and so time on accelerators, follows.
"""

import functools
import operator
from typing import NamedTuple

from bignas_jax import arch as arch_lib
from bignas_jax.arch import Arch
from bignas_jax.space import Space, Stage, hidden_width, squeeze_width


class Cost(NamedTuple):
  """What one part of a network costs for one image."""

  macs: int
  params: int
  activations: int

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
  for i, stage in enumerate(space.stages):
    width_out = arch.width[i + 1]
    for j in range(arch.depth[i]):
      stride = stage.stride if j == 0 else 1
      block = _block(
        stage,
        size,
        stride,
        width,
        width_out,
        arch.kernel_size[i],
        arch.expand_ratio[i],
      )
      size, width = _downsample(size, stride), width_out
      table.append(Row(f'stage{i + 1}.block{j + 1}', size, width, block))
  table.append(Row('head', 1, space.classes, _head(space, arch, size, width)))
  return table


def _block(
  stage: Stage,
  size: int,
  stride: int,
  width_in: int,
  width_out: int,
  kernel_size: int,
  expand_ratio: int,
) -> Cost:
  hidden = hidden_width(stage, width_in, expand_ratio)
  small = _downsample(size, stride)
  found = _depthwise(small, kernel_size, hidden) + _norm(hidden)
  if stage.has_expand:
    found += _conv(size, 1, width_in, hidden) + _norm(hidden)
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
  return Cost(0, 2 * width, 0)
