"""What a child derives from a supernet's parameters before they are cut."""

import jax
import networks
import numpy as np

from bignas_jax.methods import channel_order
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning
from bignas_jax.supernet import derived, network


def initial(space):
  return jax.jit(lambda key: network.init(space, key))(jax.random.key(0))


def test_identity_matrices_give_the_centre_of_the_biggest_kernel():
  """At the start, every kernel is what it is without matrices."""
  space, plain = networks.OFA, derived.plain(networks.OFA)
  params = initial(space)
  assert 'transform' in params['stage2']['rest']
  for arch in networks.archs_of(space, 3):
    own = network.slice_child(space, {'params': params}, arch)
    bare = network.resolve(
      space, params, arch_lib.encode(space, arch_lib.biggest(space))
    )
    cut = network.slice_child(plain, {'params': bare}, arch)
    jax.tree.map(np.testing.assert_array_equal, own, cut)


def test_members_start_as_centres_of_one_kernel_and_all_but_one_as_0():
  """All else is what it is in a space without either feature."""
  space, plain = networks.SHARED, networks.PARALLEL
  indices = arch_lib.encode(space, arch_lib.biggest(space))
  params, usual = initial(space), initial(plain)['stage1']
  assert 'square' not in params['stage1']['first']
  rest = network.resolve(space, params, indices)['stage1']['rest']
  square = np.asarray(rest['square']['kernel'])
  np.testing.assert_array_equal(square, usual['rest']['square']['kernel'])
  np.testing.assert_array_equal(rest['row']['kernel'], square[:, 1:2])
  np.testing.assert_array_equal(rest['column']['kernel'], square[:, :, 1:2])
  inner = square[:, 1:2, 1:2]
  np.testing.assert_array_equal(rest['point_average_in']['kernel'], inner)
  kernels = (
    layer['point_square_in']['kernel'] for layer in (rest, usual['rest'])
  )
  np.testing.assert_array_equal(*kernels)
  first_steps = 'square_bn', 'point_square_in_bn', 'point_average_in_bn'
  for name, norm in rest.items():
    if name.endswith('_bn'):
      assert (np.asarray(norm['scale']) == float(name in first_steps)).all()
  child = pinning.pin(space, arch_lib.biggest(space))
  assert not any(s.shared_kernel or s.zero_start for s in child.stages)


def test_a_pinned_child_has_nothing_of_the_supernet():
  for space in (networks.OFA, networks.MOBILE):
    (arch,) = networks.archs_of(space, 1)
    pinned = pinning.pin(space, arch)
    assert derived.is_plain(pinned) and not derived.is_plain(space)
    params = networks.random_params(space)
    own = network.slice_child(space, {'params': params}, arch)['params']
    shapes = jax.tree.map(np.shape, own)
    like = jax.tree.map(lambda leaf: leaf.shape, network.shapes(pinned))
    assert shapes == like


def test_a_width_has_no_gradient_in_the_norms_of_another():
  """Slimmable networks: each width's batch norms are its own."""
  space = networks.MOBILE
  params = jax.tree.map(np.float32, networks.random_params(space))
  images = np.float32(networks.random_images(space, 18)[0])
  net = network.Supernet(derived.plain(space))

  def loss(params, indices):
    own = network.resolve(space, params, indices)
    return (net.apply({'params': own}, images, indices) ** 2).sum()

  gradient = jax.jit(jax.grad(loss))
  for arch in arch_lib.every(space):
    indices = arch_lib.encode(space, arch)
    scale = gradient(params, indices)['stage2']['first']['project_bn']['scale']
    trained = np.flatnonzero(np.any(np.asarray(scale), axis=1))
    np.testing.assert_array_equal(trained, [indices.bank])


def test_sorted_channels_leave_the_biggest_child_as_it_was():
  """Once-for-All: the sum over hidden channels has another order only."""
  space, big = networks.OFA, arch_lib.biggest(networks.OFA)
  images = networks.random_images(space, 18)[0]
  net = network.Supernet(pinning.pin(space, big), 'float64')
  with jax.enable_x64(True):
    params = networks.cast(networks.random_params(space), 'float64')
    orders = channel_order.orders(space, params)
    assert set(orders) == {'stage2', 'stage3'}
    sorted_params = channel_order.sort(orders, params)
    before, after = (
      jax.jit(net.apply)(network.slice_child(space, {'params': p}, big), images)
      for p in (params, sorted_params)
    )
    networks.assert_close(after, before, 1e-12)
    project = sorted_params['stage2']['rest']['project']['kernel']
    norms = np.asarray(channel_order.importance(project))
    assert (np.diff(norms, axis=-1) <= 0).all()
    # An optimiser's averages of parameters are sorted with them.
    both = channel_order.sort_all(orders, (params, {'count': 3}))
    jax.tree.map(np.testing.assert_array_equal, both[0], sorted_params)
