"""The update of a step: from the sum of its gradients to the next state."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float

from bignas_jax.methods import step_metrics
from bignas_jax.methods.step import Setup, State

Tree = Any


def is_scaled(setup: Setup) -> bool:
  """Returns whether the update scales the sum of gradients.

  Each child's gradient is divided by the number of the policy's roles, which
  gives no mean in a step of fewer children.
  """
  return setup.policy.varies and setup.rule.aggregate == 'mean'


def update(setup: Setup) -> Callable:
  """Returns the update, from (state, gradients, norms) to (state, metrics).

  `norms` says whether norms are computed; else they are zeros. They read all
  gradients and parameters again, which takes up to a quarter of the update on
  CPUs. If `is_scaled`, the last argument is the factor of the gradients.
  """

  def run(
    state: State,
    gradients: Tree,
    norms: Bool[Array, ''],
    scale: Float[Array, ''] | float = 1.0,
  ):
    summed = jax.tree.map(
      lambda g, p: g.reshape(-1, *p.shape).sum(0), gradients, state.params
    )
    scaled = functools.partial(jax.tree.map, lambda g: scale * g)
    updates, opt_state = setup.optimizer.update(
      scaled(summed), state.opt_state, state.params
    )
    params, ema = optax.apply_updates(state.params, updates), state.ema
    if ema is not None:
      ema = optax.incremental_update(params, ema, 1 - setup.ema_decay)

    def measured(summed: Tree, params: Tree):
      return step_metrics.of_update(scaled(summed), params)

    shapes = jax.eval_shape(measured, summed, params)
    zeros = jax.tree.map(lambda one: jnp.zeros(one.shape, one.dtype), shapes)
    metrics = lax.cond(norms, measured, lambda *_: zeros, summed, params)
    metrics |= {'lr': setup.rate(state.step)}
    return State(state.step + 1, params, opt_state, ema), metrics

  return run
