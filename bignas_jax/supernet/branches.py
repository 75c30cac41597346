"""The choice of one of several static branches inside a compiled program.

A branch is a loop that runs zero times or once, or as often as a stage has
blocks. XLA updates in place what a loop carries, but copies a conditional's
inputs. So a block adds its gradient to its slice of the step's sum only.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from bignas_jax.operations import slicing
from bignas_jax.supernet.accumulator import Accumulator

Tree = Any


class Branch(NamedTuple):
  """One of several static computations of a block.

  Attributes:
    shapes: shapes of the parameters that it takes, the first entries of each
      axis of the block's.
    compute: a function of (params, x, constants, cached, index) that returns an
      output and a dict of arrays to remember, which are not differentiated and
      which it is given as `cached` when it runs again. `index` is the block's
      number in a chain, and selects its entry of stacks in `constants`. It must
      not close over traced values.
  """

  shapes: Tree
  compute: Callable


def switch(
  chosen: Int[Array, ''] | int,
  branches: Sequence[Branch],
  accumulator: Accumulator,
  x: Float[Array, '...'],
  constants: Any,
) -> tuple[Float[Array, '...'], Tree, Accumulator]:
  """Computes a block by one of its branches.

  JAX's own rule for the gradient of a switch keeps the residuals of all
  branches. This one keeps the inputs, and recomputes the taken branch in the
  backward pass, so that neither time nor memory is spent on the others.

  Args:
    chosen: number of the branch.
    branches: branches of equal output shapes; what a branch remembers is a
      slice of what the last one does.
    accumulator: the block's parameters, and a probe.
    x: input of the block.
    constants: inputs that are not differentiated.

  Returns:
    The output; the remembered arrays, zero outside the branch's slice; the
    accumulator.
  """
  return _switch(tuple(branches), chosen, accumulator, x, constants)


def chain(
  chosen: Int[Array, '*blocks'] | int,
  branches: Sequence[Branch],
  count: Int[Array, ''] | None,
  accumulator: Accumulator,
  x: Float[Array, '*shape'],
  constants: Any,
) -> tuple[Float[Array, '*shape'], Tree, Accumulator]:
  """Computes blocks one after the other, each by one branch.

  Args:
    chosen: number of the branch of all blocks, or of each.
    branches: branches whose output is as large as their input; what a branch
      remembers is a slice of what the last one does.
    count: how many blocks are computed; None: all.
    accumulator: stacks of the blocks' parameters, and a probe.
    x: input of the first block.
    constants: inputs of all blocks that are not differentiated.

  Returns:
    The last output; stacks of the remembered arrays, zero for blocks that were
    not computed; `accumulator`.
  """
  return _chain(tuple(branches), chosen, count, accumulator, x, constants)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _switch(branches, chosen, accumulator, x, constants):
  arguments = accumulator.params, x, constants

  def compute(branch, index, results):
    own, x, constants = _in_loop(index, arguments)
    y, new = _results(branch, own, x, constants, None)
    return y, slicing.put(results[1], new)

  y, new = _described(branches, *arguments, None)
  room = lax.empty(y.shape, y.dtype), jax.tree.map(jnp.zeros_like, new)
  y, remembered = _loops(compute, branches, chosen, 1, room)
  return y, remembered, accumulator


def _switch_forward(branches, chosen, accumulator, x, constants):
  results: Any = _switch(branches, chosen, accumulator, x, constants)
  return results, (chosen, accumulator.params, x, constants, results[1])


def _switch_backward(branches, saved, cotangent):
  chosen, *arguments = saved
  dy, _, sums = cotangent

  def back(branch, index, carry):
    params, x, constants, remembered, given = _in_loop(index, (*arguments, dy))
    return _gradient(
      branch, None, params, x, constants, remembered, given, carry[1]
    )

  dx = lax.empty(saved[2].shape, saved[2].dtype)
  dx, sums = _loops(back, branches, chosen, 1, (dx, sums))
  return None, sums, dx, None


_switch.defvjp(_switch_forward, _switch_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _chain(branches, chosen, count, accumulator, x, constants):
  y, (_, remembered) = _outputs(
    branches, chosen, count, accumulator.params, x, constants
  )
  return y, remembered, accumulator


def _outputs(branches, chosen, count, params, x, constants):
  """Returns the last output, and stacks of all inputs and remembered arrays."""

  def compute(branch, index, carry):
    x, (inputs, remembered) = carry
    y, new = _results(branch, params, x, constants, index)
    inputs = slicing.put(inputs, x, index=index)
    return y, (inputs, slicing.put(remembered, new, index=index))

  blocks = jax.tree.leaves(params)[0].shape[0]
  count = blocks if count is None else count
  _, new = _described(branches, params, x, constants, 0)
  remembered = jax.tree.map(
    lambda a: jnp.zeros((blocks, *a.shape), a.dtype), new
  )
  inputs = lax.empty((blocks, *x.shape), x.dtype)
  return _loops(compute, branches, chosen, count, (x, (inputs, remembered)))


def _chain_forward(branches, chosen, count, accumulator, x, constants):
  y, (inputs, remembered) = _outputs(
    branches, chosen, count, accumulator.params, x, constants
  )
  saved = chosen, count, accumulator.params, inputs, constants, remembered
  return (y, remembered, accumulator), saved


def _chain_backward(branches, saved, cotangent):
  chosen, count, params, inputs, constants, remembered = saved
  dy, _, sums = cotangent
  count = inputs.shape[0] if count is None else count

  def back(branch, index, carry):
    dy, sums = carry
    x = lax.dynamic_index_in_dim(inputs, index, keepdims=False)
    # A stack of one block has the same input in every iteration. If it were not
    # tied to what the loop carries, XLA would compute all branches beforehand.
    x, dy = lax.optimization_barrier((x, dy))
    return _gradient(branch, index, params, x, constants, remembered, dy, sums)

  carry = dy, sums
  dx, sums = _loops(back, branches, chosen, count, carry, backwards=True)
  return None, None, sums, dx, None


_chain.defvjp(_chain_forward, _chain_backward)


def _loops(body, branches, chosen, count, carry, backwards=False):
  """Runs a loop for each branch, of which only the chosen one iterates.

  Where each block has chosen a branch, this happens in a loop over the blocks.
  """

  def of(branch):
    if not backwards:
      return functools.partial(body, branch)
    return lambda index, carry: body(branch, count - 1 - index, carry)

  if len(branches) == 1:
    return _loop(of(*branches), count, carry)
  if jnp.ndim(chosen) == 1:

    def step(index, carry):
      index = count - 1 - index if backwards else index

      def one(branch, inner, carry):
        return body(branch, _in_loop(inner, index), carry)

      return _loops(one, branches, chosen[index], 1, carry)

    return _loop(step, count, carry)
  for number, branch in enumerate(branches):
    own = jnp.where(chosen == number, count, 0)
    carry = _loop(of(branch), own, carry)
  return carry


def _loop(body, count, carry):
  if isinstance(count, int) and count == 1:
    return body(0, carry)
  return lax.fori_loop(0, count, body, carry)


def _in_loop(index, values):
  """Returns the values, tied to the index so that XLA keeps them in the loop.

  XLA moves invariant code out of loops, even out of loops that never iterate.
  """
  return lax.optimization_barrier((index, values))[1]


def _results(branch, params, x, constants, index):
  own = slicing.shrink(params, branch.shapes, index=index)
  return branch.compute(own, x, constants, None, index)


def _described(branches, params, x, constants, index) -> tuple[Any, Tree]:
  """Returns shapes of the output, and of all that branches remember.

  Where all take slices of the same parameters, the last one remembers most.
  """
  y, new, shared = None, {}, len({frozenset(b.shapes) for b in branches}) == 1
  for one in branches[-1:] if shared else branches:
    y, own = _described_branch(one, params, x, constants, index)
    new = slicing.union(new, own)
  return y, new


def _described_branch(branch, params, x, constants, index) -> tuple[Any, Tree]:
  """Returns shapes of a branch's output, and of all that it remembers.

  JAX keeps what it traced for a function object and shapes. A block's result
  and its gradient both need these shapes, and only the first of them traces.
  """
  own = _cut(branch.shapes, params)
  index = None if index is None else jnp.int32(0)
  arguments = jax.tree.map(_described_array, (own, x, constants, None, index))
  return jax.eval_shape(branch.compute, *arguments)


def _cut(shapes: Tree, params: Tree) -> Tree:
  """Returns shapes of the parameters that a branch takes, in their dtypes."""
  if isinstance(shapes, dict):
    return {name: _cut(shapes[name], params[name]) for name in shapes}
  return jax.ShapeDtypeStruct(shapes.shape, params.dtype)


def _described_array(array: Any) -> jax.ShapeDtypeStruct:
  """Returns the shape and dtype of an array or a number."""
  kind = jax.typeof(array)
  return jax.ShapeDtypeStruct(kind.shape, kind.dtype, weak_type=kind.weak_type)


def _gradient(branch, index, params, x, constants, remembered, dy, sums):
  """Returns dx, and the sums with the parameters' gradient added."""
  own = slicing.shrink(params, branch.shapes, index=index)

  def compute(own, x, cached):
    return branch.compute(own, x, constants, cached, index)

  _, like = _described_branch(branch, params, x, constants, index)
  cached = slicing.shrink(remembered, like, index=index)
  _, vjp, _ = jax.vjp(
    lambda own, x: compute(own, x, cached), own, x, has_aux=True
  )
  gradient, dx = vjp(dy)
  squares = [jnp.square(leaf).sum() for leaf in jax.tree.leaves(gradient)]
  return dx, Accumulator(
    slicing.add(sums.params, gradient, index=index), sum(squares, sums.probe)
  )
