"""1x1 convolution as one op, in the fastest formulation on each platform.

It is a product of matrices with all pixels in one axis: XLA's CPU backend is
four times slower if more than one axis is contracted, as in the kernel gradient
of a convolution. TPUs pad the last axes of an array, so that images are copied
when their pixels become one axis. There it is a convolution, which takes images
as they are (docs/performance.md).
"""

import functools
from collections.abc import Callable

import jax
from jax import lax
from jaxtyping import Array, Float

from bignas_jax.operations import convolution, ops


def pointwise(
  x: Float[Array, '*others in'], kernel: Float[ops.AnyArray, 'in out']
) -> Float[Array, '*others out']:
  """Returns the 1x1 convolution of x, images or features, with a kernel."""
  kernel = kernel.astype(x.dtype)
  return _product(x, kernel) if x.ndim < 4 else _pointwise(x, kernel)


@jax.custom_vjp
def _pointwise(x, kernel):
  return lax.platform_dependent(x, kernel, tpu=_convolution, default=_product)


def _save(x, kernel):
  return _pointwise(x, kernel), (x, kernel)


def _backward(saved, cotangent):
  return lax.platform_dependent(
    *(*saved, cotangent),
    tpu=functools.partial(_gradient, _convolution),
    default=functools.partial(_gradient, _product),
  )


_pointwise.defvjp(_save, _backward)


def _gradient(formulation: Callable, x, kernel, cotangent):
  return jax.vjp(formulation, x, kernel)[1](cotangent)


def _product(x, kernel):
  flat = x.reshape(-1, x.shape[-1]) @ kernel
  return flat.reshape(*x.shape[:-1], kernel.shape[-1])


def _convolution(x, kernel):
  return convolution.native(x, kernel[None, None], 1, ((0, 0), (0, 0)))
