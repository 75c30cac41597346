"""1x1 convolutions: every platform's formulation is the same function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bignas_jax.operations import pointwise as pointwise_lib
from bignas_jax.operations.pointwise import pointwise


@pytest.mark.parametrize('shape', [(2, 5, 3, 4), (1, 1, 1, 4), (7, 4)])
def test_formulations_agree_in_value_and_gradient(shape):
  rng = np.random.default_rng(0)
  with jax.enable_x64(True):
    x, kernel = (jnp.asarray(rng.normal(size=s)) for s in (shape, (4, 6)))
    dy = jnp.asarray(rng.normal(size=(*shape[:-1], 6)))
    expected = jnp.einsum('...i,io->...o', x, kernel)
    forms = [pointwise, pointwise_lib._product]
    forms += [pointwise_lib._convolution] * (len(shape) == 4)
    for form in forms:
      y, back = jax.vjp(form, x, kernel)
      np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
      dx, dkernel = back(dy)
      np.testing.assert_allclose(
        dx, jnp.einsum('...o,io->...i', dy, kernel), rtol=1e-12, atol=1e-12
      )
      np.testing.assert_allclose(
        dkernel,
        jnp.einsum('...i,...o->io', x, dy),
        rtol=1e-12,
        atol=1e-12,
      )


def test_each_platform_gets_its_own():
  x, kernel = jnp.zeros((2, 5, 3, 4)), jnp.zeros((4, 6))
  program = jax.jit(jax.grad(lambda *a: pointwise(*a).sum(), (0, 1)))
  for platform, convolves in ('cpu', False), ('cuda', False), ('tpu', True):
    traced = program.trace(x, kernel)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ('stablehlo.convolution' in text) == convolves
    assert ('stablehlo.dot_general' in text) != convolves


def test_the_kernel_takes_the_dtype_of_images():
  x, kernel = jnp.ones((1, 2, 2, 3), jnp.bfloat16), jnp.ones((3, 2))
  y, back = jax.vjp(pointwise, x, kernel)
  dx, dkernel = back(y)
  assert (y.dtype, dx.dtype, dkernel.dtype) == (
    jnp.bfloat16,
    jnp.bfloat16,
    jnp.float32,
  )
