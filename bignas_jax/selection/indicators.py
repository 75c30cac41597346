"""What parameters say of a network without any image."""

from typing import Any

import numpy as np

from bignas_jax.spaces import block_kinds, decisions
from bignas_jax.spaces.space import Space
from bignas_jax.values import errors


def batch_norm_scales(
  space: Space, params: dict[str, Any]
) -> list[dict[int, float]]:
  """Returns the mean size of each operation's last batch norm scale.

  BN-NAS (ICCV 2021), equation 4. An operation without convolutions has 0, and
  so has each choice of another decision.

  Args:
    space: space of the supernet.
    params: its parameters.

  Returns:
    For each decision of `decisions.genes`, a number for each choice.

  Raises:
    UserError: no operation of the space has parameters of its own.
  """
  genes, shares = decisions.genes(space), []
  check(space)
  for gene in genes:
    if gene.field == 'operation':
      assert gene.position is not None
      shares.append(_of_layer(space, params, gene.position))
    else:
      shares.append(dict.fromkeys(gene.choices, 0.0))
  return shares


def check(space: Space) -> None:
  """Raises UserError if no operation of the space has parameters of its own."""
  if not has_operations(space):
    allowed = 'a space of operations with parameters of their own'
    raise errors.UserError('space', space.name, allowed)


def has_operations(space: Space) -> bool:
  """Returns whether operations of the space have parameters of their own."""
  return any(stage.separate_weights for stage in space.stages)


def _of_layer(space: Space, params, position: int) -> dict[int, float]:
  number = next(
    i
    for i in range(len(space.stages))
    if position < decisions.of_stage(space, i).stop
  )
  block = position - decisions.of_stage(space, number).start
  stage, own = space.stages[number], params[f'stage{number + 1}']
  scores = {}
  for choice, sizes in enumerate(
    block_kinds.operations(stage, first=block == 0)
  ):
    name = block_kinds.operation_name(*sizes)
    scores[choice] = 0.0
    if sizes[1]:
      last = block_kinds.convs(block_kinds.alone(stage, *sizes))[-1].name
      scales = own['rest' if block else 'first'][name][f'{last}_bn']['scale']
      scale = np.asarray(scales[block - 1] if block else scales)
      scores[choice] = float(np.abs(scale).mean())
  return scores
