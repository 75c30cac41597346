"""Depthwise convolution: one op, the fastest formulation on each platform.

TPUs and GPUs have grouped convolutions. XLA's CPU backend runs them tens of
times slower than the k x k shifted multiply-adds that they consist of, their
kernel gradient most of all; there all three directions are written out as
sums over taps, which it fuses and vectorises (docs/performance.md).
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from bignas_jax import ops

_GROUP = 16  # images whose products are added in registers


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise(
  x: jax.Array, kernel: jax.Array, stride: int, padding: ops.Padding
) -> jax.Array:
  """Convolves each channel with its own kernel.

  Args:
    x: [batch, height, width, channels].
    kernel: [k, k, 1, channels].
    stride: of both spatial axes.
    padding: `same` or `symmetric`.
  """
  return _by_platform(_taps_forward, native, stride, padding)(
    x, kernel.astype(x.dtype)
  )


def _save(x, kernel, stride, padding):
  return depthwise(x, kernel, stride, padding), (x, kernel)


def _backward(stride, padding, saved, cotangent):
  x, kernel = saved
  dx, dk = _by_platform(_taps_backward, _native_backward, stride, padding)(
    x, kernel.astype(x.dtype), cotangent
  )
  return dx, dk.astype(kernel.dtype)


depthwise.defvjp(_save, _backward)


def _by_platform(cpu, default, stride, padding):
  how = {'stride': stride, 'padding': padding}
  return functools.partial(
    lax.platform_dependent,
    cpu=functools.partial(cpu, **how),
    default=functools.partial(default, **how),
  )


def native(x, kernel, *, stride, padding):
  """XLA's grouped convolution."""
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    _around(x, kernel, stride, padding),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=x.shape[-1],
  )


def _native_backward(x, kernel, cotangent, **how):
  return jax.vjp(functools.partial(native, **how), x, kernel)[1](cotangent)


def _around(x, kernel, stride, padding):
  size = kernel.shape[0]
  return tuple(ops.pads(n, size, stride, padding) for n in x.shape[1:3])


def _taps_forward(x, kernel, *, stride, padding):
  around = _around(x, kernel, stride, padding)
  return _weighted_taps(_pad(x, around), kernel, stride)


def _pad(x, around):
  """Zeros around the image; made once, not again inside every tap's loop."""
  return lax.optimization_barrier(jnp.pad(x, ((0, 0), *around, (0, 0))))


def _weighted_taps(x, kernel, stride):
  """The sum of the shifted images, each times its tap's weights."""
  size = kernel.shape[0]
  weights = kernel.reshape(size, size, 1, 1, 1, -1)
  total = jnp.zeros((), x.dtype)
  for i, j, tap in _taps(x, size, stride):
    total = total + tap * weights[i, j]
  return total


def _taps(x, size, stride):
  """Yields (i, j, what kernel entry i, j sees) of the padded image."""
  b, height, width, c = x.shape
  rows, columns = ((n - size) // stride * stride + 1 for n in (height, width))
  for i in range(size):
    for j in range(size):
      last = (b, i + rows, j + columns, c)
      yield i, j, lax.slice(x, (0, i, j, 0), last, (1, stride, stride, 1))


def _taps_backward(x, kernel, cotangent, *, stride, padding):
  size = kernel.shape[0]
  around = _around(x, kernel, stride, padding)
  cotangent = lax.optimization_barrier(cotangent)
  # The image gradient: a convolution of the cotangent, spread out by the
  # stride, with the kernel turned around.
  spread = [
    (size - 1 - low, n - (m - 1) * stride - 1 + low, stride - 1)
    for n, m, (low, _) in zip(
      x.shape[1:3], cotangent.shape[1:3], around, strict=True
    )
  ]
  zero = jnp.zeros((), cotangent.dtype)
  spread_out = lax.optimization_barrier(
    lax.pad(cotangent, zero, ((0, 0, 0), *spread, (0, 0, 0)))
  )
  # Behind a barrier: in one loop with what follows it is not vectorised.
  dx = lax.optimization_barrier(
    _weighted_taps(spread_out, kernel[::-1, ::-1], 1)
  )
  # The kernel gradient: tap by tap, images summed in registers and then the
  # rest at once. A reduction fused with its product is not vectorised.
  products = [
    _sum_images(tap, cotangent)
    for _, _, tap in _taps(_pad(x, around), size, stride)
  ]
  dtype = jnp.promote_types(jnp.float32, x.dtype)
  summed = lax.optimization_barrier(jnp.stack(products)).sum((1, 2, 3), dtype)
  return dx, summed.reshape(size, size, 1, -1).astype(x.dtype)


def _sum_images(a, b):
  """a * b, summed over groups of images.

  In `lax`, which traces these hundreds of operations three times as fast.
  """
  groups = next(g for g in range(_GROUP, 0, -1) if a.shape[0] % g == 0)
  n = a.shape[0] // groups
  total = jnp.zeros((n, *a.shape[1:]), a.dtype)
  for start in range(0, a.shape[0], n):
    first, second = (lax.slice_in_dim(v, start, start + n) for v in (a, b))
    total = lax.add(total, lax.mul(first, second))
  return total
