"""The costs of a child, counted from its architecture alone.

Convolutions, dense layers, squeeze-excite and shortcut convolutions count
their multiply-adds; batch norm, activations, pooling and additions count 0.
Parameters include the scale and bias of batch norm, not its statistics.
Activations are the entries of all convolutions' outputs (Radosavovic et al.
2020, section 4), which memory bandwidth, and so time on accelerators, follows.
"""

import functools
import operator
from collections.abc import Callable
from typing import NamedTuple

from bignas_jax.costs.layers import Layer, downsample, layers
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import block_kinds
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.spaces.stage import squeeze_width

_LAYERS = 100_000  # that are remembered of a space, about 50 MB


class Cost(NamedTuple):
  """The costs of a layer or a network for one image."""

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
  """Returns the cost of the whole child."""
  return total(rows(space, arch))


def total(table: list[Row]) -> Cost:
  """Returns the sum of the rows' costs."""
  return Cost(*map(sum, zip(*(row.cost for row in table), strict=True)))


def rows(space: Space, arch: Arch) -> list[Row]:
  """Returns the child's stem, blocks and head with what each costs."""
  arch_lib.check(space, arch)
  row, _ = _of_layers(space)
  return [row(layer) for layer in layers(space, arch)]


@functools.lru_cache(maxsize=16)
def _of_layers(
  space: Space,
) -> tuple[Callable[[Layer], Row], Callable[[Layer], int]]:
  """Returns `_row` and `_most_alive` for a space.

  They remember layers: children of a search share most of theirs.
  """
  remember = functools.lru_cache(maxsize=_LAYERS)
  return (
    remember(functools.partial(_row, space)),
    remember(functools.partial(_most_alive, space)),
  )


def _row(space: Space, layer: Layer) -> Row:
  if layer.is_block:
    cost = _block(space, layer)
  elif layer.stage == 0:
    size = downsample(layer.size_in, space.stem_stride)
    cost = _conv(size, space.stem_kernel, layer.width_in, layer.width_out)
    if not space.stages[0].preactivated:
      cost += _norm(layer.width_out)
  else:
    return Row(layer.name, 1, space.classes, _head(space, layer))
  return Row(layer.name, layer.size_out, layer.width_out, cost)


def peak_activations(space: Space, arch: Arch) -> int:
  """Returns the most entries that activations of an image have at one time.

  A convolution needs its input and its output, and beside them what is kept
  for the block's shortcut (Lin et al. 2020, MCUNet, section 2). Assumes that
  batch norm, activation and gate work in place, and branches run in turn.
  """
  arch_lib.check(space, arch)
  _, most_alive = _of_layers(space)
  return max(most_alive(layer) for layer in layers(space, arch))


def _most_alive(space: Space, layer: Layer) -> int:
  """Returns the most entries that are alive during a layer."""
  return max(_alive(space, layer))


def _alive(space: Space, layer: Layer) -> list[int]:
  """Returns the entries that are alive during each convolution of a layer."""
  given = layer.width_in * layer.size_in**2
  if layer.is_block:
    alive = []
    for i, conv in enumerate(layer.convs(space)):
      own = conv.width_in * conv.size_in**2
      made = conv.width_out * conv.size_out**2
      alive.append(own + made + (given if i else 0))
    return alive or [given + layer.width_out * layer.size_out**2]
  if layer.stage == 0:
    size = downsample(layer.size_in, space.stem_stride)
    return [given + layer.width_out * size**2]
  expanded = layer.width_out
  if space.head_expand is not None:
    expanded = layer.width_in * space.head_expand
  return [given + expanded * layer.size_in**2 if space.head_width else given]


def _block(space: Space, layer: Layer) -> Cost:
  cost, stage = Cost(0, 0, 0), layer.of(space)
  convs = layer.convs(space)
  if stage.preactivated:
    cost += _norm(layer.width_in)
  for conv in convs:
    groups = stage.groups if conv.conv.kind == 'dense' else 1
    width_in = conv.width_in // groups
    width_in = 1 if conv.conv.kind == 'depthwise' else width_in
    cost += _conv(conv.size_out, conv.kernel_size, width_in, conv.width_out)
    if conv.conv.normed:
      cost += _norm(conv.width_out)
  if convs and stage.se is not None:
    hidden = convs[-1].width_in
    squeeze = squeeze_width(stage.se, layer.width_in, hidden)
    cost += _dense(hidden, squeeze) + _dense(squeeze, hidden)
  if layer.has_shortcut_conv(space):
    cost += _conv(layer.size_out, 1, layer.width_in, layer.width_out)
    if block_kinds.has_normed_shortcut(stage):
      cost += _norm(layer.width_out)
  return cost


def _head(space: Space, layer: Layer) -> Cost:
  width, features = layer.width_in, layer.width_out
  cost = _dense(features, space.classes)
  if not space.head_width:
    return cost + _norm(width) if space.stages[-1].preactivated else cost
  if space.head_expand is None:
    return cost + _conv(layer.size_in, 1, width, features) + _norm(features)
  hidden = width * space.head_expand
  cost += _conv(layer.size_in, 1, width, hidden) + _norm(hidden)
  return cost + _conv(1, 1, hidden, features)


def _conv(size: int, kernel_size: int, width_in: int, width_out: int) -> Cost:
  weights = kernel_size**2 * width_in * width_out
  return Cost(size**2 * weights, weights, size**2 * width_out)


def _dense(width_in: int, width_out: int) -> Cost:
  weights = width_in * width_out
  return Cost(weights, weights + width_out, width_out)


def _norm(width: int) -> Cost:
  return Cost(0, 2 * width, 0, 2 * width)
