"""Teachers that are not children: means of children, the average, packages.

Each runs as a program of its own that hands on logits, before any child is
trained. Logits are of the batch's own statistics, as in training, but without
dropout; those of a package are of its calibrated statistics.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from bignas_jax.methods import loss_graph
from bignas_jax.methods.loss_graph import Mean, Rule
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.supernet import network
from bignas_jax.supernet.model import Model
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.system.mesh import REPLICATED

Tree = Any
Logits = Float[Array, 'batch classes']

# Entry of the parameters that holds the weights of learnt means, by name.
WEIGHTS = 'teachers'


class Network(NamedTuple):
  """A network that teaches and is not trained.

  Attributes:
    space: space that holds this network only.
    variables: its `params` and `batch_stats`.
  """

  space: Space
  variables: Tree


def init(rule: Rule) -> dict[str, dict[str, Float[Array, 'members']]]:
  """Returns what the parameters hold beside the network: {} or `WEIGHTS`.

  A learnt mean starts with equal weights.
  """
  learnt = [one for one in rule.means if one.learnt]
  weights = {one.name: jnp.zeros(len(one.of)) for one in learnt}
  return {WEIGHTS: weights} if weights else {}


def of_network(params: Tree) -> Tree:
  """Returns the parameters of the network alone."""
  return {name: tree for name, tree in params.items() if name != WEIGHTS}


def forward(model: Model, resolution: int, arch: Arch | None) -> Callable:
  """Returns the function that computes a child's logits.

  Args:
    model: the supernet on its mesh.
    resolution: side of the child's images, pixels.
    arch: the static child; None: the function takes any child's indices.

  Returns:
    A function of (params, batch, indices) that returns logits.
  """
  net, split = model.net(arch), mesh_lib.split(model.mesh)

  @jax.named_scope('forward')
  def run(params, batch, indices):
    if arch is None:
      own = {'params': model.resolve(params, indices)}
    else:
      own = network.slice_child(model.space, {'params': params}, arch)
    images = model.images(batch['image'], resolution)
    return net.apply(own, images, indices)

  specs = REPLICATED, split, REPLICATED
  return mesh_lib.per_device(model.mesh, specs, split)(run)


def package(model: Model, space: Space) -> Callable:
  """Returns the function that computes the logits of a fixed network.

  Args:
    model: the supernet on its mesh, which prepares images.
    space: space of the fixed network only.

  Returns:
    A function of (variables, batch) that returns logits.
  """
  net = network.Supernet(space, model.dtype, recompute=False)
  (resolution,) = space.resolution
  split = mesh_lib.split(model.mesh)

  @jax.named_scope('package')
  def run(variables, batch):
    images = model.images(batch['image'], resolution)
    return net.apply(variables, images)

  return mesh_lib.per_device(model.mesh, (REPLICATED, split), split)(run)


def combined(
  alpha: Float[Array, 'members'] | None, logits: list[Logits]
) -> Logits:
  """Returns the mean of logits, which no gradient enters.

  Args:
    alpha: the softmax of this weighs the members (RS-Net, ECCV 2020); None:
      all weigh the same.
    logits: logits of the members.
  """
  stacked = lax.stop_gradient(jnp.stack(logits))
  if alpha is None:
    return stacked.mean(0)
  return jnp.tensordot(jax.nn.softmax(alpha), stacked, 1)


def mean(
  model: Model, rule: Rule, one: Mean, batch_size: int, factor: float
) -> Callable:
  """Returns the function that computes a mean's logits.

  Args:
    model: the supernet on its mesh.
    rule: the loss graph.
    one: the mean.
    batch_size: number of images on all devices.
    factor: factor of the gradient.

  Returns:
    A function of (alpha or None, logits of the members by role, labels) that
    returns (logits, alpha's gradient or None, metrics). The gradient is that of
    the mean's own loss, stacked over devices.
  """
  axes, split = model.mesh.axis_names, mesh_lib.split(model.mesh)

  @jax.named_scope('mean')
  def run(alpha, logits, labels):
    def loss(alpha):
      z = combined(alpha, [logits[role] for role in one.of])
      of_images = loss_graph.loss(rule, one.name, z, labels, {})
      return of_images.sum() / batch_size, z

    (value, z), gradient = jax.value_and_grad(loss, has_aux=True)(alpha)
    shares = {'top1': (z.argmax(-1) == labels).sum() / batch_size}
    if one.learnt:
      shares['loss'] = value
    gradient = jax.tree.map(lambda g: factor * g, gradient)
    return z, gradient, lax.psum(shares, axes)

  specs = REPLICATED, split, split
  results = split, split, REPLICATED
  return mesh_lib.per_device(model.mesh, specs, results)(run)
