"""Drop-connect: a block's result that single images lose, against its words."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import networks
import numpy as np
import tiny

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning, zoo
from bignas_jax.supernet import network
from bignas_jax.supernet.drop_connect import DropRates

# Two blocks; only the second has its unchanged input as shortcut.
STAGE = dataclasses.replace(tiny.LOOP.stages[0], expand_ratio=(1,))
SPACE = dataclasses.replace(tiny.LOOP, stages=(STAGE,))
RATES = DropRates(most=0.8)  # 0.4 for the second block of two


def rates_of(space, arch, drop):
  """The rate of each block of a child; None: it is never dropped."""
  depth = jnp.asarray(arch_lib.encode(space, arch).depth)
  keys, rates = jax.random.split(jax.random.key(0), 2), []
  for i, blocks in enumerate(arch.depth):
    first, others = drop.of_stage(space, i, depth, keys)
    if first is None:
      rates += [None] * blocks
    else:
      rates += [float(first.rate), *map(float, others.rate[: blocks - 1])]
  return rates


def test_rates_grow_with_the_share_of_blocks_before():
  space = zoo.ATTENTIVE_NAS
  biggest, smallest = arch_lib.biggest(space), arch_lib.smallest(space)
  found = rates_of(space, biggest, DropRates(0.2))
  np.testing.assert_allclose(found, [0.2 * i / 37 for i in range(37)], 1e-6)
  last = rates_of(space, biggest, DropRates(0.2, stages=2))
  assert last == [None] * 27 + found[27:]
  found, blocks = rates_of(space, smallest, DropRates(0.2)), sum(smallest.depth)
  wanted = [0.2 * i / blocks for i in range(blocks)]
  np.testing.assert_allclose(found, wanted, 1e-6)
  assert set(rates_of(space, biggest, DropRates())) == {None}


def test_an_image_loses_a_block_or_has_it_scaled():
  """In the supernet as in the child alone, and in their gradients."""
  whole = dataclasses.replace(arch_lib.biggest(SPACE), resolution=8)
  short = dataclasses.replace(whole, depth=(1,))
  params = networks.cast(networks.random_params(SPACE), 'float32')
  images = networks.random_images(SPACE, 8, 24)[0].astype(np.float32)
  keys = jax.random.split(jax.random.key(3), 24)
  indices = arch_lib.encode(SPACE, whole)

  def alone(params, arch, **dropped):
    own = pinning.pin(SPACE, arch)
    variables = network.slice_child(SPACE, {'params': params}, arch)
    stats = jax.tree.map(
      lambda a: jnp.ones(a.shape, a.dtype), network.stats_shapes(own)
    )
    net = network.Supernet(own, recompute=False)
    return net.apply({**variables, 'batch_stats': stats}, images, **dropped)

  def elastic(params, **dropped):
    stats = jax.tree.map(
      lambda a: jnp.ones(a.shape, a.dtype), network.stats_shapes(SPACE)
    )
    variables = {'params': params, 'batch_stats': stats}
    return network.Supernet(SPACE).apply(variables, images, indices, **dropped)

  def graded(logits):
    def loss(params, keys):
      y = logits(params, dropout_keys=keys, drop_rates=RATES)
      return jnp.square(y).sum(), y

    return jax.jit(jax.grad(loss, has_aux=True))

  gradient, found = graded(elastic)(params, keys)
  own = graded(lambda params, **dropped: alone(params, whole, **dropped))
  own_gradient, own_found = own(params, keys)
  np.testing.assert_allclose(found, own_found, rtol=1e-4, atol=1e-4)
  chex.assert_trees_all_close(gradient, own_gradient, rtol=1e-3, atol=1e-3)

  scaled = jax.tree.map(lambda a: a, params)
  last = scaled['stage1']['rest']['project_bn']
  scaled['stage1']['rest']['project_bn'] = {k: v / 0.6 for k, v in last.items()}
  kept, lost = jax.jit(lambda p, q: (alone(p, whole), alone(q, short)))(
    scaled, params
  )
  off = [abs(np.asarray(found) - np.asarray(y)).max(1) for y in (kept, lost)]
  assert np.minimum(*off).max() < 1e-3 < np.maximum(*off).min()
  drops = off[1] < off[0]
  assert 3 < drops.sum() < 17
  # It follows from the image's key alone.
  order = np.arange(24)[::-1]
  _, again = own(params, keys[order])
  loses = abs(np.asarray(again) - np.asarray(kept)).max(1) > 1e-3
  np.testing.assert_array_equal(loses, drops[order])
