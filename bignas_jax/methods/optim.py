"""Optimisers of optax, in the forms that the papers used."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal

import jax
import optax
from jaxtyping import Array, Float

from bignas_jax.values import schema

# Parameters that a run changes (`trained.only`).
Trained = Literal['all', 'batch_norms', 'last_batch_norms']


@dataclasses.dataclass(kw_only=True, slots=True)
class Optimizer:
  """The optimizer, which turns the aggregated gradient into an update.

  Attributes:
    name: `rmsprop` in TensorFlow's form, or `sgd`.
    momentum: momentum of the scaled updates.
    nesterov: whether sgd uses Nesterov momentum.
    decay: rmsprop's decay of the mean square.
    epsilon: rmsprop's epsilon inside the root, above 0.
    clip_value: bound on each gradient entry's magnitude; 0: no clipping.
    weight_decay: factor of all kernels in their gradient, once a step; that of
      `Rule` is in the loss of one child.
    trains: which parameters the updates change (`trained.only`): `all`;
      `batch_norms`; or `last_batch_norms`, of each block or operation.
  """

  name: Literal['rmsprop', 'sgd'] = 'rmsprop'
  momentum: schema.Share = 0.9
  nesterov: bool = False
  decay: schema.Share = 0.9
  epsilon: schema.AtLeastZero = 1e-3
  clip_value: schema.AtLeastZero = 0.0
  weight_decay: schema.AtLeastZero = 0.0
  trains: Trained = 'all'


def create(config: Optimizer, rate: Callable) -> optax.GradientTransformation:
  """Returns the optimizer; `rate` maps a step to a learning rate."""
  if config.name == 'rmsprop':
    update = _tf_rmsprop(config, rate)
  else:
    update = optax.sgd(rate, momentum=config.momentum, nesterov=config.nesterov)
  before = []
  if config.clip_value > 0:
    before.append(optax.clip(config.clip_value))
  if config.weight_decay > 0:
    kernels = functools.partial(jax.tree_util.tree_map_with_path, is_kernel)
    before.append(optax.add_decayed_weights(config.weight_decay, kernels))
  return optax.chain(*before, update) if before else update


def _tf_rmsprop(config: Optimizer, rate: Callable):
  """Returns TensorFlow's RMSProp, which EfficientNet's constants are for.

  The mean square starts at 1, epsilon is inside the root, and the rate is
  inside the momentum: s = d s + (1 - d) g^2; m = b m + rate g / sqrt(s + e);
  w = w - m.
  """
  return optax.chain(
    optax.scale_by_rms(
      config.decay,
      config.epsilon,
      initial_scale=1.0,
      eps_in_sqrt=True,
      bias_correction=False,
    ),
    optax.scale_by_learning_rate(rate),
    optax.trace(config.momentum),
  )


def is_kernel(path: tuple, leaf: Float[Array, '...']) -> bool:
  """Returns whether a parameter is a kernel, not a bias or batch norm's."""
  del leaf
  return path[-1].key == 'kernel'


def half_square_norm(params) -> Float[Array, ''] | float:
  """Returns half the sum of squares of all kernels: weight decay's term."""
  leaves = jax.tree_util.tree_leaves_with_path(params)
  return sum(
    0.5 * (leaf.astype('float32') ** 2).sum()
    for path, leaf in leaves
    if is_kernel(path, leaf)
  )
