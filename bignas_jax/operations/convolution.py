"""Dense and grouped convolution as one op, with gradients for each platform.

The gradients of a convolution are convolutions with axes exchanged. XLA's CPU
backend has a fast kernel for NHWC images and HWIO kernels alone, and brings
others into this form only outside loops: inside, where the blocks of a supernet
are, it computes a gradient hundreds of times more slowly. So on CPUs gradients
are written in this form (docs/performance.md).
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from bignas_jax.operations import ops
from bignas_jax.operations.ops import Around, Images

Kernel = Float[ops.AnyArray, 'high wide inner out']
Convolved = Float[Array, 'batch rows columns out']


def conv(
  x: Images,
  kernel: Float[ops.AnyArray, 'size size inner out'],
  stride: int,
  padding: ops.Padding,
) -> Convolved:
  """Returns the convolution of x with a kernel, as `convolve` does."""
  rows, columns = (
    ops.pads(x.shape[a + 1], kernel.shape[a], stride, padding) for a in (0, 1)
  )
  return convolve(x, kernel, stride, (rows, columns))


def convolve(
  x: Images, kernel: Kernel, stride: int, around: Around
) -> Convolved:
  """Returns the convolution of x with a kernel, with zeros around x.

  Channels are convolved in groups as small as the kernel's input.
  """
  return _convolve(stride, around, x, jnp.asarray(kernel, x.dtype))


def native(x: Images, kernel: Kernel, stride: int, around: Around) -> Convolved:
  """Returns what `convolve` returns; its gradients are those of JAX."""
  return _native(x, kernel, (stride, stride), around)


def _native(x, kernel, strides, around, **dilations):
  return lax.conv_general_dilated(
    x,
    kernel,
    strides,
    around,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=x.shape[-1] // kernel.shape[2],
    **dilations,
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _convolve(stride: int, around: Around, x, kernel):
  return native(x, kernel, stride, around)


def _save(stride, around, x, kernel):
  return _convolve(stride, around, x, kernel), (x, kernel)


def _backward(stride, around, saved, cotangent):
  how = stride, around
  return lax.platform_dependent(
    *(*saved, cotangent),
    cpu=functools.partial(_gradients, *how),
    default=functools.partial(_native_gradients, *how),
  )


_convolve.defvjp(_save, _backward)


def _native_gradients(stride, around, x, kernel, cotangent):
  def run(x, kernel):
    return native(x, kernel, stride, around)

  return jax.vjp(run, x, kernel)[1](cotangent)


def _gradients(stride, around, x, kernel, cotangent):
  """Returns the gradients of x and of the kernel, group by group."""
  groups = x.shape[-1] // kernel.shape[2]
  arrays = x, kernel, cotangent
  split = zip(*(jnp.split(one, groups, -1) for one in arrays), strict=True)
  both = [
    (
      _image_gradient(stride, around, one.shape, own, out),
      _kernel_gradient(stride, around, one, own.shape, out),
    )
    for one, own, out in split
  ]
  return tuple(jnp.concatenate(each, -1) for each in zip(*both, strict=True))


def spread(
  sides: Sequence[int],
  out_sides: Sequence[int],
  sizes: Sequence[int],
  stride: int,
  around: Around,
) -> Around:
  """Returns the padding with which an image gradient is a convolution.

  It is that of the cotangent, spread out by the stride, with a turned kernel.

  Args:
    sides: height and width of the images.
    out_sides: height and width of what the forward pass returned.
    sizes: height and width of the kernel.
    stride: stride of the forward pass.
    around: padding of the forward pass.
  """
  rows, columns = (
    (size - 1 - low, n - (m - 1) * stride - 1 + low)
    for n, m, size, (low, _) in zip(
      sides, out_sides, sizes, around, strict=True
    )
  )
  return rows, columns


def _image_gradient(stride, around, shape, kernel, cotangent):
  """Convolves the cotangent, spread out by the stride, with a turned kernel."""
  sides = shape[1:3], cotangent.shape[1:3], kernel.shape[:2]
  turned = kernel[::-1, ::-1].swapaxes(2, 3)
  return _native(
    cotangent,
    turned,
    (1, 1),
    spread(*sides, stride, around),
    lhs_dilation=(stride, stride),
  )


def _kernel_gradient(stride, around, x, shape, cotangent):
  """Convolves images with the cotangent, channels and images exchanged."""
  cut = [
    (low, size + (m - 1) * stride - n - low)
    for n, m, size, (low, _) in zip(
      *(x.shape[1:3], cotangent.shape[1:3], shape[:2], around), strict=True
    )
  ]
  gradient = _native(
    x.transpose(3, 1, 2, 0),
    cotangent.transpose(1, 2, 0, 3),
    (1, 1),
    cut,
    rhs_dilation=(stride, stride),
  )
  return gradient.transpose(1, 2, 0, 3)
