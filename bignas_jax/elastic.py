"""Choosing one of several static branches inside a compiled program."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax


def switch(
  index: Any,
  branches: Sequence[Callable],
  operands: Any,
  constants: Any,
  *,
  recompute: bool = True,
) -> Any:
  """Runs branches[index](operands, constants, None).

  JAX's own rule for the gradient of a switch keeps the residuals of all
  branches. This one keeps the inputs, and recomputes the taken branch on the
  way back, so that neither time nor memory is spent on the others. A single
  branch can do without (docs/performance.md).

  Args:
    index: traced int32 scalar.
    branches: functions of (operands, constants, known) that return an output
      and what is worth remembering, of equal shapes. The latter is not
      differentiated; it is kept, and handed to the branch as `known` when it
      is computed again. Branches must not close over traced values.
    operands: differentiated.
    constants: not differentiated.
    recompute: False keeps residuals; it takes a single branch.

  Returns:
    Both results of the taken branch.
  """
  if not recompute:
    (only,) = branches
    return only(operands, constants, None)
  return _switch(tuple(branches), index, operands, constants)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _switch(branches, index, operands, constants):
  return lax.switch(index, branches, operands, constants, None)


def _save(branches, index, operands, constants):
  results: Any = _switch(branches, index, operands, constants)
  return results, (index, operands, constants, results[1])


def _backward(branches, saved, cotangent):
  index, *arguments = saved
  grads = lax.switch(
    index,
    [functools.partial(_gradient, branch) for branch in branches],
    *arguments,
    cotangent[0],
  )
  return None, grads, None


def _gradient(branch, operands, constants, known, cotangent):
  _, vjp, _ = jax.vjp(
    lambda operands: branch(operands, constants, known), operands, has_aux=True
  )
  return vjp(cotangent)[0]


_switch.defvjp(_save, _backward)


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
