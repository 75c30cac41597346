"""A run changes the parameters that it trains, and no bit of the others."""

import jax
import jax.numpy as jnp
import networks
import numpy as np
import optax
import pytest

from bignas_jax.methods import trained
from bignas_jax.values import errors


@pytest.mark.parametrize(
  ('which', 'space', 'norms'),
  [
    ('batch_norms', networks.RESIDUAL, None),
    ('batch_norms', networks.ONE_OF, None),
    ('last_batch_norms', networks.ONE_OF, {'project_bn'}),
    ('last_batch_norms', networks.BIGNAS, {'project_bn'}),
  ],
)
def test_only_what_is_trained_changes(which, space, norms):
  params = jax.tree.map(jnp.asarray, networks.random_params(space))
  params |= {'teachers': {'of_a_mean': jnp.ones(3)}}
  optimizer = trained.only(which, optax.sgd(0.1, momentum=0.9), space)
  state, now = optimizer.init(params), params
  for _ in range(2):
    ones = jax.tree.map(jnp.ones_like, params)
    updates, state = optimizer.update(ones, state, now)
    now = optax.apply_updates(now, updates)

  assert not np.array_equal(*_leaf(now, params, 'teachers', 'of_a_mean'))
  del now['teachers'], params['teachers']
  for path, old in jax.tree_util.tree_leaves_with_path(params):
    keys = [key.key for key in path]
    parent = keys[-2]
    wanted = parent in norms if norms else parent.endswith('bn')
    new, _ = _leaf(now, params, *keys)
    assert np.array_equal(new, old) != wanted, keys


def _leaf(some, others, *keys):
  for key in keys:
    some, others = some[key], others[key]
  return some, others


def test_the_last_of_parallel_batch_norms_is_refused():
  with pytest.raises(errors.UserError, match=r'optimizer\.trains.*parallel'):
    trained.only('last_batch_norms', optax.sgd(0.1), networks.PARALLEL)
