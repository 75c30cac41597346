"""Folding: a child without batch norms computes what it computed with them."""

import dataclasses
import json

import jax
import networks
import numpy as np
import pytest
import reference

from bignas_jax.deploy import folding
from bignas_jax.spaces import pinning
from bignas_jax.supernet import network
from bignas_jax.values import errors, schema


def child(space, arch, dtype):
  """A child's space and random variables."""
  variables = {
    'params': networks.random_params(space),
    'batch_stats': networks.random_stats(space),
  }
  own = network.slice_child(space, variables, arch)
  return pinning.pin(space, arch), networks.cast(own, dtype)


@pytest.mark.parametrize('name', networks.LITTLE)
def test_folded_is_kept(name):
  space, dtype = networks.LITTLE[name], 'float64'
  (arch,) = networks.archs_of(space, 1, seed=3)
  with jax.enable_x64(True):
    images = networks.cast(networks.random_images(space, 18)[0], dtype)
    folded, variables = folding.fold(*child(space, arch, dtype))
    found = jax.jit(network.Supernet(folded, dtype).apply)(variables, images)
  expected, _ = reference.child(
    space,
    arch,
    networks.random_params(space),
    np.asarray(images),
    networks.random_stats(space),
  )
  networks.assert_close(found, expected, 1e-10)


@pytest.mark.parametrize('name', networks.LITTLE)
def test_nothing_of_a_batch_norm_is_left_but_its_bias(name):
  space = networks.LITTLE[name]
  (arch,) = networks.archs_of(space, 1, seed=3)
  kept = child(space, arch, 'float32')
  folded, variables = folding.fold(*kept)
  paths = jax.tree_util.tree_leaves_with_path(variables)
  for path, _ in paths:
    names = [key.key for key in path]
    assert names[-1] not in ('mean', 'var')
    if names[-1] == 'scale':  # of a batch norm that follows no convolution
      assert 'pre_bn' in names or ('head' in names and not space.head_width)
  shapes = jax.tree.map(lambda a: (a.shape, a.dtype), variables['params'])
  like = jax.tree.map(lambda a: (a.shape, a.dtype), network.shapes(folded))
  assert shapes == like
  assert folding.fold(folded, variables) == (folded, variables)


def test_only_a_single_network_can_be_folded():
  with pytest.raises(errors.UserError, match=r'bn_epsilon.*single network'):
    dataclasses.replace(networks.BIGNAS, bn_epsilon=None)


def test_a_folded_space_goes_through_json():
  (arch,) = networks.archs_of(networks.BIGNAS, 1)
  space = dataclasses.replace(
    pinning.pin(networks.BIGNAS, arch), bn_epsilon=None
  )
  fields = json.loads(json.dumps(dataclasses.asdict(space)))
  assert schema.convert(type(space), fields) == space


def test_arrays_need_not_be_jax():
  """What `child.load` reads is NumPy's."""
  (arch,) = networks.archs_of(networks.BIGNAS, 1)
  space, variables = child(networks.BIGNAS, arch, 'float32')
  plain = jax.tree.map(np.asarray, variables)
  _, folded = folding.fold(space, plain)
  assert all(type(a) is np.ndarray for a in jax.tree.leaves(folded))
