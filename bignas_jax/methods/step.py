"""The functions of a training step that compute each child's gradient.

A step trains one child or several, and updates once. Each child's function adds
its gradient to the sum so far, still separate on every device; `update` reduces
it once. `programs` compiles and runs them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from bignas_jax.methods import (
  channel_order,
  gates,
  loss_graph,
  losses,
  optim,
  own_parameters,
  step_metrics,
)
from bignas_jax.methods import teachers as teachers_lib
from bignas_jax.policies.policies import Policy
from bignas_jax.spaces.arch import Arch
from bignas_jax.supernet import (
  accumulator,
  drop_connect,
  network,
  parameters,
)
from bignas_jax.supernet.model import Model
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.system.mesh import REPLICATED

Tree = Any


class State(NamedTuple):
  """The training state in a checkpoint; all else follows from (seed, step)."""

  step: Int[Array, '']  # updates done
  params: Tree
  opt_state: Tree
  ema: Tree  # averaged parameters, or None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
  """All that the steps of a run depend on.

  Attributes:
    model: the supernet on its mesh.
    rule: the loss graph.
    optimizer: transformation of the aggregated gradient into an update.
    rate: function from a step to its learning rate.
    batch_size: images in a step, over all devices.
    policy: policy that chooses the children of a step.
    packages: fixed networks that teach, by name.
    ema_decay: decay of the averaged parameters; 0: none are kept.
    seed: seed of initialisation and dropout.
    zero_scales: whether blocks start as their shortcuts (`parameters.init`);
      else all scales of batch norms start at 1.
    placement: sharding rules of the state (`mesh.Layout.rules`).
  """

  model: Model
  rule: loss_graph.Rule
  optimizer: optax.GradientTransformation
  rate: Callable
  batch_size: int
  policy: Policy
  packages: Mapping[str, teachers_lib.Network] = dataclasses.field(
    default_factory=dict
  )
  ema_decay: float = 0.0
  seed: int = 0
  zero_scales: bool = True
  placement: tuple[tuple[str, str], ...] = ()

  @property
  def factor(self) -> float:
    """Returns the factor of each child's gradient in a step's sum."""
    mean = self.rule.aggregate == 'mean'
    return 1 / len(self.policy.roles) if mean else 1.0


def init_state(setup: Setup) -> Callable[..., State]:
  """Returns a function that makes step 0, to be jitted or given to eval_shape.

  It takes optional parameters, such as `stem`, that replace initial ones.
  """

  def init(given: Tree | None = None) -> State:
    params = network.init(setup.model.space, jax.random.key(setup.seed))
    if not setup.zero_scales:
      params = parameters.with_scales_of_one(params)
    params |= (given or {}) | teachers_lib.init(setup.rule)
    ema = params if setup.ema_decay > 0 else None
    return State(jnp.int32(0), params, setup.optimizer.init(params), ema)

  return init


def described_state(setup: Setup) -> State:
  """Returns shapes and shardings of the state."""
  shapes = jax.eval_shape(init_state(setup))
  return mesh_lib.described_by(setup.placement, setup.model.mesh, shapes)


def child(setup: Setup, role: str, resolution: int, arch: Arch | None):
  """Returns the function that trains one child.

  Args:
    setup: setup of the run.
    role: role of the child in the loss graph.
    resolution: side of the child's images, pixels.
    arch: the static child; None: the function takes any child's indices.

  Returns:
    A function of (params, step, batch, indices, gradients, teachers) that
    returns (gradients, logits or None, metrics). `gradients` is None where
    the sum starts with this child. Gradients are stacked over devices along the
    first axis. `teachers` are the logits of the child's teachers; its own are
    returned if it teaches others. If the policy weighs children, the
    function's last argument is the factor of the child's gradient.
  """
  model, rule = setup.model, setup.rule
  net, devices = model.net(arch), model.mesh.size
  gated = setup.policy.gated and arch is None
  if gated:
    net = net.clone(gated=True)
  axes, split = model.mesh.axis_names, mesh_lib.split(model.mesh)
  teaches = role in loss_graph.teachers(rule)
  regularised = loss_graph.regularises(rule, role)

  # Each device adds its share, so that their sum holds the term once.
  decay = rule.weight_decay / devices if regularised else 0.0
  most = rule.drop_connect if regularised else 0.0
  of_weight = (REPLICATED,) if setup.policy.weighs else ()
  drop_rates = drop_connect.DropRates(most, rule.drop_connect_stages)

  def loss(params, probe, images, labels, keys, indices, teachers):
    logits, updated = net.apply(
      {'params': params},
      images,
      indices,
      dropout_rate=rule.dropout if regularised else 0.0,
      dropout_keys=keys,
      drop_rates=drop_rates,
      probe=probe,
      # Blocks that add to the sum do not know of a penalty's gradient.
      mutable=[] if decay else [accumulator.COLLECTION],
    )
    of_images = loss_graph.loss(rule, role, logits, labels, teachers)
    value = of_images.sum() / setup.batch_size
    penalty = decay * optim.half_square_norm(params) if decay else 0.0
    accumulators = updated.get(accumulator.COLLECTION, {})
    return (value + penalty, accumulators), (value, logits)

  @jax.named_scope(role)
  def run(params, step, batch, indices, gradients, teachers, *weight):
    images = model.images(batch['image'], resolution)
    keys = model.image_keys(setup.seed, step, images.shape[0])
    if gradients is None:
      gradients = jax.tree.map(jnp.zeros_like, params)
    own, sums, back = own_parameters.of_child(
      model, arch, indices, params, gradients
    )

    if gated:
      own, sums = (gates.added(model.space, tree) for tree in (own, sums))

    def of_own(params, probe):
      batched = images, batch['label'], keys, indices, teachers
      return loss(params, probe, *batched)

    sums, square, (value, logits) = accumulator.accumulate(
      of_own, own, sums, network.centred(net.space), setup.factor, *weight
    )
    of_gates = {}
    if gated:
      sums, slopes = gates.removed(model.space, sums)
      of_gates['gates'] = jax.lax.psum(slopes, axes) / setup.factor
      square -= accumulator.square_norm(slopes) / setup.factor**2
    if back is not None:
      sums = jax.tree.map(jnp.add, gradients, *back(sums))
    metrics = step_metrics.of_child(
      rule,
      role,
      setup.batch_size,
      loss=value,
      square=square,
      logits=logits,
      labels=batch['label'],
      teachers=teachers,
      axes=axes,
    )
    return sums, logits if teaches else None, metrics | of_gates

  return mesh_lib.per_device(
    model.mesh,
    (REPLICATED, REPLICATED, split, REPLICATED, split, split, *of_weight),
    (split, split, REPLICATED),
  )(run)


def score(setup: Setup, resolution: int) -> Callable:
  """Returns the function that scores any child of a resolution on a batch.

  It is a function of (params, batch, indices) that returns the child's `loss`,
  the cross-entropy to the labels, with the batch's own statistics and without
  dropout or smoothing, equal on all devices. If the policy measures children on
  a second split, it also returns `top1`, the share of images where the label
  comes first.
  """
  model, net = setup.model, setup.model.net()
  split = mesh_lib.split(model.mesh)

  @jax.named_scope('score')
  def run(params, batch, indices):
    images = model.images(batch['image'], resolution)
    params = model.resolve(params, indices)
    logits: Any = net.apply({'params': params}, images, indices)
    of_images = losses.cross_entropy(logits, batch['label'])
    sums = {'loss': of_images.sum()}
    if setup.policy.second_batches:
      sums['top1'] = (logits.argmax(-1) == batch['label']).sum()
    whole = jax.lax.psum(sums, model.mesh.axis_names)
    return jax.tree.map(lambda value: value / setup.batch_size, whole)

  return mesh_lib.per_device(
    model.mesh, (REPLICATED, split, REPLICATED), REPLICATED
  )(run)


def start(gradients: Tree) -> Callable:
  """Returns the function that starts a step's sum of gradients: () -> zeros.

  Args:
    gradients: shapes and dtypes of the gradients.
  """
  return lambda: jax.tree.map(lambda g: jnp.zeros(g.shape, g.dtype), gradients)


def resort(setup: Setup) -> Callable:
  """Returns the function that sorts a state's hidden channels by importance.

  The optimiser's averages and the averaged parameters are sorted alike.
  """

  def run(state: State) -> State:
    space = setup.model.space
    orders = channel_order.orders(space, state.params)
    trees = state.params, state.opt_state, state.ema
    return State(state.step, *channel_order.sort_all(orders, trees))

  return run
