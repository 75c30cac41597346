"""Depthwise convolutions on CPUs, as sums over the taps of a kernel.

XLA fuses and vectorises such sums (docs/performance.md).
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from bignas_jax.operations.ops import Images

_TERMS = 8  # products that are added in registers
_CACHE = 2**21  # bytes of a core's cache
_FEW_PIXELS = 256

Kernel = Float[Array, 'size size 1 channels']
Convolved = Float[Array, 'batch rows columns channels']


def weighted_taps(x: Images, kernel: Kernel, stride: int) -> Convolved:
  """Returns the sum over taps of shifted images times the tap's weights."""
  size = kernel.shape[0]
  weights = kernel.reshape(size, size, 1, 1, 1, -1)
  batch, height, width, channels = x.shape
  rows, columns = ((n - size) // stride + 1 for n in (height, width))
  shape = (batch, rows, columns, channels)
  total = jnp.zeros((), x.dtype)
  for i, j in np.ndindex(size, size):
    total = total + _at(x, (0, i, j), shape, stride) * weights[i, j]
  return total


def _at(x, start, shape, stride: int = 1):
  """Returns every `stride`-th pixel from `start` (image, row, column) on."""
  steps = (1, stride, stride, 1)
  starts = (*start, 0)
  ends = [
    s + (n - 1) * step + 1
    for s, n, step in zip(starts, shape, steps, strict=True)
  ]
  return lax.slice(x, starts, ends, steps)


def kernel_gradient(
  x: Images, cotangent: Convolved, size: int, stride: int
) -> Float[Array, '{size} {size} 1 channels']:
  """Returns the kernel gradient by a loop over a few images at a time.

  The few images stay in the cache for all taps.

  Args:
    x: padded images.
    cotangent: cotangent of the output.
    size: size of the kernel.
    stride: stride of the convolution.
  """
  images, channels = len(x), x.shape[-1]
  image_bytes = (x.nbytes + cotangent.nbytes) // images
  some = _divisor(images, max(1, _CACHE // image_bytes))
  dtype = jnp.promote_types(jnp.float32, x.dtype)

  # All taps written out take up to six times as long to compile as one row of
  # them. They run faster only where there are few pixels (docs/performance.md).
  pixels = some * math.prod(cotangent.shape[1:3])
  rows = 1 if size > 5 or pixels >= _FEW_PIXELS else size
  height = (cotangent.shape[1] - 1) * stride + rows  # of what these taps read

  def add(total, start):
    windows = lax.dynamic_slice_in_dim(x, start, some)
    own = lax.dynamic_slice_in_dim(cotangent, start, some)

    def of_rows(first):
      read = lax.dynamic_slice_in_dim(windows, first, height, axis=1)
      return _tap_sums(read, own, (rows, size), stride, dtype)

    sums = lax.map(of_rows, jnp.arange(0, size, rows))
    return total + sums.reshape(size, size, channels), None

  zeros = jnp.zeros((size, size, channels), dtype)
  total, _ = lax.scan(add, zeros, jnp.arange(0, images, some))
  return total.reshape(size, size, 1, channels).astype(x.dtype)


def _tap_sums(
  x: Images, cotangent: Convolved, taps: tuple[int, int], stride: int, dtype
) -> Float[Array, 'taps channels']:
  """Returns the sum over all pixels of each tap's products.

  Several pieces (images, and bands of their rows) are summed in registers, and
  the rest in one reduction, because a reduction that XLA fuses with its product
  is not vectorised. The code uses `lax`, which traces these many operations
  three times as fast.

  Args:
    x: the rows of padded images that the taps read.
    cotangent: cotangent of the output.
    taps: number of rows and columns of taps.
    stride: stride of the convolution.
    dtype: dtype of the sums.
  """
  images, rows, *rest = cotangent.shape
  groups = _divisor(images, _TERMS)
  bands = _divisor(rows, _TERMS // groups)
  shape = (images // groups, rows // bands, *rest)
  bands = [
    (image, row)
    for image in range(0, images, shape[0])
    for row in range(0, rows, shape[1])
  ]
  sums = []
  for i, j in np.ndindex(taps):
    total = jnp.zeros(shape, x.dtype)
    for image, row in bands:
      windows = _at(x, (image, i + row * stride, j), shape, stride)
      product = lax.mul(windows, _at(cotangent, (image, row, 0), shape))
      total = lax.add(total, product)
    sums.append(lax.optimization_barrier(total).sum((0, 1, 2), dtype))
  return jnp.stack(sums)


def _divisor(n: int, most: int) -> int:
  return next(d for d in range(most, 0, -1) if n % d == 0)
