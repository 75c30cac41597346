"""Choosing one of several static branches inside a compiled program.

A branch is a loop that turns once or not at all, or as often as a stage has
blocks. XLA changes what a loop carries in place; what a conditional is given it
copies. That is what lets each block add its gradient to the sum of the step's,
in the slice that it computes, and touch nothing else.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from bignas_jax.supernet import slicing

Tree = Any


class Branch(NamedTuple):
  """One way to compute a block.

  Attributes:
    shapes: of the parameters that it takes, a slice of the block's.
    compute: a function of (params, x, constants, known, turn) that returns an
      output and a dict of arrays worth remembering. They are not
      differentiated; when the branch is computed again, it is handed them as
      `known`. `turn` is the block's number in a chain, whose entry of stacks
      in `constants` is its own. It must not close over traced values.
  """

  shapes: Tree
  compute: Callable


class Through(NamedTuple):
  """What passes a block unchanged, for what comes back as its cotangent.

  Attributes:
    params: the block's. Their cotangent is a sum of gradients so far, to which
      the block adds its own in place.
    probe: a scalar. Its cotangent is a sum of squares, to which the block adds
      those of its own gradient.
  """

  params: Tree
  probe: Any


def switch(
  chosen: Any,
  branches: Sequence[Branch],
  through: Through,
  x: jax.Array,
  constants: Any,
) -> tuple[jax.Array, Tree, Through]:
  """Computes a block by one of its branches.

  JAX's own rule for the gradient of a switch keeps the residuals of all
  branches. This one keeps the inputs, and recomputes the taken branch on the
  way back, so that neither time nor memory is spent on the others.

  Args:
    chosen: int32 scalar, which branch.
    branches: of equal outputs; what they remember is as large as what the last
      one does, or a slice of it.
    through: the block's parameters, and a probe.
    x: its input.
    constants: not differentiated.

  Returns:
    The output; what is remembered, zeros past the branch's slice; `through`.
  """
  return _switch(tuple(branches), chosen, through, x, constants)


def chain(
  chosen: Any,
  branches: Sequence[Branch],
  turns: Any,
  through: Through,
  x: jax.Array,
  constants: Any,
) -> tuple[jax.Array, Tree, Through]:
  """Computes blocks one after the other, each by the same branch.

  Args:
    chosen: as for `switch`, as are all others.
    branches: whose outputs are as large as their input.
    turns: int32 scalar, how many blocks are computed; None: all.
    through: with stacks of the blocks' parameters.
    x: the first one's input.
    constants: of all blocks.

  Returns:
    The last output; stacks of what is remembered, zeros for blocks that were
    not computed; `through`.
  """
  return _chain(tuple(branches), chosen, turns, through, x, constants)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _switch(branches, chosen, through, x, constants):
  arguments = through.params, x, constants

  def compute(branch, turn, results):
    own, x, constants = _in_turn(turn, arguments)
    y, new = _results(branch, own, x, constants, None)
    return y, slicing.put(results[1], new)

  y, new = jax.eval_shape(lambda: _results(branches[-1], *arguments, None))
  room = lax.empty(y.shape, y.dtype), jax.tree.map(jnp.zeros_like, new)
  y, seen = _loops(compute, branches, chosen, 1, room)
  return y, seen, through


def _switch_forward(branches, chosen, through, x, constants):
  results: Any = _switch(branches, chosen, through, x, constants)
  return results, (chosen, through.params, x, constants, results[1])


def _switch_backward(branches, saved, cotangent):
  chosen, *arguments = saved
  dy, _, sums = cotangent

  def back(branch, turn, carry):
    params, x, constants, seen, given = _in_turn(turn, (*arguments, dy))
    return _gradient(branch, None, params, x, constants, seen, given, carry[1])

  dx = lax.empty(saved[2].shape, saved[2].dtype)
  dx, sums = _loops(back, branches, chosen, 1, (dx, sums))
  return None, sums, dx, None


_switch.defvjp(_switch_forward, _switch_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _chain(branches, chosen, turns, through, x, constants):
  y, (_, seen) = _outputs(branches, chosen, turns, through.params, x, constants)
  return y, seen, through


def _outputs(branches, chosen, turns, params, x, constants):
  """The last output, and stacks of blocks' inputs and of what they saw."""

  def compute(branch, turn, carry):
    x, (inputs, seen) = carry
    y, new = _results(branch, params, x, constants, turn)
    inputs = slicing.put(inputs, x, turn)
    return y, (inputs, slicing.put(seen, new, turn))

  blocks = jax.tree.leaves(params)[0].shape[0]
  turns = blocks if turns is None else turns
  _, new = jax.eval_shape(
    lambda: _results(branches[-1], params, x, constants, 0)
  )
  seen = jax.tree.map(lambda a: jnp.zeros((blocks, *a.shape), a.dtype), new)
  inputs = lax.empty((blocks, *x.shape), x.dtype)
  return _loops(compute, branches, chosen, turns, (x, (inputs, seen)))


def _chain_forward(branches, chosen, turns, through, x, constants):
  y, (inputs, seen) = _outputs(
    branches, chosen, turns, through.params, x, constants
  )
  saved = chosen, turns, through.params, inputs, constants, seen
  return (y, seen, through), saved


def _chain_backward(branches, saved, cotangent):
  chosen, turns, params, inputs, constants, seen = saved
  dy, _, sums = cotangent
  turns = inputs.shape[0] if turns is None else turns

  def back(branch, turn, carry):
    turn, (dy, sums) = turns - 1 - turn, carry
    x = lax.dynamic_index_in_dim(inputs, turn, keepdims=False)
    return _gradient(branch, turn, params, x, constants, seen, dy, sums)

  dx, sums = _loops(back, branches, chosen, turns, (dy, sums))
  return None, None, sums, dx, None


_chain.defvjp(_chain_forward, _chain_backward)


def _loops(body, branches, chosen, turns, carry):
  """A loop for each branch, of which the chosen one's turns."""
  if len(branches) == 1:
    return _loop(functools.partial(body, *branches), turns, carry)
  for number, branch in enumerate(branches):
    own = jnp.where(chosen == number, turns, 0)
    carry = _loop(functools.partial(body, branch), own, carry)
  return carry


def _loop(body, turns, carry):
  if isinstance(turns, int) and turns == 1:
    return body(0, carry)
  return lax.fori_loop(0, turns, body, carry)


def _in_turn(turn, values):
  """The values, tied to the turn, so that XLA uses them inside the loop alone.

  It moves what does not change out of loops, though they may never turn.
  """
  return lax.optimization_barrier((turn, values))[1]


def _results(branch, params, x, constants, turn):
  own = slicing.shrink(params, branch.shapes, turn)
  return branch.compute(own, x, constants, None, turn)


def _gradient(branch, turn, params, x, constants, seen, dy, sums):
  """dx, and the sums with the gradient of the parameters in them."""
  own = slicing.shrink(params, branch.shapes, turn)

  def compute(own, x, known):
    return branch.compute(own, x, constants, known, turn)

  _, like = jax.eval_shape(compute, own, x, None)
  known = slicing.shrink(seen, like, turn)
  _, vjp, _ = jax.vjp(
    lambda own, x: compute(own, x, known), own, x, has_aux=True
  )
  gradient, dx = vjp(dy)
  squares = [jnp.square(leaf).sum() for leaf in jax.tree.leaves(gradient)]
  return dx, Through(
    slicing.add(sums.params, gradient, turn), sum(squares, sums.probe)
  )


def recall(compute: Callable, known: Any, *operands: Any) -> Any:
  """compute(*operands), or on CPUs what is known of it.

  For what a branch computes again: on CPUs only its gradient is then left of
  it. TPUs make slower programs of what is left (docs/performance.md).

  Args:
    compute: a function whose gradient does not need its result.
    known: what it gave before; None: not known.
    *operands: differentiated.
  """
  if known is None:
    return compute(*operands)
  return _recall(compute, known, *operands)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recall(compute, known, *operands):
  return lax.platform_dependent(
    known,
    *operands,
    cpu=lambda known, *operands: known,
    default=lambda known, *operands: compute(*operands),
  )


def _recall_forward(compute, known, *operands):
  return _recall(compute, known, *operands), operands


def _recall_backward(compute, operands, cotangent):
  return None, *jax.vjp(compute, *operands)[1](cotangent)


_recall.defvjp(_recall_forward, _recall_backward)
