"""Parallel members and the one convolution that they are folded into."""

import types

import hypothesis
import jax
import networks
import numpy as np
import pytest
import reference
from hypothesis import strategies as st

from bignas_jax.costs import counting
from bignas_jax.deploy import fold_parallel, folding, graph
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import parallel, pinning
from bignas_jax.supernet import network

EPSILON = 1e-3


def numbers(mask, sizes, seed=0):
  """Random parameters and statistics of members, as far from 0 and 1."""
  rng = np.random.default_rng(seed)
  params, stats = {}, {}
  size, width_in, width_out, groups = sizes
  for step in parallel.steps(mask):
    point = step.name.endswith('_in') or step.name == 'point'
    width = width_in
    if step.name in ('point_average', 'identity'):
      width = width_out
    out = width_in if step.name == 'point_square_in' else width_out
    if step.learnt:
      rows = 1 if point or step.name == 'row' else size
      columns = 1 if point or step.name == 'column' else size
      shape = rows, columns, width // groups, out
      params[step.name] = {'kernel': rng.normal(size=shape)}
    scale, bias, mean = rng.normal(size=(3, out))
    var = rng.uniform(0.3, 2, out)
    params[f'{step.name}_bn'] = {'scale': scale, 'bias': bias}
    stats[f'{step.name}_bn'] = {'mean': mean, 'var': var}
  return params, stats


def both(mask, sizes, stride, padding, pixels=(7, 6), dtype=np.float64):
  """The members' sum, and the result of the folded convolution."""
  params, stats = numbers(mask, sizes)
  shape = 2, *pixels, sizes.width_in
  x = np.random.default_rng(1).normal(size=shape)
  space = types.SimpleNamespace(padding=padding, bn_epsilon=EPSILON)
  expected, _ = reference.members(
    space,
    params,
    stats,
    x,
    mask=mask,
    size=sizes.kernel_size,
    stride=stride,
    groups=sizes.groups,
  )
  kernel, bias = fold_parallel.layer(params, stats, mask, sizes, EPSILON)
  # By the members' own reference: one K x K convolution, and a norm of bias.
  found = 0
  inputs = np.split(x.astype(dtype), sizes.groups, -1)
  kernels = np.split(kernel.astype(dtype), sizes.groups, -1)
  parts = [
    reference.convolve(own, k, stride, padding)
    for own, k in zip(inputs, kernels, strict=True)
  ]
  found = np.concatenate(parts, -1) + bias.astype(dtype)
  return found, expected


@pytest.mark.parametrize('name', [*parallel.MEMBERS])
def test_each_member_is_a_convolution(name):
  mask = parallel.mask(name)
  for groups, padding in ((1, 'same'), (2, 'symmetric')):
    sizes = fold_parallel.Layer(3, 4, 4, groups)
    found, expected = both(mask, sizes, 1, padding)
    networks.assert_close(found, expected, 1e-12)


@hypothesis.given(
  mask=st.integers(1, parallel.ALL),
  size=st.sampled_from([3, 5]),
  groups=st.sampled_from([1, 2]),
  widths=st.tuples(st.sampled_from([2, 4, 6]), st.sampled_from([2, 4, 6])),
  stride=st.sampled_from([1, 2]),
  padding=st.sampled_from(['same', 'symmetric']),
  pixels=st.tuples(st.integers(3, 8), st.integers(3, 8)),
)
def test_any_sum_is_one_convolution(
  mask, size, groups, widths, stride, padding, pixels
):
  same = stride == 1 and widths[0] == widths[1]
  allowed = parallel.allowed((mask,), same_shape=same)
  hypothesis.assume(allowed)
  sizes = fold_parallel.Layer(size, *widths, groups)
  found, expected = both(*allowed, sizes, stride, padding, pixels)
  networks.assert_close(found, expected, 1e-12)


def test_folded_in_float32():
  sizes = fold_parallel.Layer(3, 8, 8, 2)
  found, expected = both(
    parallel.ALL, sizes, 1, 'same', pixels=(9, 9), dtype=np.float32
  )
  assert found.dtype == np.float32
  networks.assert_close(found, expected, 2e-6)


def test_the_border_needs_the_bias():
  """Zeros around the first step's result are another computation."""
  sizes, mask = fold_parallel.Layer(3, 4, 4), parallel.mask('point_square')
  params, stats = numbers(mask, sizes)
  params['point_square_in_bn']['bias'] += 5
  kernel, bias = fold_parallel.layer(params, stats, mask, sizes, EPSILON)
  params['point_square_in_bn']['bias'] -= 5
  other, moved = fold_parallel.layer(params, stats, mask, sizes, EPSILON)
  assert (kernel == other).all()
  assert (bias != moved).all()


def test_masks_and_names():
  every = [*parallel.MEMBERS]
  assert parallel.members(parallel.ALL) == every
  assert parallel.mask(*every) == parallel.ALL
  assert parallel.subsets('square', 'row') == (1, 4, 5)
  assert len(parallel.subsets(*every)) == parallel.ALL
  assert parallel.allowed((1, 64, 65), same_shape=False) == (1,)
  assert parallel.allowed((64,), same_shape=False) == ()


@pytest.mark.parametrize('space', [networks.PARALLEL, networks.SHARED])
def test_the_whole_network(space):
  """Elastic parameters, cut and folded; equal to the members' sums."""
  params, stats = networks.random_params(space), networks.random_stats(space)
  shares = 'shared' in params['stage1']['rest']
  assert shares == (space is networks.SHARED)
  images, _ = networks.random_images(space, 18)
  variables = {'params': params, 'batch_stats': stats}
  for arch in networks.archs_of(space, 3, seed=2):
    own = network.slice_child(space, variables, arch)
    folded, plain = folding.fold(pinning.pin(space, arch), own)
    expected, _ = reference.child(space, arch, params, images, stats)
    found = graph.logits(NumPy(), folded, plain['params'], images)
    networks.assert_close(found, expected, 1e-12)
    like = jax.tree.map(lambda a: a.shape, network.shapes(folded))
    assert jax.tree.map(np.shape, plain['params']) == like
    assert not any(stage.parallel for stage in folded.stages)
    assert counting.cost(folded, arch_lib.biggest(folded)) == counting.cost(
      space, arch
    )


class NumPy:
  """The operations of such a network, in float64."""

  def conv(self, x, kernel, bias, stride, padding, groups=1):
    inputs, kernels = (np.split(a, groups, -1) for a in (x, kernel))
    parts = [
      reference.convolve(own, k, stride, padding)
      for own, k in zip(inputs, kernels, strict=True)
    ]
    return np.concatenate(parts, -1) + bias

  def dense(self, x, kernel, bias):
    return x @ kernel + bias

  def activate(self, x, name):
    return reference.ACTIVATIONS[name](x)

  max_pool = staticmethod(reference.max_pool)

  def mean(self, x):
    return x.mean((1, 2))
