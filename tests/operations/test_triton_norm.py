"""The sums of a batch norm's gradient, interpreted on the CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bignas_jax.operations import ops, triton_norm
from bignas_jax.supernet import batch_norm
from bignas_jax.system import hardware


@pytest.mark.parametrize(('pixels', 'channels'), [(64, 8), (77, 19)])
def test_sums_are_those_of_arrays(pixels, channels):
  rng = np.random.default_rng(0)
  x, cotangent = rng.standard_normal((2, pixels, channels), np.float32)
  factor, shift = rng.standard_normal((2, channels), np.float32)
  slope = ops.SLOPES['swish']
  tile = triton_norm.Tile(8, 16)
  sums = triton_norm.gradient_sums(
    *(x, cotangent, factor, shift, slope), tile=tile, interpret=True
  )
  product = cotangent * slope(x * factor + shift)
  right = jnp.stack([product.sum(0), (product * x).sum(0)])
  np.testing.assert_allclose(sums, right, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
  ('activation', 'dtype', 'group_size', 'kernels'),
  [
    ('swish', 'bfloat16', None, 1),
    ('swish', 'float32', None, 1),
    ('swish', 'bfloat16', 2, 0),
    ('relu6', 'bfloat16', None, 0),
    (None, 'bfloat16', None, 0),
  ],
)
def test_on_gpus_the_sums_of_swish_are_a_kernel(
  monkeypatch, activation, dtype, group_size, kernels
):
  monkeypatch.setattr(hardware, 'has_triton', lambda: True)
  pooling = batch_norm.Pooling(group_size=group_size)

  def gradients(x, params):
    def norm(x, params):
      return batch_norm.batch_norm(
        x, params, None, 1e-3, pooling, activation=activation
      )[0]

    y, vjp = jax.vjp(norm, x, params)
    return vjp(y)

  x = jax.ShapeDtypeStruct((4, 8, 8, 24), dtype)
  channel = jax.ShapeDtypeStruct((24,), 'float32')
  traced = jax.jit(gradients).trace(x, {'scale': channel, 'bias': channel})
  text = traced.lower(lowering_platforms=('cuda',)).as_text()
  assert text.count('stablehlo.custom_call @__gpu$xla.gpu.triton') == kernels
