"""The mobile inverted bottleneck, with widths that may be traced numbers.

Pure functions: a block's description, its parameters, what it computes. Its
variants have fewer hidden channels, which are static shapes (`mbconv_elastic`
chooses one); a variant switches between kernel sizes, and masks other widths.
"""

import bisect
import dataclasses
import functools
import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from bignas_jax.spaces.space import Choices, Stage, hidden_width, squeeze_width
from bignas_jax.supernet import batch_norm, branches, ops, sizes
from bignas_jax.supernet.batch_norm import Pooling
from bignas_jax.supernet.depthwise import PIXELS, depthwise

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Block:
  """One block of a stage, at its largest.

  Attributes:
    stage: stage with the allowed kernel sizes, expand ratios and output widths.
    width_in: allowed input widths.
    first: whether it is first in its stage; only the first changes the width.
    padding: padding of the space's convolutions.
    bn_epsilon: epsilon of the space's batch norms.
    pooling: how batch statistics are pooled.
    most_hidden: number of a variant's hidden channels; None: all.
  """

  stage: Stage
  width_in: Choices
  first: bool
  padding: ops.Padding
  bn_epsilon: float | None
  pooling: Pooling
  most_hidden: int | None = None

  @property
  def has_shortcut_conv(self) -> bool:
    """Returns whether any child's block changes the number of channels."""
    return self.first and len({*self.width_in, *self.stage.width}) > 1

  @property
  def stride(self) -> int:
    """Returns the stride of the depthwise convolution."""
    return self.stage.stride if self.first else 1

  def variants(self) -> list['Block']:
    """Returns blocks with fewer hidden channels, and last the whole block."""
    return [
      dataclasses.replace(self, most_hidden=most)
      for most in sizes.few(tuple(self.hidden()))
    ]

  def variant(self) -> list[int]:
    """Returns the smallest variant that holds each entry of `hidden`."""
    hidden = self.hidden()
    few = sizes.few(tuple(hidden))
    return [bisect.bisect_left(few, one) for one in hidden]

  def hidden(self) -> list[int]:
    """Returns hidden channels of each (input width, expand ratio)."""
    stage = self.stage
    pairs = itertools.product(self.width_in, stage.expand_ratio)
    hidden = [hidden_width(stage, width, ratio) for width, ratio in pairs]
    most = self.most_hidden or max(hidden)
    return [min(h, most) for h in hidden]

  def squeeze(self) -> list[int]:
    """Returns squeeze channels of each (input width, expand ratio)."""
    se = self.stage.se
    assert se is not None
    pairs = itertools.product(self.width_in, self.stage.expand_ratio)
    return [
      squeeze_width(se, width, hidden)
      for (width, _), hidden in zip(pairs, self.hidden(), strict=True)
    ]

  def pair(self, active: 'Active') -> Int[Array, '']:
    """Returns the position in `hidden` of the active choices."""
    ratios = len(self.stage.expand_ratio)
    return active.input * ratios + active.expand_ratio


class Active(NamedTuple):
  """Positions of the active choices, in `width_in` and the stage's tuples."""

  input: Int[Array, '']
  output: Int[Array, '']
  kernel_size: Int[Array, '']
  expand_ratio: Int[Array, '']


def he_normal(
  key: Key[Array, ''], shape: tuple[int, ...], fan_out: int
) -> Params:
  """Returns a kernel of variance 2 / fan_out (He et al. 2015, section 2.2)."""
  return {'kernel': jax.random.normal(key, shape) * math.sqrt(2 / fan_out)}


def init_norm(width: int, epsilon: float | None, scale: float = 1.0) -> Params:
  """Returns a batch norm's parameters; for a folded one, only the bias."""
  bias = {'bias': jnp.zeros(width)}
  return bias if epsilon is None else {'scale': scale * jnp.ones(width)} | bias


def init(key: Key[Array, ''], block: Block) -> Params:
  """Returns parameters at the largest size; the block starts as its shortcut.

  The last batch norm's scale is 0 (BigNAS, section 3, initialisation). A
  depthwise kernel's fan-out is its own k x k, not the dense one's.
  """
  keys = jax.random.split(key, 6)
  stage = block.stage
  width_in, hidden = max(block.width_in), max(block.hidden())
  width_out, size = max(stage.width), max(stage.kernel_size)
  params = {
    'depthwise': he_normal(keys[1], (size, size, 1, hidden), size**2),
    'depthwise_bn': init_norm(hidden, block.bn_epsilon),
    'project': he_normal(keys[2], (hidden, width_out), width_out),
    'project_bn': init_norm(width_out, block.bn_epsilon, scale=0.0),
  }
  if stage.has_expand:
    params['expand'] = he_normal(keys[0], (width_in, hidden), hidden)
    params['expand_bn'] = init_norm(hidden, block.bn_epsilon)
  if stage.se is not None:
    squeeze = max(block.squeeze())
    reduce = he_normal(keys[3], (hidden, squeeze), squeeze)
    expand = he_normal(keys[4], (squeeze, hidden), hidden)
    params['se'] = {
      'reduce': reduce | {'bias': jnp.zeros(squeeze)},
      'expand': expand | {'bias': jnp.zeros(hidden)},
    }
  if block.has_shortcut_conv:
    params['shortcut'] = he_normal(keys[5], (width_in, width_out), width_out)
  return params


@functools.cache
def shapes(block: Block) -> Params:
  """Returns shapes and dtypes of `init`'s result, without computing it."""
  return jax.eval_shape(lambda: init(jax.random.key(0), block))


# Axes of parameters that a child takes the middle of; of all others, it takes
# the first entries.
CENTRED = {'depthwise': {'kernel': PIXELS}}


def norms(block: Block) -> dict[str, str]:
  """Returns the convolution before each batch norm, by the names of both."""
  if block.bn_epsilon is None:
    return {}
  names = ['depthwise', 'expand', 'project']
  if not block.stage.has_expand:
    names.remove('expand')
  return {f'{name}_bn': name for name in names}


@functools.cache
def stats_shapes(block: Block) -> Params:
  """Returns shapes of the batch norms' statistics."""
  return batch_norm.stats_shapes(norms(block), shapes(block))


def apply(
  block: Block,
  params: Params,
  stats: Params | None,
  x: ops.Images,
  active: Active,
  cached: Params | None = None,
) -> tuple[Float[Array, 'batch rows columns out'], Params]:
  """Computes a block, or a variant that holds the active hidden channels.

  Args:
    block: the block or one of its variants.
    params: parameters in the shapes of `shapes(block)`.
    stats: batch norms' `mean` and `var`; None: the batch's own.
    x: images, zero past the active width.
    active: widths, kernel size and expand ratio.
    cached: the remembered arrays of an earlier call, if there was one.

  Returns:
    The output, zero past the active width, and a dict to remember: `moments` of
    each batch norm's input (`batch_norm.Moments`), and small arrays that cost a
    pass over all hidden channels.
  """
  stage = block.stage
  remembered: Params = {'moments': {}}
  cached = cached or {'moments': {}}
  hidden = ops.pick(block.hidden(), block.pair(active))
  width_out = ops.pick(list(stage.width), active.output)

  def norm(h, name, width, swish):
    h, moments = batch_norm.batch_norm(
      h,
      params[name],
      None if stats is None else stats[name],
      block.bn_epsilon,
      block.pooling,
      swish=swish,
      width=width,
      cached=cached['moments'].get(name),
    )
    if block.bn_epsilon is not None:  # a folded one has none
      remembered['moments'][name] = moments
    return h

  def remember(name, compute, *operands):
    remembered[name] = branches.reuse(compute, cached.get(name), *operands)
    return remembered[name]

  h = x
  if stage.has_expand:
    h = ops.pointwise(h, params['expand']['kernel'])
    h = norm(h, 'expand_bn', hidden, swish=True)
  else:
    h = ops.resize_channels(h, max(block.hidden()))
  h = depthwise(
    h,
    params['depthwise']['kernel'],
    block.stride,
    block.padding,
    stage.kernel_size,
    active.kernel_size,
  )
  h = norm(h, 'depthwise_bn', hidden, swish=True)
  if stage.se is not None:
    mean = remember('squeeze', ops.spatial_mean, h)
    squeeze = ops.pick(block.squeeze(), block.pair(active))
    h = ops.squeeze_excite(
      h, mean, params['se'], squeeze, stage.se.activation, stage.se.gate
    )
  h = remember('project', ops.pointwise, h, params['project']['kernel'])
  h = norm(h, 'project_bn', width_out, swish=False)
  return h + _shortcut(block, params, x, active), remembered


def _shortcut(
  block: Block, params: Params, x: ops.Images, active: Active
) -> Float[Array, 'batch rows columns out']:
  """Applies 2x2 average pooling and a 1x1 convolution, each only if needed."""
  if block.stride == 2:
    x = ops.average_pool(x)
  if not block.has_shortcut_conv:
    return x
  width_out = max(block.stage.width)
  projected = ops.pointwise(x, params['shortcut']['kernel'])
  width_in = ops.pick(list(block.width_in), active.input)
  width = ops.pick(list(block.stage.width), active.output)
  projected = ops.mask(projected, width)
  if not {*block.width_in} & {*block.stage.width}:
    return projected
  same = jnp.asarray(width_in) == jnp.asarray(width)
  return jnp.where(same, ops.resize_channels(x, width_out), projected)
