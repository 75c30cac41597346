"""Gates of parallel members, for policies that learn from their gradients.

A child's layer is the sum of its members, each times 0 or 1. A gate is a 0 that
is added to this number, so that the number has a gradient, also where it is 0.
Gates are parameters of a child's program alone: they are in no checkpoint.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from bignas_jax.spaces.parallel import MEMBERS
from bignas_jax.spaces.space import Space

Tree = Any

_NAME = 'gates'


def added(space: Space, params: Tree) -> Tree:
  """Returns parameters, or sums of their gradients, with a 0 for each gate."""
  out = dict(params)
  for name, depth in _stages(space).items():
    shapes = {'first': (len(MEMBERS),), 'rest': (depth - 1, len(MEMBERS))}
    out[name] = {
      which: own | {_NAME: jnp.zeros(shapes[which])}
      for which, own in params[name].items()
    }
  return out


def removed(
  space: Space, sums: Tree
) -> tuple[Tree, Float[Array, 'blocks members']]:
  """Returns sums of gradients without those of gates, and these.

  They have a row for each entry of `Arch.parallel`, and a column for each of
  `MEMBERS`: 0 for what a layer has not.

  Args:
    space: space with choices per block.
    sums: what `added` returned, with the gradient of one child added to it.
  """
  out, stages, rows = dict(sums), _stages(space), []
  for i, stage in enumerate(space.stages):
    name = f'stage{i + 1}'
    if name not in stages:
      rows.append(jnp.zeros((max(stage.depth), len(MEMBERS))))
      continue
    rows += [
      own[_NAME].reshape(-1, len(MEMBERS)) for own in sums[name].values()
    ]
    out[name] = {
      which: {key: own[key] for key in own if key != _NAME}
      for which, own in sums[name].items()
    }
  return out, jnp.concatenate(rows)


def _stages(space: Space) -> dict[str, int]:
  """Returns the most layers of each stage that has members."""
  return {
    f'stage{i + 1}': max(stage.depth)
    for i, stage in enumerate(space.stages)
    if stage.parallel
  }
