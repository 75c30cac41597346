"""What a step computes: each child's gradient, and the update.

A step trains one child or several, and updates once. Each child's function adds
its gradient to the sum so far, still separate on every device; the update
reduces it once. `programs` compiles and runs them.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bignas_jax import measures, optim, rules, sharding, slicing, supernet
from bignas_jax.arch import Arch
from bignas_jax.model import Model
from bignas_jax.sharding import REPLICATED

Tree = Any


class State(NamedTuple):
  """What a checkpoint holds; everything else follows from (seed, step)."""

  step: jax.Array  # int32, updates done
  params: Tree
  opt_state: Tree
  ema: Tree  # averaged parameters, or None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
  """All that the steps of a run depend on.

  Attributes:
    model: the supernet on its mesh.
    rule: the loss graph.
    optimizer: what becomes of the summed gradient.
    rate: learning rate of a step.
    batch_size: images a step, on all devices together.
    roles: of the children of a step, in their order.
    ema_decay: of the averaged parameters; 0: none are kept.
    seed: of initialisation and dropout.
    placement: of the state (`sharding.Layout.rules`).
  """

  model: Model
  rule: rules.Rule
  optimizer: optax.GradientTransformation
  rate: Callable
  batch_size: int
  roles: tuple[str, ...]
  ema_decay: float = 0.0
  seed: int = 0
  placement: tuple[tuple[str, str], ...] = ()


def init_state(setup: Setup) -> Callable[..., State]:
  """A function that makes step 0; jit it with shardings, or eval_shape it.

  It may be given parts of the parameters, such as `stem`, to start with.
  """

  def init(given: Tree | None = None) -> State:
    params = supernet.init(setup.model.space, jax.random.key(setup.seed))
    params |= given or {}
    ema = params if setup.ema_decay > 0 else None
    return State(jnp.int32(0), params, setup.optimizer.init(params), ema)

  return init


def described_state(setup: Setup) -> State:
  """Shapes and shardings of the state."""
  shapes = jax.eval_shape(init_state(setup))
  return sharding.described_by(setup.placement, setup.model.where, shapes)


def child(setup: Setup, role: str, resolution: int, arch: Arch | None):
  """The function that trains one child.

  Args:
    setup: of the run.
    role: of the child in the loss graph.
    resolution: of its images, pixels.
    arch: makes it static; None: it takes any child's indices.

  Returns:
    A function of (params, step, batch, indices, gradients, softmaxes) that
    returns (gradients, softmax or None, metrics). `gradients` is None for the
    step's first child. Gradients have a leading axis for the device.
  """
  model, rule = setup.model, setup.rule
  net, devices = model.net(arch), model.where.size
  axes, split = model.where.axis_names, sharding.split(model.where)
  gives_softmax = role in rules.teachers(rule)
  factor = 1 / len(setup.roles) if rule.aggregate == 'mean' else 1.0
  regularised = role == rule.regularised

  def loss(params, images, labels, keys, indices, softmaxes):
    logits: Any = net.apply(
      {'params': params},
      images,
      indices,
      dropout_rate=rule.dropout if regularised else 0.0,
      dropout_keys=keys,
    )
    losses = rules.loss(rule, role, logits, labels, softmaxes)
    value = losses.sum() / setup.batch_size
    # Each device adds its share, so that their sum holds the term once.
    decay = rule.weight_decay / devices if regularised else 0.0
    penalty = decay * optim.half_square_norm(params) if decay else 0.0
    return value + penalty, (value, logits)

  @jax.named_scope(role)
  def run(params, step, batch, indices, gradients, softmaxes):
    images = model.images(batch['image'], resolution)
    keys = model.image_keys(setup.seed, step, images.shape[0])
    own = params
    if arch is not None:
      variables = supernet.slice_child(model.space, {'params': params}, arch)
      own = variables['params']
    grads, (value, logits) = jax.grad(loss, has_aux=True)(
      own, images, batch['label'], keys, indices, softmaxes
    )
    metrics = measures.of_child(
      rule,
      role,
      setup.batch_size,
      loss=value,
      gradient=grads,
      logits=logits,
      labels=batch['label'],
      softmaxes=softmaxes,
      axes=axes,
    )
    grads = jax.tree.map(lambda g: factor * g, grads)
    if gradients is None:
      grown = slicing.grow(grads, params)
      grads = jax.tree.map(lambda g: g[None], grown)
    else:
      grads = slicing.add(gradients, grads)
    softmax = jax.nn.softmax(logits) if gives_softmax else None
    return grads, softmax, metrics

  return sharding.per_device(
    model.where,
    (REPLICATED, REPLICATED, split, REPLICATED, split, split),
    (split, split, REPLICATED),
  )(run)


def update(setup: Setup) -> Callable:
  """The function that ends a step: (state, gradients) -> (state, metrics)."""

  def run(state: State, gradients: Tree):
    grads = jax.tree.map(lambda g: g.sum(0), gradients)
    updates, opt_state = setup.optimizer.update(
      grads, state.opt_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if ema is not None:
      ema = optax.incremental_update(params, ema, 1 - setup.ema_decay)
    metrics = measures.of_update(setup.rate(state.step), grads, params)
    return State(state.step + 1, params, opt_state, ema), metrics

  return run
