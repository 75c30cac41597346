"""The parameters of a block: its batch norms, and what training starts with."""

import functools
import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from bignas_jax.spaces import block_kinds, parallel
from bignas_jax.spaces.block_kinds import Conv
from bignas_jax.spaces.stage import Choices, Stage
from bignas_jax.supernet.stage_blocks import Block

Params = dict[str, Any]


def norms(block: Block) -> dict[str, Any]:
  """Returns the convolution before each batch norm, by the names of both.

  None: the batch norm follows no convolution. They are nested by operation
  where operations have parameters of their own.
  """
  if block.bn_epsilon is None:
    return {}
  if block.stage.separate_weights:
    every = {name: norms(one) for name, one in block.operations().items()}
    return {name: own for name, own in every.items() if own}
  if block.stage.parallel:
    steps = parallel.steps(parallel.mask(*members(block)))
    return {f'{s.name}_bn': s.name if s.learnt else None for s in steps}
  convs = block_kinds.convs(block.stage)
  names = [conv.name for conv in convs if conv.normed]
  if block.has_shortcut_conv and block_kinds.has_normed_shortcut(block.stage):
    names.append('shortcut')
  before: dict[str, str | None] = {f'{name}_bn': name for name in names}
  return {'pre_bn': None} | before if block.stage.preactivated else before


def stats_shapes(norms: dict, params: dict) -> dict:
  """Returns shapes of the statistics `mean` and `var` of each batch norm.

  Args:
    norms: names of batch norms, nested as their parameters are.
    params: parameters, or their shapes.
  """
  return {
    name: stats_shapes(inner, params[name])
    if isinstance(inner, dict)
    else dict.fromkeys(('mean', 'var'), params[name]['bias'])
    for name, inner in norms.items()
  }


def he_normal(
  key: Key[Array, ''], shape: tuple[int, ...], fan_out: int
) -> Params:
  """Returns a kernel of variance 2 / fan_out (He et al. 2015, section 2.2)."""
  return {'kernel': jax.random.normal(key, shape) * math.sqrt(2 / fan_out)}


def init_norm(width: int, epsilon: float | None, scale: float = 1.0) -> Params:
  """Returns a batch norm's parameters; for a folded one, only the bias."""
  if epsilon is None:
    return {'bias': jnp.zeros(width)}
  return init_affine(width, scale)


def init_affine(width: int, scale: float = 1.0) -> Params:
  """Returns a scale and a bias.

  A batch norm that follows no convolution has both even if it is folded.
  """
  bias = jnp.zeros(width)
  return {'scale': scale * jnp.ones(width), 'bias': bias}


def with_scales_of_one(params: Params) -> Params:
  """Returns parameters in which the scale of every batch norm is 1.

  Blocks whose last scale was 0 are no longer their shortcut.
  """

  def ones(path: tuple, leaf: Array) -> Array:
    return jnp.ones_like(leaf) if path[-1].key == 'scale' else leaf

  return jax.tree_util.tree_map_with_path(ones, params)


def init(key: Key[Array, ''], block: Block) -> Params:
  """Returns parameters at the largest size; a block starts as its shortcut.

  The last batch norm's scale is 0 (BigNAS, section 3, initialisation), unless
  some child has no shortcut, or an activation follows: a ReLU of 0 has no
  gradient. A depthwise kernel's fan-out is its own k x k, not
  the dense one's.
  """
  if block.stage.separate_weights:
    return _init_operations(key, block)
  if block.stage.parallel:
    return _init_members(key, block)
  keys = jax.random.split(key, 6)
  stage, convs = block.stage, block_kinds.convs(block.stage)
  width_in, hidden = max(block.width_in), max(block.hidden())
  widths = {'hidden': hidden, 'out': max(stage.width)}
  params, width = {}, width_in
  if stage.preactivated:
    params['pre_bn'] = init_affine(width_in)
  for conv in convs:
    own = keys[block_kinds.CONVS[stage.block].index(conv)]
    params[conv.name] = _init_conv(own, conv, stage, width, widths[conv.width])
    zero = conv is convs[-1] and block.has_shortcut and not conv.activated
    if conv.normed:
      norm = init_norm(widths[conv.width], block.bn_epsilon, 1 - zero)
      params[f'{conv.name}_bn'] = norm
    width = widths[conv.width]
  if stage.se is not None:
    squeeze = max(block.squeeze())
    reduce = he_normal(keys[3], (hidden, squeeze), squeeze)
    expand = he_normal(keys[4], (squeeze, hidden), hidden)
    params['se'] = {
      'reduce': reduce | {'bias': jnp.zeros(squeeze)},
      'expand': expand | {'bias': jnp.zeros(hidden)},
    }
  if block.has_shortcut_conv:
    shape = width_in, widths['out']
    params['shortcut'] = he_normal(keys[5], shape, widths['out'])
    if block_kinds.has_normed_shortcut(stage):
      params['shortcut_bn'] = init_norm(widths['out'], block.bn_epsilon)
  return params


def _init_operations(key: Key[Array, ''], block: Block) -> Params:
  """Returns parameters of each operation, but for those that have none."""
  operations = block.operations().items()
  keys = jax.random.split(key, len(operations))
  every = {
    name: init(own, one)
    for own, (name, one) in zip(keys, operations, strict=True)
  }
  return {name: params for name, params in every.items() if params}


def masks(block: Block) -> Choices:
  """Returns the masks of parallel members that a layer may have."""
  first, changes = block.first, block.changes_width
  return block_kinds.masks(block.stage, first=first, changes_width=changes)


def members(block: Block) -> list[str]:
  """Returns the parallel members that some child's layer has."""
  return parallel.members(functools.reduce(operator.or_, masks(block)))


def _init_members(key: Key[Array, ''], block: Block) -> Params:
  """Returns parameters of all steps of a layer's parallel members."""
  ((size,), (width_out,)) = block.stage.kernel_size, block.stage.width
  width_in, groups, params = max(block.width_in), block.stage.groups, {}
  for name in members(block):
    width = width_in
    for step in parallel.MEMBERS[name]:
      out = width_in if step.output == 'in' else width_out
      if step.learnt:
        key, own = jax.random.split(key)
        shape = *step.windows(size), width // groups, out
        fan_out = shape[0] * shape[1] * (out // groups)
        params[step.name] = he_normal(own, shape, fan_out)
      last = step == parallel.MEMBERS[name][-1]
      zero = block.stage.zero_start and name != 'square' and last
      norm = init_norm(out, block.bn_epsilon, 1 - zero)
      params[f'{step.name}_bn'] = norm
      width = out
  gates = {'gates': jnp.zeros(len(parallel.MEMBERS))} if block.gated else {}
  return params | gates


def _init_conv(
  key: Key[Array, ''], conv: Conv, stage: Stage, width_in: int, width_out: int
) -> Params:
  size = max(stage.kernel_size)
  if conv.kind == 'pointwise':
    return he_normal(key, (width_in, width_out), width_out)
  if conv.kind == 'depthwise':
    return he_normal(key, (size, size, 1, width_out), size**2)
  shape = (size, size, width_in // stage.groups, width_out)
  return he_normal(key, shape, size**2 * (width_out // stage.groups))
