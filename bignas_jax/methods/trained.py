"""Which parameters a run trains."""

from collections.abc import Hashable
from typing import Any

import jax
import optax

from bignas_jax.methods import teachers
from bignas_jax.methods.optim import Trained
from bignas_jax.spaces.space import Space
from bignas_jax.supernet import network
from bignas_jax.values import errors


def only(
  which: Trained, optimizer: optax.GradientTransformation, space: Space
) -> optax.GradientTransformation:
  """Returns an optimizer that changes some parameters only.

  Args:
    which: `all`; `batch_norms`: scales and biases of all batch norms; or
      `last_batch_norms`: those of the last batch norm of each block or
      operation.
    optimizer: optimizer of these parameters; it keeps no state of the others.
    space: space of the supernet.
  """
  if which == 'all':
    return optimizer
  if which == 'last_batch_norms' and any(s.parallel for s in space.stages):
    allowed = 'all or batch_norms, where layers have parallel members'
    raise errors.UserError('optimizer.trains', which, allowed)
  norms = network.norms(space)

  def labels(params: Any) -> Any:
    own = {
      name: _labels(which, norms.get(name, {}), params[name], name)
      for name in teachers.of_network(params)
    }
    return jax.tree.map(lambda _: 'trained', params) | own

  optimizers: dict[Hashable, optax.GradientTransformation]
  optimizers = {'trained': optimizer, 'fixed': optax.set_to_zero()}
  return optax.partition(optimizers, labels)


def _labels(which: Trained, norms: Any, params: Any, name: str) -> Any:
  """Returns for each array whether it is `trained` or `fixed`."""
  chosen = [n for n, before in norms.items() if not isinstance(before, dict)]
  if which == 'last_batch_norms':
    inside = [n for n in chosen if n != 'shortcut_bn']
    chosen = [] if name in ('stem', 'head') else inside[-1:]
  labels = {}
  for key, own in params.items():
    if isinstance(norms.get(key), dict):
      labels[key] = _labels(which, norms[key], own, key)
    else:
      label = 'trained' if key in chosen else 'fixed'
      labels[key] = jax.tree.map(lambda _, label=label: label, own)
  return labels
