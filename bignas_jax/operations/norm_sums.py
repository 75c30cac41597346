"""The sums over pixels that a batch norm and its gradient need."""

from collections.abc import Callable

from jax import lax
from jaxtyping import Array, Float

from bignas_jax.operations import ops
from bignas_jax.operations.ops import Images
from bignas_jax.system import hardware

Sums = Float[Array, 'groups channels']


def sums(x: Images, groups: int) -> Float[Array, '{groups} channels']:
  """Returns each group's sums over all axes but the last."""
  return x.reshape(groups, -1, x.shape[-1]).sum(1)


def of_gradient(
  x: Images,
  cotangent: Images,
  dy: Images,
  params: dict[str, Float[ops.AnyArray, 'channels']],
  mean: Sums,
  inverse: Sums,
  activation: str | None,
) -> tuple[Sums, Sums]:
  """Returns each group's sums of dy, and of dy * x.

  Args:
    x: images before the norm.
    cotangent: cotangent of the activation's output.
    dy: cotangent of what the activation takes.
    params: `scale` and `bias` of the norm.
    mean: means of x.
    inverse: one over the deviations of x.
    activation: name of the activation; None: none.
  """
  groups = len(inverse)

  def plain(x, cotangent, dy, params, mean, inverse):
    del cotangent, params, mean, inverse
    # As dy * x, not as dy * unit: XLA's CPU backend sums such products in one
    # pass.
    return sums(dy, groups), sums(dy * x.astype(dy.dtype), groups)

  given = x, cotangent, dy, params, mean, inverse
  on_gpus = _on_gpus(x, activation, groups)
  if not on_gpus:
    return plain(*given)
  return lax.platform_dependent(*given, default=plain, **on_gpus)


def _on_gpus(
  x: Images, activation: str | None, groups: int
) -> dict[str, Callable]:
  """Returns the formulation for NVIDIA GPUs, if there is another one.

  XLA does not compute swish's slope within a sum, but that of others.
  """

  def kernel(x, cotangent, dy, params, mean, inverse):
    # Imported where it runs: Pallas takes half a second.
    from bignas_jax.operations import triton_norm

    del dy  # the kernel computes it
    pixels = (array.reshape(-1, x.shape[-1]) for array in (x, cotangent))
    factor = params['scale'] * inverse[0]
    shift = params['bias'] - mean[0] * factor
    slope = ops.SLOPES['swish']
    both = triton_norm.gradient_sums(*pixels, factor, shift, slope)
    return both[:1], both[1:]

  here = activation == 'swish' and groups == 1 and x.dtype.itemsize <= 4
  return {'cuda': kernel} if here and hardware.has_triton() else {}
