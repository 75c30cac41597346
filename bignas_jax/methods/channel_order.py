"""The order of hidden channels: the most important first.

A child takes the first hidden channels of a block. Sorting them by importance
before children of small expand ratios are trained keeps the channels that
matter (Once-for-All, ICLR 2020, section 3.3). The biggest child computes what
it computed before.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bignas_jax.spaces.space import Space

Tree = dict[str, Any]

# Axes of a block's arrays that are its hidden channels. All else has none.
_HIDDEN = {
  'expand': {'kernel': -1},
  'expand_bn': {'scale': -1, 'bias': -1},
  'depthwise': {'kernel': -1},
  'depthwise_bn': {'scale': -1, 'bias': -1},
  'se': {
    'reduce': {'kernel': -2},
    'expand': {'kernel': -1, 'bias': -1},
  },
  'project': {'kernel': -2},
}


def importance(
  project: Float[Array, '*blocks hidden out'],
) -> Float[Array, '*blocks hidden']:
  """Returns the L1 norm of each hidden channel's projection."""
  return jnp.abs(project).sum(-1)


def orders(space: Space, params: Tree) -> Tree:
  """Returns each block's hidden channels by importance, as positions.

  Blocks without an expanding convolution are left out: their hidden channels
  are the channels of their input.

  Args:
    space: space of inverted bottlenecks.
    params: parameters of its supernet.

  Returns:
    Positions [*blocks, hidden], nested by stage and block.
  """
  return {
    f'stage{i + 1}': {
      which: jnp.argsort(
        -importance(block['project']['kernel']), axis=-1, stable=True
      )
      for which, block in params[f'stage{i + 1}'].items()
    }
    for i, stage in enumerate(space.stages)
    if stage.block == 'mbconv' and stage.has_expand
  }


def sort(orders: Tree, params: Tree) -> Tree:
  """Returns parameters, or a tree like them, with hidden channels in an order.

  Args:
    orders: result of `orders`.
    params: parameters, or an optimiser's averages of them.
  """
  sorted_stages = {
    stage: {
      which: _sorted(_HIDDEN, order, params[stage][which])
      for which, order in blocks.items()
    }
    for stage, blocks in orders.items()
  }
  return {**params, **sorted_stages}


def sort_all(orders: Tree, tree: Any) -> Any:
  """Returns any tree with all that is like parameters in an order."""

  def is_like_params(node: Any) -> bool:
    return isinstance(node, dict) and {*orders} <= {*node}

  return jax.tree.map(
    lambda node: sort(orders, node) if is_like_params(node) else node,
    tree,
    is_leaf=is_like_params,
  )


def _sorted(axes: Any, order: Int[Array, '*blocks hidden'], tree: Any) -> Any:
  if isinstance(tree, dict):
    return {
      name: _sorted(axes[name], order, inner) if name in axes else inner
      for name, inner in tree.items()
    }
  shape = [*order.shape[:-1], *[1] * (tree.ndim - order.ndim + 1)]
  shape[axes] = order.shape[-1]
  return jnp.take_along_axis(tree, order.reshape(shape), axis=axes)
