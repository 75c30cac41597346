"""Triton's depthwise convolutions, interpreted on the CPU, against XLA's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bignas_jax.operations import depthwise, ops, triton_depthwise, triton_tiles
from bignas_jax.system import hardware

TILE = triton_tiles.Tile(2, 3, groups=4, channels=8)


@pytest.mark.parametrize(
  ('size', 'channels', 'kernel_size', 'stride', 'padding', 'tile'),
  [
    (5, 3, 3, 1, 'same', TILE),
    (4, 9, 3, 2, 'same', TILE),
    (7, 8, 5, 2, 'symmetric', TILE),
    (9, 33, 3, 1, 'same', None),
    (6, 5, 5, 2, 'same', None),
  ],
)
def test_convolution_and_gradients_are_those_of_xla(
  size, channels, kernel_size, stride, padding, tile
):
  rng = np.random.default_rng(0)
  x = rng.standard_normal((2, size, size + 1, channels), np.float32)
  shape = kernel_size, kernel_size, 1, channels
  kernel = rng.standard_normal(shape, np.float32)
  around = tuple(
    ops.pads(n, kernel_size, stride, padding) for n in x.shape[1:3]
  )

  def native(x, kernel):
    return depthwise.native(x, kernel, stride=stride, padding=padding)

  y, vjp = jax.vjp(native, jnp.asarray(x), jnp.asarray(kernel))
  cotangent = jnp.asarray(rng.standard_normal(y.shape, np.float32))
  how = {'tile': tile, 'interpret': True}
  results = (
    triton_depthwise.convolve(x, kernel, stride, around, **how),
    triton_depthwise.image_gradient(
      cotangent, kernel, stride, around, x.shape, **how
    ),
    triton_depthwise.kernel_gradient(
      x, cotangent, kernel_size, stride, around, **how
    ),
  )
  for ours, right in zip(results, (y, *vjp(cotangent)), strict=True):
    np.testing.assert_allclose(ours, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  ('width', 'columns'), [(28, 7), (24, 6), (12, 6), (3, 4)]
)
def test_patches_waste_few_columns(width, columns):
  assert triton_tiles.of_outputs(5, width, 1).columns == columns


@pytest.mark.parametrize('stride', [1, 2])
def test_on_gpus_all_directions_are_triton_kernels(monkeypatch, stride):
  monkeypatch.setattr(hardware, 'has_triton', lambda: True)

  def gradients(x, kernel):
    y, vjp = jax.vjp(
      lambda x, kernel: depthwise.depthwise(x, kernel, stride, 'same'),
      x,
      kernel,
    )
    return vjp(y)

  x = jax.ShapeDtypeStruct((2, 8, 8, 24), jnp.bfloat16)
  kernel = jax.ShapeDtypeStruct((3, 3, 1, 24), jnp.float32)
  lowered = jax.jit(gradients).trace(x, kernel)
  text = lowered.lower(lowering_platforms=('cuda',)).as_text()
  assert text.count('stablehlo.custom_call @__gpu$xla.gpu.triton') == 3
  assert 'stablehlo.convolution' not in text


@pytest.mark.parametrize('shape', [(2, 8, 8, 24), (2**14, 112, 112, 96)])
def test_arrays_of_more_entries_do_without_kernels(monkeypatch, shape):
  monkeypatch.setattr(hardware, 'has_triton', lambda: True)
  x = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
  kernel = jax.ShapeDtypeStruct((3, 3, 1, shape[-1]), jnp.bfloat16)
  run = functools.partial(depthwise.depthwise, stride=1, padding='same')
  lowered = jax.jit(run).trace(x, kernel).lower(lowering_platforms=('cuda',))
  assert ('xla.gpu.triton' in lowered.as_text()) == (shape[0] == 2)
