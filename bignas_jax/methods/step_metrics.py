"""Metrics of a step, computed on the devices and read by the host when logged.

A child's metrics cost one sum over devices of a few scalars. Its gradient is
not summed over devices for them: that happens once a step (`update.update`).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from bignas_jax.methods import loss_graph
from bignas_jax.supernet.accumulator import square_norm

Tree = Any


@jax.named_scope('measures')
def of_child(
  rule: loss_graph.Rule,
  role: str,
  batch_size: int,
  *,
  loss: Float[Array, ''],
  square: Float[Array, ''],
  logits: Float[Array, 'batch classes'],
  labels: Int[Array, 'batch'],
  teachers: dict[str, Float[Array, 'batch classes']],
  axes: tuple[str, ...],
) -> dict[str, Float[Array, '']]:
  """Returns scalars of one child in one step, equal on all devices.

  Args:
    rule: the loss graph.
    role: role of the child.
    batch_size: number of images on all devices.
    loss: this device's share of the mean loss.
    square: square norm of this device's share of the child's own gradient.
    logits: logits of this device's images.
    labels: labels of these images.
    teachers: logits of the children that ran before, by role.
    axes: mesh axes that the batch is split over.

  Returns:
    `loss`; `top1`, the share of images where the label comes first;
    `agreement`, the share where the first choice is the teacher's, if a child
    teaches this one (the mean over teachers, if several do); `grad_norm`.

    On one device `grad_norm` is the norm of the child's gradient. On n devices
    it is the root mean square, over devices, of the norm of n times a device's
    share: the norm of a gradient from batch_size / n images, noisier and so
    longer than the whole batch's. The exact norm would take a reduction of the
    gradient for each child.
  """
  choice = logits.argmax(-1)
  shares: dict[str, Any] = {
    'loss': loss,
    'top1': (choice == labels).sum() / batch_size,
    'grad_norm': lax.axis_size(axes) * square,
  }
  own = loss_graph.teachers_of(rule, role)
  if own:
    agreed = [(choice == teachers[t].argmax(-1)).sum() for t in own]
    shares['agreement'] = sum(agreed) / (batch_size * len(own))
  whole = lax.psum(shares, axes)
  return whole | {'grad_norm': jnp.sqrt(whole['grad_norm'])}


@jax.named_scope('measures')
def of_update(gradient: Tree, params: Tree) -> dict[str, Float[Array, '']]:
  """Returns the norms of an update.

  Args:
    gradient: sum of gradients over children and devices.
    params: parameters after the update.

  Returns:
    `grad_norm`, `weight_norm` and `weight_norm_MODULE` for each module of the
    network, such as `stage1`.
  """
  squares = {module: square_norm(tree) for module, tree in params.items()}
  norms = {f'weight_norm_{p}': jnp.sqrt(s) for p, s in squares.items()}
  return {
    'grad_norm': jnp.sqrt(square_norm(gradient)),
    'weight_norm': jnp.sqrt(sum(squares.values())),
  } | norms
