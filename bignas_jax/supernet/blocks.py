"""A block of any kind, with widths that may be traced numbers.

Pure functions: a block's description, its parameters, what it computes. Which
convolutions it has is data (`spaces.block_kinds`). Its variants have fewer
hidden channels, which are static shapes (`elastic_blocks` chooses one); a
variant switches between kernel sizes, and masks other widths.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from bignas_jax.operations import convolution, ops
from bignas_jax.operations.depthwise import PIXELS, depthwise
from bignas_jax.operations.pointwise import pointwise
from bignas_jax.spaces import block_kinds, parallel
from bignas_jax.supernet import batch_norm, parameters, recomputation
from bignas_jax.supernet.drop_connect import DropConnect
from bignas_jax.supernet.stage_blocks import Active, Block

Params = dict[str, Any]


@functools.cache
def shapes(block: Block) -> Params:
  """Returns shapes and dtypes of `init`'s result, without computing it."""
  return jax.eval_shape(lambda: parameters.init(jax.random.key(0), block))


# Axes of parameters that a child takes the middle of; of all others, it takes
# the first entries.
CENTRED = {'depthwise': {'kernel': PIXELS}}


@functools.cache
def stats_shapes(block: Block) -> Params:
  """Returns shapes of the batch norms' statistics."""
  return parameters.stats_shapes(parameters.norms(block), shapes(block))


def apply(
  block: Block,
  params: Params,
  stats: Params | None,
  x: ops.Images,
  active: Active,
  cached: Params | None = None,
  drop: DropConnect | None = None,
) -> tuple[Float[Array, 'batch rows columns out'], Params]:
  """Computes a block, or a variant that holds the active hidden channels.

  Args:
    block: the block or one of its variants.
    params: parameters in the shapes of `shapes(block)`.
    stats: batch norms' `mean` and `var`; None: the batch's own.
    x: images, zero past the active width.
    active: widths, kernel size and expand ratio.
    cached: the remembered arrays of an earlier call, if there was one.
    drop: drop-connect of the block; None: its result is never dropped.

  Returns:
    The output, zero past the active width, and a dict to remember, which has
    `moments` of batch norms' inputs and what else takes a pass over channels.
  """
  stage, convs = block.stage, block_kinds.convs(block.stage)
  remembered: Params = {'moments': {}}
  cached = cached or {'moments': {}}
  widths = {
    'hidden': ops.pick(block.hidden(), block.pair(active)),
    'out': ops.pick(list(stage.width), active.output),
  }

  def norm(h, name, width, activation, border=None):
    h, moments = batch_norm.batch_norm(
      h,
      params[name],
      None if stats is None else stats[name],
      block.bn_epsilon,
      block.pooling,
      activation=activation,
      width=width,
      cached=cached['moments'].get(name),
      border=border,
    )
    if block.bn_epsilon is not None:  # a folded one has none
      remembered['moments'][name] = moments
    return h

  def remember(name, compute, *operands):
    remembered[name] = recomputation.reuse(compute, cached.get(name), *operands)
    return remembered[name]

  def convolve(h, conv):
    kernel = params[conv.name]['kernel']
    stride = block.stride if conv.strided else 1
    if conv.kind == 'depthwise':
      h = ops.resize_channels(h, kernel.shape[-1])
      sizes = stage.kernel_size, active.kernel_size
      return depthwise(h, kernel, stride, block.padding, *sizes)
    if conv.kind == 'dense':
      return convolution.conv(h, kernel, stride, block.padding)
    if conv is convs[-1]:
      return remember(conv.name, pointwise, h, kernel)
    return pointwise(h, kernel)

  def chain(h):
    for conv in convs:
      if conv is convs[-1] and stage.se is not None:
        mean = remember('squeeze', ops.spatial_mean, h)
        squeeze = ops.pick(block.squeeze(), block.pair(active))
        used = active.squeeze_excite if stage.se_choice else None
        own = stage.se.activation, stage.se.gate, used
        h = ops.squeeze_excite(h, mean, params['se'], squeeze, *own)
      activation = stage.activation if conv.activated else None
      h = convolve(h, conv)
      if conv.normed:
        h = norm(h, f'{conv.name}_bn', widths[conv.width], activation)
      else:
        h = ops.mask(h, widths[conv.width])
    return h

  h = x
  if stage.preactivated:
    width = ops.pick(list(block.width_in), active.input)
    h = norm(x, 'pre_bn', width, stage.activation)
  source = h  # of a convolution in the shortcut
  if stage.parallel:
    h = ops.ACTIVATIONS[stage.activation](_sum(block, params, x, active, norm))
  else:
    h = chain(h)
  if stage.block in block_kinds.MAX_POOLED and block.stride == 2:
    h = ops.max_pool(h)
  if drop is not None:
    h = _dropped(block, h, active, drop)
  shortcut = _shortcut(block, params, x, source, active, norm)
  if not convs:
    return _only(shortcut), remembered
  if shortcut is not None:
    h = h + shortcut
  if stage.block in block_kinds.RESIDUAL:
    h = ops.ACTIVATIONS[stage.activation](h)
  return h, remembered


def _sum(
  block: Block, params: Params, x: ops.Images, active: Active, norm: Callable
) -> Float[Array, 'batch rows columns out']:
  """Returns the sum of a layer's parallel members, without activation.

  All are computed; those that the child has not are multiplied by 0. Arguments
  are those of `_shortcut`.
  """
  masks, terms = parameters.masks(block), []
  for name in parameters.members(block):
    term = _member(block, params, x, parallel.MEMBERS[name], norm)
    bits = [int(mask & parallel.mask(name) > 0) for mask in masks]
    gate = None
    if len({*bits}) > 1:
      gate = jnp.asarray(bits, term.dtype)[active.parallel]
    if block.gated:
      number = [*parallel.MEMBERS].index(name)
      gate = params['gates'][number] + (bits[0] if gate is None else gate)
    terms.append(term if gate is None else term * gate.astype(term.dtype))
  return functools.reduce(jnp.add, terms)


def _member(
  block: Block,
  params: Params,
  x: ops.Images,
  steps: tuple[parallel.Step, ...],
  norm: Callable,
) -> Float[Array, 'batch rows columns out']:
  """Returns the result of a parallel member.

  Its windows have the centres of the layer's kernel. The second of two steps
  sees around its input what batch norm makes of 0.
  """
  (size,), last = block.stage.kernel_size, steps[-1]
  (conv,) = block_kinds.convs(block.stage)
  stride, sides = block.stride if conv.strided else 1, x.shape[1:3]
  edges = [ops.pads(side, size, stride, block.padding) for side in sides]
  for step in steps[:-1]:
    x = _pointwise(x, params[step.name]['kernel'])
    x = norm(x, f'{step.name}_bn', None, None, tuple(edges))
    edges = [(0, 0), (0, 0)]
  windows = last.windows(size)
  rows, columns = (
    (before - (size - n) // 2, after - (size - n) // 2)
    for n, (before, after) in zip(windows, edges, strict=True)
  )
  kernel = params[last.name]['kernel'] if last.learnt else None
  x = _over_windows(x, kernel, windows, stride, (rows, columns))
  return norm(x, f'{last.name}_bn', None, None)


def _over_windows(
  x: ops.Images,
  kernel: Float[ops.AnyArray, 'high wide in out'] | None,
  windows: tuple[int, int],
  stride: int,
  around: ops.Around,
) -> Float[Array, 'batch rows columns out']:
  """Returns the convolution of x, or the means over windows without a kernel.

  Zeros are added around x; a negative number of them is cut off.
  """
  if windows == (1, 1):
    (top, bottom), (left, right) = around
    x = x[:, -top : x.shape[1] + bottom, -left : x.shape[2] + right]
    x = x[:, ::stride, ::stride]
    return x if kernel is None else _pointwise(x, kernel)
  if kernel is not None:
    return convolution.convolve(x, kernel, stride, around)
  window, strides = (1, *windows, 1), (1, stride, stride, 1)
  sums = lax.reduce_window(x, 0.0, lax.add, window, strides, 'VALID')
  return sums / math.prod(windows)


def _pointwise(
  x: ops.Images, kernel: Float[ops.AnyArray, '1 1 inner out']
) -> Float[Array, 'batch rows columns out']:
  """Returns the 1x1 convolution of x, in groups if the kernel is of groups."""
  if kernel.shape[2] == x.shape[-1]:
    return pointwise(x, kernel[0, 0])
  return convolution.convolve(x, kernel, 1, ((0, 0), (0, 0)))


def _dropped(
  block: Block, h: ops.Images, active: Active, drop: DropConnect
) -> ops.Images:
  """Returns a block's result after drop-connect.

  Only blocks whose shortcut is their unchanged input are dropped.
  """
  inputs, outputs = block.width_in, block.stage.width
  if block.stage.shortcut == 'none' or block.stride > 1:
    return h
  rate = drop.rate
  if block.changes_width:
    width_in = jnp.asarray(ops.pick(list(inputs), active.input))
    width = ops.pick(list(outputs), active.output)
    rate = jnp.where(width_in == width, rate, 0)
  return ops.drop_connect(h, rate, drop.own_keys())


def _only(shortcut: Any) -> Float[Array, 'batch rows columns out']:
  """Returns the shortcut, which a block without convolutions consists of."""
  assert shortcut is not None, 'a block without convolutions and shortcut'
  return shortcut


def _shortcut(
  block: Block,
  params: Params,
  x: ops.Images,
  source: ops.Images,
  active: Active,
  norm: Callable,
) -> Float[Array, 'batch rows columns out'] | None:
  """Returns what is added to a block's result, by `Stage.shortcut`.

  Args:
    block: the block.
    params: its parameters.
    x: its input.
    source: what a convolution in the shortcut reads.
    active: active widths.
    norm: function of (images, name, width, activation).
  """
  rule, outputs = block.stage.shortcut, block.stage.width
  projected = rule in block_kinds.PROJECTED_SHORTCUTS
  if rule == 'none' or (rule == 'identity' and block.stride > 1):
    return None
  if rule in block_kinds.POOLED_SHORTCUTS and block.stride == 2:
    x = source = ops.average_pool(x)
  if not block.changes_width and not block.has_shortcut_conv:
    return x
  width_in = ops.pick(list(block.width_in), active.input)
  width = ops.pick(list(outputs), active.output)
  changed: Any = 0
  if block.has_shortcut_conv:
    if rule == 'projected':
      source = source[:, :: block.stride, :: block.stride]
    changed = pointwise(source, params['shortcut']['kernel'])
    if block_kinds.has_normed_shortcut(block.stage):
      changed = norm(changed, 'shortcut_bn', width, None)
    else:
      changed = ops.mask(changed, width)
  never_same = not {*block.width_in} & {*outputs}
  if never_same or (projected and block.stride > 1):
    return changed if block.has_shortcut_conv else None
  same = jnp.asarray(width_in) == jnp.asarray(width)
  return jnp.where(same, ops.resize_channels(x, max(outputs)), changed)
