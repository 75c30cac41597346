"""Results of the forward pass that CPUs use again in the backward pass."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import lax


def reuse(compute: Callable, cached: Any, *operands: Any) -> Any:
  """Returns compute(*operands), or on CPUs its cached result.

  On CPUs, a branch that is computed again then needs only `compute`'s gradient.
  TPUs make slower programs of what is left (docs/performance.md).

  Args:
    compute: a function whose gradient does not need its result.
    cached: its earlier result; None: there is none.
    *operands: differentiated operands of `compute`.
  """
  if cached is None:
    return compute(*operands)
  return _reuse(compute, cached, *operands)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _reuse(compute, cached, *operands):
  return lax.platform_dependent(
    cached,
    *operands,
    cpu=lambda cached, *operands: cached,
    default=lambda cached, *operands: compute(*operands),
  )


def _reuse_forward(compute, cached, *operands):
  return _reuse(compute, cached, *operands), operands


def _reuse_backward(compute, operands, cotangent):
  return None, *jax.vjp(compute, *operands)[1](cotangent)


_reuse.defvjp(_reuse_forward, _reuse_backward)
