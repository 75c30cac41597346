"""Indicators read what they say of the parameters."""

import networks
import numpy as np
import pytest

from bignas_jax.selection import indicators
from bignas_jax.strategies import additive
from bignas_jax.supernet import network
from bignas_jax.values import errors


def test_the_sum_of_shares_is_that_of_the_childs_own_scales():
  space = networks.ONE_OF
  params = networks.random_params(space)
  shares = indicators.batch_norm_scales(space, params)
  for arch in networks.archs_of(space, 20):
    # Shares of absent blocks are those of doing nothing.
    own = network.slice_child(space, {'params': params}, arch)['params']
    total = 0.0
    for name, stage in own.items():
      if name.startswith('stage'):
        for part in stage.values():
          if 'project_bn' in part:
            scale = np.abs(part['project_bn']['scale'])
            total += scale.reshape(-1, scale.shape[-1]).mean(-1).sum()
    # The second stage may have fewer channels than its operations.
    if arch.width[2] == max(space.stages[1].width):
      found = additive.predict(space, shares, arch)
      np.testing.assert_allclose(found, total, rtol=1e-6)


def test_a_space_of_shared_weights_has_none():
  with pytest.raises(errors.UserError, match='parameters of their own'):
    indicators.batch_norm_scales(networks.BIGNAS, {})
