"""Depthwise convolution as one op, in the fastest formulation on each platform.

The kernel may be cut to one of several sizes at run time. TPUs have grouped
convolutions. XLA's CPU backend runs these, and their kernel gradient most of
all, tens of times slower than the k x k shifted multiply-adds that they consist
of. On CPUs all three directions are therefore sums over taps (`taps`). On
NVIDIA GPUs they are kernels of our own (`triton_depthwise`): XLA tries many of
cuDNN's kernels for each shape, which takes ten seconds for a kernel gradient,
and strides of 2 are slow in all of them.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from bignas_jax.operations import convolution, ops, slicing, taps
from bignas_jax.operations.ops import Images
from bignas_jax.operations.taps import Convolved, Kernel
from bignas_jax.system import hardware

PIXELS = (-4, -3)  # axes of a kernel's height and width


class _How(NamedTuple):
  """The static settings of a depthwise convolution."""

  sizes: tuple[int, ...]
  stride: int
  padding: ops.Padding


def depthwise(
  x: Images,
  kernel: Float[ops.AnyArray, 'size size 1 channels'],
  stride: int,
  padding: ops.Padding,
  sizes: Sequence[int] | None = None,
  index: Int[Array, ''] | int = 0,
) -> Convolved:
  """Convolves each channel with its own kernel.

  Args:
    x: images.
    kernel: kernels of the channels.
    stride: stride of both spatial axes.
    padding: `same` or `symmetric` padding.
    sizes: sizes that the kernel can be cut to; None: the whole kernel.
    index: index of the size to use; may be traced.
  """
  how = _How(tuple(sizes or kernel.shape[:1]), stride, padding)
  return _depthwise(how, x, kernel, index)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _depthwise(how: _How, x, kernel, index):
  return lax.platform_dependent(
    x,
    kernel.astype(x.dtype),
    index,
    cpu=functools.partial(_taps_forward, how),
    default=functools.partial(_native_forward, how),
    **_on_gpus(functools.partial(_triton_forward, how), x),
  )


def _save(how, x, kernel, index):
  return _depthwise(how, x, kernel, index), (x, kernel, index)


def _backward(how, saved, cotangent):
  x, kernel, index = saved
  dx, dk = lax.platform_dependent(
    x,
    kernel.astype(x.dtype),
    index,
    cotangent,
    cpu=functools.partial(_taps_backward, how),
    default=functools.partial(_native_backward, how),
    **_on_gpus(functools.partial(_triton_backward, how), x),
  )
  return dx, dk.astype(kernel.dtype), None


_depthwise.defvjp(_save, _backward)


def _on_gpus(run, x) -> dict:
  """Returns the formulation for NVIDIA GPUs, if it can be needed.

  JAX traces the formulations of all platforms that are given, which takes time.
  The kernels sum in float32, count entries in 32 bits, and need to know the
  batch size. So XLA computes with float64, with larger arrays, and with a
  symbolic batch size.
  """
  if not hardware.has_triton() or x.dtype.itemsize > 4:
    return {}
  counted = all(isinstance(length, int) for length in x.shape)
  return {'cuda': run} if counted and x.size < 2**31 else {}


def _centre(kernel: Kernel, size: int):
  shape = (size, size, *kernel.shape[2:])
  like = jax.ShapeDtypeStruct(shape, kernel.dtype)
  return slicing.shrink(kernel, like, PIXELS)


def _around(how: _How, shape, size: int):
  """Returns the pixels to add to both spatial axes for a kernel size."""
  rows, columns = (
    ops.pads(n, size, how.stride, how.padding) for n in shape[1:3]
  )
  return rows, columns


def _native_forward(how, x, kernel, index):
  branches = [functools.partial(_native_of, how, size) for size in how.sizes]
  return lax.switch(index, branches, x, kernel)


def _native_of(how, size, x, kernel):
  kernel = _centre(kernel, size)
  return native(x, kernel, stride=how.stride, padding=how.padding)


def native(
  x: Images, kernel: Kernel, *, stride: int, padding: ops.Padding
) -> Convolved:
  """Convolves each channel with XLA's grouped convolution."""
  how = _How(kernel.shape[:1], stride, padding)
  around = _around(how, x.shape, *how.sizes)
  return convolution.native(x, kernel, stride, around)


def _native_backward(how, x, kernel, index, cotangent):
  def of(size, x, kernel, cotangent):
    run = functools.partial(_native_of, how, size)
    return jax.vjp(run, x, kernel)[1](cotangent)

  branches = [functools.partial(of, size) for size in how.sizes]
  return lax.switch(index, branches, x, kernel, cotangent)


def _triton():
  """Imports the kernels where they run: Pallas takes half a second."""
  from bignas_jax.operations import triton_depthwise

  return triton_depthwise


def _triton_forward(how, x, kernel, index):
  def of(size, x, kernel):
    around = _around(how, x.shape, size)
    return _triton().convolve(x, _centre(kernel, size), how.stride, around)

  branches = [functools.partial(of, size) for size in how.sizes]
  return lax.switch(index, branches, x, kernel)


def _triton_backward(how, x, kernel, index, cotangent):
  def of(size, x, kernel, cotangent):
    around = _around(how, x.shape, size)
    own = _centre(kernel, size)
    gradient = _triton().kernel_gradient(x, cotangent, size, how.stride, around)
    return (
      _triton().image_gradient(cotangent, own, how.stride, around, x.shape),
      slicing.grow(gradient.astype(kernel.dtype), kernel, PIXELS),
    )

  branches = [functools.partial(of, size) for size in how.sizes]
  return lax.switch(index, branches, x, kernel, cotangent)


# Sums over taps. Images get zeros around them once, for the largest size and
# behind a barrier, so that no size and no tap computes its pixels again; the
# results are behind barriers too, since what follows would compute them again
# for each of its uses.


def _taps_forward(how, x, kernel, index):
  around = _around(how, x.shape, max(how.sizes))
  padded = lax.optimization_barrier(_pad(x, around))

  def of(size, padded, kernel):
    own = _crop(padded, around, _around(how, x.shape, size))
    return lax.optimization_barrier(
      taps.weighted_taps(own, _centre(kernel, size), how.stride)
    )

  branches = [functools.partial(of, size) for size in how.sizes]
  return lax.switch(index, branches, padded, kernel)


def _taps_backward(how, x, kernel, index, cotangent):
  largest = max(how.sizes)
  around = _around(how, x.shape, largest)
  spread = _spread(how, x.shape, cotangent.shape, largest)
  padded, spread_out = lax.optimization_barrier(
    (_pad(x, around), _pad(cotangent, spread, how.stride - 1))
  )

  def of(size, padded, spread_out, kernel):
    # The image gradient: a convolution of the cotangent, spread out by the
    # stride, with the kernel turned around.
    wanted = _spread(how, x.shape, cotangent.shape, size)
    own = _crop(spread_out, spread, wanted)
    kernel_gradient = taps.kernel_gradient(
      _crop(padded, around, _around(how, x.shape, size)),
      _unpad(spread_out, spread, how.stride),
      size,
      how.stride,
    )
    turned = _centre(kernel, size)[::-1, ::-1]
    return (
      lax.optimization_barrier(taps.weighted_taps(own, turned, 1)),
      slicing.grow(kernel_gradient, kernel, PIXELS),
    )

  branches = [functools.partial(of, size) for size in how.sizes]
  return lax.switch(index, branches, padded, spread_out, kernel)


def _spread(how: _How, shape, out_shape, size: int):
  """Returns the padding with which the image gradient is a convolution."""
  around = _around(how, shape, size)
  return convolution.spread(
    shape[1:3], out_shape[1:3], (size, size), how.stride, around
  )


def _pad(x, around, between: int = 0):
  rows, columns = ((*edges, between) for edges in around)
  none = (0, 0, 0)
  return lax.pad(x, jnp.zeros((), x.dtype), (none, rows, columns, none))


def _crop(padded, around, wanted):
  """Cuts a padded array so that only the `wanted` zeros are around it."""
  (top, bottom), (left, right) = (
    (a - c, b - d) for (a, b), (c, d) in zip(around, wanted, strict=True)
  )
  _, height, width, _ = padded.shape
  return padded[:, top : height - bottom, left : width - right]


def _unpad(spread_out, spread, stride: int):
  """Returns the cotangent that was padded and spread out."""
  return _crop(spread_out, spread, ((0, 0), (0, 0)))[:, ::stride, ::stride]
