"""A child package of a space with choices for each block."""

import json

import jax
import networks
import numpy as np
import pytest
from etils import epath

from bignas_jax.deploy import package
from bignas_jax.spaces import pinning
from bignas_jax.values import errors


@pytest.fixture
def child():
  """One whose blocks of a stage differ, so that each is a stage of its own."""
  for seed in range(20):
    one = networks.random_child(networks.OFA, seed)
    if len(one.space.stages) > len(networks.OFA.stages):
      return one
  raise AssertionError('all blocks are equal')


def test_a_child_is_loaded_as_it_was_saved(child, tmp_path):
  """With the architecture in its supernet's space, and in its own."""
  package.save(epath.Path(tmp_path / 'child'), child)
  loaded = package.load(epath.Path(tmp_path / 'child'))
  assert (loaded.arch, loaded.space) == (child.arch, child.space)
  jax.tree.map(np.testing.assert_array_equal, loaded.variables, child.variables)
  assert pinning.pin(loaded.space, loaded.own_arch) == loaded.space
  assert len(loaded.own_arch.depth) > len(loaded.arch.depth)


@pytest.mark.parametrize(
  ('field', 'value'), [('resolution', 20), ('depth', [1, 1, 1])]
)
def test_another_architecture_is_refused(child, tmp_path, field, value):
  directory = epath.Path(tmp_path / 'child')
  package.save(directory, child)
  info = json.loads((directory / 'child.json').read_text())
  info['arch'][field] = value
  (directory / 'child.json').write_text(json.dumps(info))
  with pytest.raises(errors.UserError, match=r'child\.json: arch'):
    package.load(directory)
