"""The gradient accumulator: a step's sum of gradients, added to in place.

A step trains several children, whose gradients are summed. A block that is
computed again in the backward pass adds its gradient to the sum in the slice
that it computes, so that no array of zeros around a slice is ever made:

    forward    params ──► block ──► output, Accumulator(params, probe)
    backward   cotangent of the output, and of the Accumulator: (sum, squares)
               ──► block ──► cotangents (sum + gradient, squares + |gradient|^2)

A block returns its parameters unchanged; their cotangent is the sum so far.
`StageModule` stores the Accumulator in the Flax collection `COLLECTION`, and
only `accumulate` puts sums in and takes them out.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bignas_jax.operations import slicing

Tree = Any

COLLECTION = 'accumulator'  # of Flax, {module: {block: Accumulator}}


class Accumulator(NamedTuple):
  """A block's parameters and a probe, whose cotangents are sums over children.

  Attributes:
    params: the block's parameters. Their cotangent is a sum of gradients, to
      which the block adds its own in place.
    probe: a scalar. Its cotangent is a sum of squares, to which the block adds
      those of its own gradient.
  """

  params: Tree
  probe: Float[Array, '']


def square_norm(tree: Tree) -> Float[Array, '']:
  """Returns the sum of the squares of all entries of a tree, in float32."""
  leaves = [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(tree)]
  return sum((jnp.square(leaf).sum() for leaf in leaves), jnp.float32(0))


def accumulate(
  loss: Callable,
  params: Tree,
  sums: Tree,
  centred: slicing.Centred,
  factor: float,
  weight: Float[Array, ''] | float = 1.0,
) -> tuple[Tree, Float[Array, ''], Any]:
  """Adds the gradient of a child's loss to a step's sum of gradients.

  Args:
    loss: a function of (params, probe) that returns (loss, accumulators) and
      other results; accumulators are those of the network's COLLECTION.
    params: parameters of the child.
    sums: gradients of the supernet's parameters, of which `params` are slices.
    centred: axes of parameters that are cut around their centre.
    factor: factor of the gradient.
    weight: another factor, which may be 0.

  Returns:
    The sums, the square norm of the child's gradient with the weight but
    without the factor, and the loss's other results.
  """
  (value, accumulators), back, more = jax.vjp(
    loss, params, jnp.zeros(()), has_aux=True
  )
  cotangents = {
    module: {
      block: Accumulator(
        slicing.shrink(sums[module][block], one.params, centred[module][block]),
        jnp.zeros(()),
      )
      for block, one in blocks.items()
    }
    for module, blocks in accumulators.items()
  }
  gradient, square = back((jnp.full_like(value, factor * weight), cotangents))
  if not cotangents:
    square = jnp.zeros(())  # all gradients are in `gradient`, none in the sums
  for module, blocks in cotangents.items():
    added = {block: gradient[module].pop(block) for block in blocks}
    sums = slicing.put(sums, {module: added}, centred)
  square += square_norm(gradient)
  return slicing.add(sums, gradient, centred), square / factor**2, more
