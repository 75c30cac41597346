"""Array math against plain formulations of it, in value and in gradient."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jax import lax

from bignas_jax.methods import losses
from bignas_jax.operations import depthwise, ops, slicing
from bignas_jax.operations.pointwise import pointwise
from bignas_jax.supernet import batch_norm as batch_norm_lib
from bignas_jax.system import mesh as mesh_lib

PADDINGS = ('same', 'symmetric')


def normal(*shape, seed=0) -> Any:
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_close(actual, expected, tolerance=1e-5):
  """Equal up to a fraction of the largest entry, leaf by leaf."""
  actual, expected = jax.tree.leaves(actual), jax.tree.leaves(expected)
  for a, b in zip(actual, expected, strict=True):
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    assert abs(a - b).max() <= tolerance * max(abs(b).max(), 1e-6)


# Odd and even sizes; batches that the groups of the kernel gradient divide,
# and a prime one that they do not.
@pytest.mark.parametrize('padding', PADDINGS)
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('size', [3, 5, 7])
def test_depthwise_on_cpu_is_the_grouped_convolution(size, stride, padding):
  shape = {3: (17, 9, 8, 4), 5: (32, 7, 9, 3), 7: (6, 8, 7, 5)}[size]
  x, kernel = normal(*shape), normal(size, size, 1, shape[-1], seed=1)
  how = {'stride': stride, 'padding': padding}

  @jax.jit
  def both(x, kernel, cotangent):
    y, vjp = jax.vjp(
      lambda x, k: depthwise.depthwise(x, k, stride, padding), x, kernel
    )
    native = functools.partial(depthwise.native, **how)
    expected, native_vjp = jax.vjp(native, x, kernel)
    return (y, *vjp(cotangent)), (expected, *native_vjp(cotangent))

  out = [-(-n // stride) for n in shape[1:3]]
  assert_close(*both(x, kernel, normal(shape[0], *out, shape[-1], seed=2)))


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('padding', PADDINGS)
def test_a_size_chosen_as_it_runs_is_the_kernels_centre(stride, padding):
  x, kernel = normal(4, 7, 6, 3), normal(5, 5, 1, 3, seed=1)

  @jax.jit
  def ours(x, kernel, index, cotangent):
    run = lambda x, k: depthwise.depthwise(  # noqa: E731
      x, k, stride, padding, (3, 5), index
    )
    y, vjp = jax.vjp(run, x, kernel)
    return y, vjp(cotangent)

  def plain(edge, x, kernel):
    centre = kernel[edge : 5 - edge, edge : 5 - edge]
    return depthwise.native(x, centre, stride=stride, padding=padding)

  for index, edge in enumerate((1, 0)):
    y, vjp = jax.vjp(functools.partial(plain, edge), x, kernel)
    cotangent = normal(*y.shape, seed=2)
    found = ours(x, kernel, jnp.int32(index), cotangent)
    assert_close(found, (y, vjp(cotangent)))


def test_native_depthwise_by_hand():
  x = jnp.asarray(normal(1, 5, 6, 2))
  kernel = jnp.asarray(normal(3, 3, 1, 2, seed=1))
  y = np.asarray(depthwise.native(x, kernel, stride=2, padding='symmetric'))
  # The second row and third column of the output see rows 1..3, columns 3..5.
  window = x[0, 1:4, 3:6]
  np.testing.assert_allclose(
    y[0, 1, 2], (window * kernel[:, :, 0]).sum((0, 1)), rtol=1e-5
  )
  y = np.asarray(depthwise.native(x, kernel, stride=2, padding='same'))
  # 6 columns need one pixel of padding only, on the right: from column 4 on.
  window = x[0, 1:4, 4:6]
  np.testing.assert_allclose(
    y[0, 1, 2], (window * kernel[:, :2, 0]).sum((0, 1)), rtol=1e-5
  )


def test_depthwise_keeps_the_dtype():
  x = jnp.zeros((2, 4, 4, 3), jnp.bfloat16)
  kernel = jnp.zeros((3, 3, 1, 3))

  def loss(x, kernel):
    y = depthwise.depthwise(x, kernel, 1, 'same')
    return jnp.sum(y, dtype='float32')

  y = jax.eval_shape(lambda: depthwise.depthwise(x, kernel, 1, 'same'))
  assert y.dtype == jnp.bfloat16
  dx, dk = jax.eval_shape(lambda: jax.grad(loss, (0, 1))(x, kernel))
  assert (dx.dtype, dk.dtype) == (jnp.bfloat16, jnp.float32)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('kernel_size', [1, 3, 5, 7])
def test_same_padding_is_tensorflows(kernel_size, stride):
  for size in range(1, 40):
    expected = lax.padtype_to_pads([size], [kernel_size], [stride], 'SAME')
    assert [ops.pads(size, kernel_size, stride, 'same')] == expected


@pytest.mark.parametrize('padding', PADDINGS)
def test_both_paddings_give_sizes_rounded_up(padding):
  for size in range(1, 40):
    for kernel_size in (1, 3, 5, 7):
      for stride in (1, 2):
        around = ops.pads(size, kernel_size, stride, padding)
        out = (size + sum(around) - kernel_size) // stride + 1
        assert out == -(-size // stride)
  assert ops.pads(8, 3, 2, 'symmetric') == (1, 1)
  assert ops.pads(8, 3, 2, 'same') == (0, 1)
  assert ops.pads(8, 5, 2, 'same') == (1, 2)


@pytest.mark.parametrize('padding', PADDINGS)
def test_a_centre_crop_sees_the_same_centre(padding):
  """A 5x5 kernel whose border is 0 is its 3x3 centre: at stride 2 as well."""
  x, small = map(jnp.asarray, (normal(2, 8, 8, 3), normal(3, 3, 1, 3, seed=1)))
  big = jnp.pad(small, [(1, 1), (1, 1), (0, 0), (0, 0)])
  for stride in (1, 2):
    how = {'stride': stride, 'padding': padding}
    assert_close(
      depthwise.native(x, big, **how), depthwise.native(x, small, **how)
    )


@pytest.mark.parametrize('size', [(4, 6), (5, 6), (6, 5), (7, 7), (1, 1)])
def test_average_pool(size):
  """Every output is the mean of the pixels that there are; so with grad."""
  x = normal(2, *size, 3)
  y, vjp = jax.jit(lambda x: jax.vjp(ops.average_pool, x))(x)
  assert y.shape == (2, -(-size[0] // 2), -(-size[1] // 2), 3)
  cotangent = normal(*y.shape, seed=1)
  grad = np.zeros_like(x)
  for i in range(y.shape[1]):
    for j in range(y.shape[2]):
      window = np.s_[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
      seen = x[window]
      np.testing.assert_allclose(y[:, i, j], seen.mean((1, 2)), rtol=1e-5)
      pixels = seen.shape[1] * seen.shape[2]
      grad[window] += cotangent[:, i : i + 1, j : j + 1] / pixels
  np.testing.assert_allclose(vjp(cotangent)[0], grad, rtol=1e-5)


def test_resize():
  images = jnp.asarray(normal(2, 12, 12, 3))
  assert ops.resize(images, 12) is images
  flat = jnp.full((1, 12, 12, 3), 0.7)
  for resolution in (8, 12, 18):
    resized = ops.resize(flat, resolution)
    assert resized.shape == (1, resolution, resolution, 3)
    np.testing.assert_allclose(resized, 0.7, rtol=1e-5)


def test_resize_is_antialiased():
  """A fine checkerboard becomes grey, not an aliased checkerboard."""
  board = jnp.asarray(np.indices((32, 32)).sum(0) % 2, jnp.float32)
  small = ops.resize(board[None, :, :, None], 12)
  assert abs(np.asarray(small)[0, 2:-2, 2:-2] - 0.5).max() < 0.1


@pytest.mark.parametrize('width', [3, 6])
@pytest.mark.parametrize(
  ('activation', 'gate'), [('swish', 'sigmoid'), ('relu', 'hard_sigmoid')]
)
def test_squeeze_excite_masks_its_hidden_units(activation, gate, width):
  """At a traced width it is the layer cut to that width."""
  x = normal(2, 4, 5, 8)
  params: Any = {
    'reduce': {'kernel': normal(8, 6, seed=1), 'bias': normal(6, seed=2)},
    'expand': {'kernel': normal(6, 8, seed=3), 'bias': normal(8, seed=4)},
  }
  found = jax.jit(
    lambda x, width: ops.squeeze_excite(
      x, ops.spatial_mean(x), params, width, activation, gate
    )
  )(x, width)
  squeezed = x.mean((1, 2)) @ params['reduce']['kernel']
  squeezed = (squeezed + params['reduce']['bias'])[:, :width]
  if activation == 'swish':
    squeezed = squeezed / (1 + np.exp(-squeezed))
  else:
    squeezed = np.maximum(squeezed, 0)
  scale = squeezed @ params['expand']['kernel'][:width]
  scale = scale + params['expand']['bias']
  if gate == 'sigmoid':
    scale = 1 / (1 + np.exp(-scale))
  else:
    scale = np.clip(scale + 3, 0, 6) / 6
  assert_close(found, x * scale[:, None, None])


def test_mask_and_resize_channels():
  x = jnp.asarray(normal(2, 3, 6))
  for width in range(7):
    masked = np.asarray(jax.jit(ops.mask)(x, jnp.int32(width)))
    np.testing.assert_array_equal(masked[..., :width], x[..., :width])
    assert not masked[..., width:].any()
  assert ops.mask(x, 6) is x
  np.testing.assert_array_equal(ops.resize_channels(x, 4), x[..., :4])
  wide = np.asarray(ops.resize_channels(x, 8))
  np.testing.assert_array_equal(wide[..., :6], x)
  assert wide.shape == (2, 3, 8)
  assert not wide[..., 6:].any()


def test_mask_stops_what_is_not_a_number():
  """Zeros are chosen, not multiplied; the gradient too."""
  x = np.array([1.0, np.inf, np.nan], np.float32)
  y, vjp = jax.vjp(lambda x: ops.mask(x, jnp.int32(1)), x)
  np.testing.assert_array_equal(y, [1, 0, 0])
  np.testing.assert_array_equal(vjp(jnp.full(3, 2.0))[0], [2, 0, 0])


def test_pick():
  assert ops.pick([8, 8, 8], jnp.int32(1)) == 8
  assert isinstance(ops.pick([8, 8, 8], jnp.int32(1)), int)
  assert [int(ops.pick([8, 16], jnp.int32(i))) for i in (0, 1)] == [8, 16]


SMALL = {
  'depthwise': {'kernel': (3, 3, 1, 4)},
  'project': {'kernel': (4, 2)},
  'rest': {'depthwise': {'kernel': (2, 3, 3, 1, 4)}, 'bn': {'bias': (2, 4)}},
  'whole': {'bias': (5,)},
}
BIG = {
  'depthwise': {'kernel': (7, 7, 1, 6)},
  'project': {'kernel': (6, 3)},
  'rest': {'depthwise': {'kernel': (3, 5, 5, 1, 6)}, 'bn': {'bias': (3, 6)}},
  'whole': {'bias': (5,)},
}


CENTRED = {
  'depthwise': {'kernel': (0, 1)},
  'rest': {'depthwise': {'kernel': (-4, -3)}},
}


def trees(shapes, seed=0):
  return jax.tree.map(
    lambda shape: normal(*shape, seed=seed),
    shapes,
    is_leaf=lambda node: isinstance(node, tuple),
  )


def inner(one, other):
  products = jax.tree.map(lambda a, b: (a * b).sum(), one, other)
  return float(sum(jax.tree.leaves(products)))


def test_shrink_and_grow_are_transposes():
  big, small = trees(BIG), trees(SMALL, seed=1)
  assert inner(slicing.shrink(big, small, CENTRED), small) == pytest.approx(
    inner(big, slicing.grow(small, big, CENTRED)), rel=1e-5
  )
  grown = slicing.grow(small, big, CENTRED)
  back = slicing.shrink(grown, small, CENTRED)
  jax.tree.map(np.testing.assert_array_equal, back, small)
  # The gradient of one is the other: zeros around the slice.
  _, vjp = jax.vjp(lambda tree: slicing.shrink(tree, small, CENTRED), big)
  jax.tree.map(np.testing.assert_array_equal, vjp(small)[0], grown)


def test_shrink_takes_leading_channels_first_blocks_and_centres():
  big = trees(BIG)
  cut = slicing.shrink(big, trees(SMALL), CENTRED)
  expected = {
    'depthwise': {'kernel': big['depthwise']['kernel'][2:5, 2:5, :, :4]},
    'project': {'kernel': big['project']['kernel'][:4, :2]},
    'rest': {
      'depthwise': {
        'kernel': big['rest']['depthwise']['kernel'][:2, 1:4, 1:4, :, :4]
      },
      'bn': {'bias': big['rest']['bn']['bias'][:2, :4]},
    },
    'whole': big['whole'],
  }
  jax.tree.map(np.testing.assert_array_equal, cut, expected)


def test_slices_may_leave_entries_out():
  big, small = trees(BIG), trees(SMALL, seed=1)
  del small['project']
  assert set(slicing.shrink(big, small)) == set(small)
  grown = slicing.grow(small, big)
  assert set(grown) == set(big)
  assert not np.asarray(grown['project']['kernel']).any()


@pytest.mark.parametrize('left_out', [[], ['project']])
def test_adding_to_a_slice_is_adding_what_grew(left_out):
  big = jax.tree.map(jnp.asarray, trees(BIG))
  small = trees(SMALL, seed=1)
  for name in left_out:
    del small[name]
  grown = slicing.grow(small, big, CENTRED)
  expected = jax.tree.map(jnp.add, big, grown)
  added = slicing.add(big, small, CENTRED)
  jax.tree.map(np.testing.assert_array_equal, added, expected)


# Batch norm.

EPSILON = 0.01


def batch_norm(x, params, pooling=batch_norm_lib.Pooling(), stats=None):  # noqa: B008
  y, moments = batch_norm_lib.batch_norm(x, params, stats, EPSILON, pooling)
  whole = lambda m: batch_norm_lib.whole_batch(m, pooling)  # noqa: E731
  return y, jax.tree.map(whole, moments)


def norm_case(batch=8):
  """Images that differ from one another in mean and in deviation."""
  x = normal(batch, 3, 2, 4) * (1 + np.arange(batch))[:, None, None, None]
  x = jnp.asarray(x + normal(batch, 1, 1, 4, seed=1), jnp.float32)
  params = {'scale': normal(4, seed=2), 'bias': normal(4, seed=3)}
  return x, params, jnp.asarray(normal(*x.shape, seed=4))


def plain_norm(x, params):
  x = np.asarray(x, np.float64)
  mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
  return (x - mean) / np.sqrt(var + EPSILON) * params['scale'] + params['bias']


def test_batch_norm_is_over_all_images():
  x, params, _ = norm_case()
  y, moments = batch_norm(x, params)
  assert_close(y, plain_norm(x, params))
  assert_close(moments['mean'], x.mean((0, 1, 2)))
  assert_close(moments['square'], (x * x).mean((0, 1, 2)))


@pytest.mark.parametrize('group', [1, 2, 4, 8])
def test_groups_of_images_share_statistics(group):
  x, params, _ = norm_case()
  y, moments = batch_norm(x, params, batch_norm_lib.Pooling(group_size=group))
  expected = [
    plain_norm(x[i : i + group], params) for i in range(0, len(x), group)
  ]
  assert_close(y, np.concatenate(expected))
  # What is reported is of the whole batch, however it was normalised.
  assert_close(moments['mean'], x.mean((0, 1, 2)))
  assert_close(moments['square'], (x * x).mean((0, 1, 2)))


@pytest.mark.parametrize('activation', [None, *ops.SLOPES])
@pytest.mark.parametrize('group', [None, 2])
def test_the_gradient_passes_through_the_statistics(activation, group):
  """Against JAX's own of the formula; cached moments change nothing."""
  x, params, cotangent = norm_case()
  pooling, active = batch_norm_lib.Pooling(group_size=group), jnp.arange(4) < 3

  def plain(x, params):
    parts = x.reshape(-1, group or 8, *x.shape[1:])
    axes = (1, 2, 3)
    unit = (parts - parts.mean(axes, keepdims=True)) * jax.lax.rsqrt(
      parts.var(axes, keepdims=True) + EPSILON
    )
    y = unit.reshape(x.shape) * params['scale'] + params['bias']
    activated = ops.ACTIVATIONS.get(activation, lambda y: y)(y)
    return jnp.where(active, activated, 0)

  def ours(cached, x, params):
    return batch_norm_lib.batch_norm(
      x,
      params,
      None,
      EPSILON,
      pooling,
      activation=activation,
      width=jnp.int32(3),
      cached=cached,
    )

  y, vjp = jax.vjp(plain, x, params)
  expected = y, vjp(cotangent)
  for cached in (None, batch_norm_lib._moments(x, pooling)):
    run = functools.partial(ours, cached)
    y, vjp, moments = jax.vjp(run, x, params, has_aux=True)
    assert_close((y, vjp(cotangent)), expected)
    assert moments['mean'].shape == (8 // (group or 8), 4)


@pytest.mark.parametrize('group', [None, 2])
def test_moments_past_the_active_width_are_zero(group):
  x, params, _ = norm_case()
  pooling = batch_norm_lib.Pooling(group_size=group)
  run = functools.partial(
    batch_norm_lib.batch_norm, x, params, None, EPSILON, pooling
  )
  y, moments = run(width=jnp.int32(3))
  whole, every = run()
  for ours, all_of_them in (
    (y, whole),
    *zip(moments.values(), every.values(), strict=True),
  ):
    assert not ours[..., 3:].any()
    assert_close(ours[..., :3], all_of_them[..., :3])


def test_given_statistics_are_used():
  x, params, _ = norm_case()
  stats = {'mean': normal(4, seed=5), 'var': normal(4, seed=6) ** 2}
  y, moments = batch_norm(x, params, stats=stats)
  expected = (x - stats['mean']) / np.sqrt(stats['var'] + EPSILON)
  assert_close(y, expected * params['scale'] + params['bias'])
  assert not any(np.asarray(leaf).any() for leaf in moments.values())


# Of 8 images on 4 devices: half a device's, a device's, two devices', all.
@pytest.mark.parametrize('group', [1, 2, 4, 8, None])
def test_statistics_over_devices_are_those_of_one(group):
  x, params, cotangent = norm_case()
  layout = mesh_lib.Layout(axes=('outer', 'inner'), sizes=(2, -1))
  mesh = mesh_lib.create(jax.devices()[:4], layout)
  split, whole = mesh_lib.split(mesh), mesh_lib.REPLICATED

  def run(pooling, x, params, cotangent):
    y, vjp, moments = jax.vjp(
      lambda x, params: batch_norm(x, params, pooling),
      x,
      params,
      has_aux=True,
    )
    dx, dparams = vjp(cotangent)
    return y, dx, dparams, moments

  def on_each(x, params, cotangent):
    pooling = batch_norm_lib.Pooling(mesh.axis_names, group)
    y, dx, dparams, moments = run(pooling, x, params, cotangent)
    return y, dx, lax.psum(dparams, mesh.axis_names), moments

  mapped = mesh_lib.per_device(
    mesh, (split, whole, split), (split, split, whole, whole)
  )(on_each)
  expected = run(batch_norm_lib.Pooling(group_size=group), x, params, cotangent)
  assert_close(jax.jit(mapped)(x, params, cotangent), expected)


def test_batch_norm_in_bfloat16_has_float32_statistics():
  x, params, _ = norm_case()
  x = jnp.asarray(x, jnp.bfloat16)
  y, moments = batch_norm(x, params)
  assert y.dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in moments.values()} == {jnp.dtype('float32')}
  assert_close(moments['mean'], np.asarray(x, np.float32).mean((0, 1, 2)))


# Dropout.


def test_dropout_is_a_function_of_each_images_key():
  x = jnp.abs(normal(6, 400)) + 0.1
  keys = jax.random.split(jax.random.key(0), 6)
  drop = jax.jit(lambda x, keys: ops.dropout(x, 0.25, keys))
  y = np.asarray(drop(x, keys))
  np.testing.assert_array_equal(drop(x, keys), y)
  kept = y != 0
  np.testing.assert_allclose(y[kept], x[kept] / 0.75, rtol=1e-6)
  assert abs(kept.mean() - 0.75) < 0.05
  # Another order of the images, or fewer of them, loses the same entries.
  order = np.array([3, 1, 5])
  fewer = ops.dropout(x[order], 0.25, keys[order])
  np.testing.assert_array_equal(np.asarray(fewer) != 0, kept[order])
  # Images with other keys lose other entries.
  assert len({row.tobytes() for row in kept}) == 6


def test_normalise():
  pixels = np.array([[0, 255], [51, 102]], np.uint8)
  found = ops.normalise(jnp.asarray(pixels), (0.5, 0.2), (0.25, 0.1))
  expected = [[-2, 8], [-1.2, 2]]
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  assert found.dtype == jnp.float32


# Shapes in signatures.


def test_a_wrong_shape_is_refused():
  """By what checks signatures while tests run."""
  x, kernel = jnp.zeros((2, 4, 4, 3)), np.zeros((3, 5), np.float32)
  assert pointwise(x, kernel).shape == (2, 4, 4, 5)
  with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'kernel'"):
    pointwise(x, kernel.T)
  with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'labels'"):
    losses.cross_entropy(jnp.zeros((2, 3)), jnp.zeros(4, jnp.int32))


@pytest.mark.parametrize('how', ['antialiased', 'pytorch', 'bilinear'])
@pytest.mark.parametrize('resolution', [9, 24, 31])
def test_resizing_is_a_matrix_along_each_axis(how, resolution):
  images = jnp.asarray(normal(2, 24, 24, 3))
  matrix = ops.resize_matrix(24, resolution, how)
  np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)
  expected = np.einsum('bhwc,yh,xw->byxc', images, matrix, matrix)
  assert_close(ops.resize(images, resolution, how), expected)


PYTORCH_ROWS = {
  'pytorch': [0.13725, 3.457002, 12.125, 26.360985, 45.892754],
  'bilinear': [0.3, 3.7, 12.5, 26.1, 45.1],
}


def test_resizing_as_pytorch():
  """Numbers of torch.nn.functional.interpolate, of size 5 from 8."""
  ramp = jnp.arange(8.0) ** 2
  image = jnp.broadcast_to(ramp[None, None, :, None], (1, 8, 8, 1))
  for how, row in PYTORCH_ROWS.items():
    found = ops.resize(image, 5, how)[0, 2, :, 0]
    np.testing.assert_allclose(found, row, rtol=1e-5)
