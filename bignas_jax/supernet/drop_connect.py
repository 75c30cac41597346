"""Drop-connect (stochastic depth): blocks whose results single images lose."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from bignas_jax.operations import ops
from bignas_jax.spaces.space import Space


class DropConnect(NamedTuple):
  """The random loss of a block's result, image by image (stochastic depth).

  Attributes:
    keys: keys of the images, of which each block makes its own.
    place: number of the child's blocks before this one; of a stack of blocks,
      an entry for each.
    rate: probability that an image loses the block's result.
  """

  keys: Key[Array, 'batch']
  place: Int[Array, '*blocks']
  rate: Float[Array, '*blocks']

  def of_entry(self, index: Int[Array, ''] | int) -> 'DropConnect':
    """Returns the values of one block of a stack."""
    return DropConnect(self.keys, self.place[index], self.rate[index])

  def own_keys(self) -> Key[Array, 'batch']:
    """Returns the block's keys of the images."""
    return jax.vmap(lambda key: jax.random.fold_in(key, self.place))(self.keys)


class DropRates(NamedTuple):
  """The rates of drop-connect of a network's blocks.

  A block's rate is `most` times the share of the child's blocks before it, as
  in EfficientNet's code.

  Attributes:
    most: rate that the blocks' rates grow to.
    stages: number of last stages whose blocks are dropped; 0: all.
  """

  most: float = 0.0
  stages: int = 0

  def of_stage(
    self,
    space: Space,
    number: int,
    depth: Int[Array, 'stages'],
    keys: Key[Array, 'batch'] | None,
  ) -> tuple[DropConnect, DropConnect] | tuple[None, None]:
    """Returns the values of a stage's first block and of the others.

    Args:
      space: space of the supernet.
      number: number of the stage, from 0.
      depth: positions of the child's depths.
      keys: keys of the images, needed if `most` is above 0.
    """
    skipped = len(space.stages) - self.stages if self.stages else 0
    if self.most == 0 or number < skipped:
      return None, None
    assert keys is not None
    depths = [
      ops.pick(list(stage.depth), depth[i])
      for i, stage in enumerate(space.stages)
    ]
    most = max(space.stages[number].depth)
    places = jnp.asarray(sum(depths[:number])) + jnp.arange(most)
    rates = self.most * places / jnp.asarray(sum(depths))
    first = DropConnect(keys, places[0], rates[0])
    return first, DropConnect(keys, places[1:], rates[1:])
