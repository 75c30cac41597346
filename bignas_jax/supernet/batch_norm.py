"""Batch norm and its activation as one op with one gradient rule.

The op returns its moments, which calibration pools and the gradient needs. A
block that is recomputed in the backward pass gets its earlier moments; on CPUs
it uses them, so that the recomputation sums nothing. Of arrays as large as the
input, the gradient keeps only the input. There are no running averages in the
network.

Statistics are float32, or float64 if `x` is.
"""

import dataclasses
import functools
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from bignas_jax.operations import norm_sums, ops
from bignas_jax.operations.ops import AnyArray, Images
from bignas_jax.supernet import recomputation

# E[x] as `mean` and E[x^2] as `square`, of the groups on this device.
Moments = dict[str, Float[Array, 'groups channels']]


@dataclasses.dataclass(frozen=True)
class Pooling:
  """The set of images that batch statistics are taken over.

  Attributes:
    axes: mapped axes that the batch is split over; empty if there are none.
    group_size: number of images that share statistics, consecutive ones of the
      global batch, on one device or several; None: all images share them.
  """

  axes: tuple[str, ...] = ()
  group_size: int | None = None


def batch_norm(
  x: Images,
  params: dict[str, Float[AnyArray, 'channels']],
  stats: dict[str, Float[AnyArray, 'channels']] | None,
  epsilon: float | None,
  pooling: Pooling,
  *,
  activation: str | None = None,
  width: ops.Width | None = None,
  cached: Moments | None = None,
  border: ops.Around | None = None,
) -> tuple[Float[Array, 'batch rows columns channels'], Moments]:
  """Normalises each channel over all other axes, and applies the activation.

  Args:
    x: images.
    params: `scale` and `bias`; only `bias` if it is folded into a kernel.
    stats: `mean` and `var`; None: statistics of the batch are used.
    epsilon: number added to the variance; None: the statistics are folded into
      the kernel before, or into the scale and the bias (`folding`).
    pooling: images that share the batch's statistics.
    activation: one of `ops.ACTIVATIONS` that have a slope; None: none.
    width: number of active channels; the other channels become zeros. None: all
      channels are active.
    cached: moments of this batch, if it was normalised before.
    border: pixels to add around the result, which are what the norm makes of 0;
      only where batch norm is neither folded nor followed by an activation.

  Returns:
    The output, and the batch's moments, `mean` E[x] and `square` E[x^2], with
    zeros past the active width. If statistics were given, or the norm is
    folded, the moments are zeros of one group. Moments have no gradient of
    their own; the output's gradient passes through them.
  """
  own = {name: jnp.asarray(values) for name, values in params.items()}
  if epsilon is None:
    assert width is None or isinstance(width, int), 'a single network'
    y = x.astype(_wide(x))
    if 'scale' in own:
      y = y * own['scale']
    y = _activated(y + own['bias'], activation).astype(x.dtype)
    return y, _no_moments(x)
  how = _Norm(epsilon, pooling, activation)
  if width is not None:
    # A channel of scale and bias 0 is 0; cheaper than a mask of all of x.
    own = {name: ops.mask(values, width) for name, values in own.items()}
  if stats is not None:
    mean, var = (jnp.asarray(stats[name])[None] for name in ('mean', 'var'))
    y = _affine(how, x, own, mean, var)
    if border is not None:
      y = _bordered(y, _of_zero(how, own, mean, var), border)
    return y, _no_moments(x)
  take = functools.partial(_moments, pooling=pooling)
  moments = recomputation.reuse(take, cached, lax.stop_gradient(x))
  if width is not None:
    moments = {
      name: ops.mask(moment, width) for name, moment in moments.items()
    }
  if border is None:
    return _normalise(how, x, own, moments), moments
  y, zero = cast(tuple, _normalise_with_zero(how, x, own, moments))
  return _bordered(y, zero, border), moments


class _Norm(NamedTuple):
  """The static settings of a normalisation."""

  epsilon: float
  pooling: Pooling
  activation: str | None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normalise(how: _Norm, x, params, moments: Moments):
  """Normalises x by its moments; the gradient keeps only the arguments."""
  return _affine(how, x, params, moments['mean'], _variance(moments))


def _affine(
  how: _Norm,
  x: Images,
  params: dict[str, Float[Array, 'channels']],
  mean: Float[Array, 'groups channels'],
  var: Float[Array, 'groups channels'],
) -> Images:
  factor = params['scale'] * lax.rsqrt(var + how.epsilon)
  shift = params['bias'] - mean * factor
  wide = x.astype(_wide(x))
  y = wide * _per_image(factor, x) + _per_image(shift, x)
  return _activated(y, how.activation).astype(x.dtype)


def _of_zero(how: _Norm, params, mean, var) -> Float[Array, 'groups channels']:
  """Returns what the norm makes of 0."""
  factor = params['scale'] * lax.rsqrt(var + how.epsilon)
  return params['bias'] - mean * factor


def _bordered(
  y: Images, zero: Float[Array, 'groups channels'], border: ops.Around
) -> Float[Array, 'batch rows columns channels']:
  """Returns images with pixels around them."""
  around = (0, 0), *border, (0, 0)
  inside = jnp.pad(jnp.ones((1, *y.shape[1:3], 1), zero.dtype), around)
  edge = _per_image(zero, y) * (1 - inside)
  return jnp.pad(y, around) + edge.astype(y.dtype)


def _activated(y, activation: str | None):
  return y if activation is None else ops.ACTIVATIONS[activation](y)


def _variance(moments: Moments) -> Float[Array, 'groups channels']:
  return jnp.maximum(moments['square'] - moments['mean'] ** 2, 0)


def _wide(x: Images):
  return jnp.promote_types(jnp.float32, x.dtype)


def _normalise_forward(how, x, params, moments):
  return _normalise(how, x, params, moments), (x, params, moments)


def _normalise_backward(how, saved, cotangent, of_zero=None):
  """Returns the cotangents of x, params and moments.

  Source: Ioffe & Szegedy 2015, section 3, with the sums over whole groups.

  Args:
    how: settings.
    saved: x, params and moments.
    cotangent: cotangent of the output.
    of_zero: cotangent of what the norm makes of 0, which counts as one more
      pixel of the output, but not of the statistics; None: there is none.
  """
  x, params, moments = saved
  inverse = lax.rsqrt(_variance(moments) + how.epsilon)
  wide = x.astype(_wide(x))
  unit = (wide - _per_image(moments['mean'], x)) * _per_image(inverse, x)
  dy = cotangent.astype(wide.dtype)
  if how.activation is not None:
    y = unit * params['scale'] + params['bias']
    dy = dy * ops.SLOPES[how.activation](y)
    dy = _once(dy.astype(x.dtype)).astype(wide.dtype)
  of_norm = params, moments['mean'], inverse, how.activation
  bias, product = norm_sums.of_gradient(x, cotangent, dy, *of_norm)
  if of_zero is not None:
    bias = bias + of_zero
  scale = inverse * (product - moments['mean'] * bias)
  pixels = x.size // x.shape[-1] // len(inverse)
  along = _pool(jnp.stack([bias, scale]) / pixels, x, how.pooling)
  dx = _per_image(params['scale'] * inverse, x) * (
    dy - _per_image(along[0], x) - unit * _per_image(along[1], x)
  )
  return (
    dx.astype(x.dtype),
    {'scale': scale.sum(0), 'bias': bias.sum(0)},
    jax.tree.map(jnp.zeros_like, moments),
  )


_normalise.defvjp(_normalise_forward, _normalise_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normalise_with_zero(how: _Norm, x, params, moments: Moments):
  """Returns what `_normalise` does, and what the norm makes of 0."""
  of_zero = _of_zero(how, params, moments['mean'], _variance(moments))
  return _normalise(how, x, params, moments), of_zero


_normalise_with_zero.defvjp(
  lambda how, *arguments: (_normalise_with_zero(how, *arguments), arguments),
  lambda how, saved, cotangent: _normalise_backward(how, saved, *cotangent),
)


def _once(x: Images) -> Images:
  """Keeps XLA from recomputing x for each of its uses, on CPUs only."""
  return lax.platform_dependent(
    x, cpu=lax.optimization_barrier, default=lambda x: x
  )


def _no_moments(x: Images) -> Moments:
  """Returns zero moments of one group, for a batch norm that needed none."""
  zeros = jnp.zeros((1, x.shape[-1]), _wide(x))
  return {'mean': zeros, 'square': zeros}


def _groups(x: Images, pooling: Pooling) -> int:
  """Returns the number of groups on this device, normalised separately."""
  local, group = x.shape[0], pooling.group_size
  if group is None:
    return 1
  if group <= local:
    assert local % group == 0, (local, group)
    return local // group
  spanned, rest = divmod(group, local)
  assert not rest and _devices(pooling) % spanned == 0, (local, group)
  return 1


def _moments(x: Images, pooling: Pooling) -> Moments:
  x, groups = x.astype(_wide(x)), _groups(x, pooling)
  pixels = x.size // x.shape[-1] // groups
  sums = norm_sums.sums
  both = jnp.stack([sums(x, groups), sums(x * x, groups)]) / pixels
  mean, square = _pool(both, x, pooling)
  return {'mean': mean, 'square': square}


def _pool(
  means: Float[Array, 'kinds groups channels'],
  x: Images,
  pooling: Pooling,
) -> Float[Array, 'kinds groups channels']:
  """Averages means over the devices that a group spans."""
  local, group = x.shape[0], pooling.group_size
  if _devices(pooling) == 1 or (group is not None and group <= local):
    return means
  if group is None:
    return lax.pmean(means, pooling.axes)
  everyone = lax.all_gather(means, pooling.axes)
  devices = group // local
  first = lax.axis_index(pooling.axes) // devices * devices
  return lax.dynamic_slice_in_dim(everyone, first, devices).mean(0)


def _devices(pooling: Pooling) -> int:
  return lax.axis_size(pooling.axes) if pooling.axes else 1


def whole_batch(
  moments: Float[Array, '*blocks groups channels'], pooling: Pooling
) -> Float[Array, '*blocks channels']:
  """Averages moments of groups to those of the whole batch."""
  mean = moments.mean(-2)
  if _devices(pooling) == 1 or pooling.group_size is None:
    return mean  # of one device, or pooled already
  return lax.pmean(mean, pooling.axes)


def _per_image(
  values: Float[Array, 'groups channels'],
  x: Images,
) -> Float[Array, '#batch #height #width channels']:
  """Returns values of groups of images so that they broadcast against x."""
  if values.shape[0] > 1:
    values = jnp.repeat(values, x.shape[0] // values.shape[0], axis=0)
  return values.reshape(-1, *[1] * (x.ndim - 2), x.shape[-1])
