"""Gradients of convolutions on CPUs are those of JAX, in a fast form."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from bignas_jax.operations import convolution, ops

EDGES = st.tuples(st.integers(0, 3), st.integers(0, 3))


@settings(max_examples=20)
@given(
  size=st.tuples(st.integers(5, 8), st.integers(5, 8)),
  kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
  channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
  groups=st.integers(1, 3),
  stride=st.integers(1, 3),
  around=st.tuples(EDGES, EDGES),
)
def test_gradients_are_those_of_jax(
  size, kernel, channels, groups, stride, around
):
  inner, out = channels
  keys = jax.random.split(jax.random.key(0), 3)
  with jax.enable_x64():
    x = jax.random.normal(keys[0], (2, *size, inner * groups), 'float64')
    shape = (*kernel, inner, out * groups)
    k = jax.random.normal(keys[1], shape, 'float64')
    outputs, gradients = [], []
    for run in convolution.convolve, convolution.native:
      y, back = jax.vjp(lambda x, k, run=run: run(x, k, stride, around), x, k)
      outputs.append(y)
      gradients.append(back(jax.random.normal(keys[2], y.shape, 'float64')))
  chex.assert_trees_all_equal(*outputs)
  chex.assert_trees_all_close(*gradients, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize('run', [convolution.convolve, convolution.native])
def test_gradients_have_the_form_that_cpus_are_fast_in_also_in_loops(run):
  def gradients(x, kernel, number):
    def add(_, sums):
      def loss(x, kernel):
        return run(x, kernel, 2, ((1, 1), (1, 1))).sum()

      own = jax.grad(loss, (0, 1))(x + sums[0], kernel + sums[1])
      return jax.tree.map(jnp.add, sums, own)

    return lax.fori_loop(0, number, add, (0 * x, 0 * kernel))

  x, kernel = jnp.ones((2, 8, 8, 8)), jnp.ones((3, 3, 8, 4))
  text = jax.jit(gradients).lower(x, kernel, 2).compile().as_text()
  forms = {*re.findall(r' convolution\(.*dim_labels=([^, ]*)', text)}
  fast = forms == {'b01f_01io->b01f'}
  assert forms and fast == (run is convolution.convolve)


def test_a_kernel_keeps_its_dtype_and_its_gradient_too():
  x = jnp.ones((1, 4, 4, 2), jnp.bfloat16)
  kernel = jnp.ones((3, 3, 2, 2))

  def total(kernel):
    return convolution.conv(x, kernel, 1, 'same').astype('float32').sum()

  assert convolution.conv(x, kernel, 1, 'same').dtype == jnp.bfloat16
  assert jax.grad(total)(kernel).dtype == jnp.float32


@pytest.mark.parametrize('padding', ['same', 'symmetric'])
@pytest.mark.parametrize('size', [(6, 6), (7, 5)])
def test_convolution_sums_products_of_each_window(size, padding):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, *size, 3)).astype('float32')
  kernel = rng.normal(size=(3, 3, 3, 4)).astype('float32')
  y = convolution.conv(jnp.asarray(x), kernel, 2, padding)
  low = [ops.pads(n, 3, 2, padding)[0] for n in size]
  wide = np.pad(x, [(0, 0), (3, 3), (3, 3), (0, 0)])
  for i in range(y.shape[1]):
    for j in range(y.shape[2]):
      top, left = 2 * i - low[0] + 3, 2 * j - low[1] + 3
      window = wide[:, top : top + 3, left : left + 3]
      expected = np.einsum('bijc,ijcd->bd', window, kernel)
      np.testing.assert_allclose(y[:, i, j], expected, rtol=1e-4, atol=1e-5)
