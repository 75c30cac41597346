"""The compiled programs of a training step.

One step trains several children and updates once. It runs as a chain of
programs, since a resolution is a shape: one for the biggest child and one for
the smallest, both static; one a resolution for random children, which are
arguments; one for the update. Each child's program adds its gradient to the
sum so far, still separate on every device; the update reduces it once.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from bignas_jax import arch as arch_lib
from bignas_jax import (
  backend,
  measures,
  optim,
  rules,
  sharding,
  slicing,
  supernet,
)
from bignas_jax.arch import Arch
from bignas_jax.model import Model
from bignas_jax.sampling import Child
from bignas_jax.sharding import REPLICATED

Tree = Any


class State(NamedTuple):
  """What a checkpoint holds; everything else follows from (seed, step)."""

  step: jax.Array  # int32, updates done
  params: Tree
  opt_state: Tree
  ema: Tree  # averaged parameters, or None


class Program(NamedTuple):
  """A jitted function, and shapes to compile it for ahead of time."""

  name: str
  function: Callable
  arguments: tuple


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
  """All that the programs of a run depend on.

  Attributes:
    model: the supernet on its mesh.
    rule: the loss graph.
    optimizer: what becomes of the summed gradient.
    rate: learning rate of a step.
    batch_size: images a step, on all devices together.
    children: in a step.
    ema_decay: of the averaged parameters; 0: none are kept.
    seed: of initialisation and dropout.
    placement: of the state (`sharding.Layout.rules`).
  """

  model: Model
  rule: rules.Rule
  optimizer: optax.GradientTransformation
  rate: Callable
  batch_size: int
  children: int
  ema_decay: float = 0.0
  seed: int = 0
  placement: tuple[tuple[str, str], ...] = ()


def init_state(setup: Setup) -> Callable[[], State]:
  """A function that makes step 0; jit it with shardings, or eval_shape it."""

  def init() -> State:
    params = supernet.init(setup.model.space, jax.random.key(setup.seed))
    ema = params if setup.ema_decay > 0 else None
    return State(jnp.int32(0), params, setup.optimizer.init(params), ema)

  return init


def described_state(setup: Setup) -> State:
  """Shapes and shardings of the state."""
  shapes = jax.eval_shape(init_state(setup))
  return sharding.described_by(setup.placement, setup.model.where, shapes)


def child(setup: Setup, role: str, resolution: int, arch: Arch | None):
  """The program that trains one child.

  Args:
    setup: of the run.
    role: of the child in the loss graph.
    resolution: of its images, pixels.
    arch: makes the program static; None: it takes any child's indices.

  Returns:
    A function of (params, step, batch, indices, gradients, softmaxes) that
    returns (gradients, softmax or None, metrics). `gradients` is None for the
    step's first child. Gradients have a leading axis for the device.
  """
  model, rule = setup.model, setup.rule
  net, devices = model.net(arch), model.where.size
  axes, split = model.where.axis_names, sharding.split(model.where)
  gives_softmax = role in rules.teachers(rule)
  factor = 1 / setup.children if rule.aggregate == 'mean' else 1.0
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
  """The program that ends a step: (state, gradients) -> (state, metrics)."""

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


def key(one: Child) -> str:
  """Which program trains this child."""
  if one.role in STATIC:
    return one.role
  return f'{one.role}@{one.arch.resolution}'


STATIC = {'biggest': arch_lib.biggest, 'smallest': arch_lib.smallest}


def all_programs(setup: Setup) -> list[Program]:
  """Every program that any step of the run can need."""
  space, where = setup.model.space, setup.model.where
  state, split = described_state(setup), sharding.split(where)
  size, batch = setup.model.image_size, setup.batch_size
  pixels = jax.ShapeDtypeStruct((batch, size, size, space.channels), 'uint8')
  labels = jax.ShapeDtypeStruct((batch,), 'int32')
  inputs = sharding.described(where, {'image': pixels, 'label': labels}, split)
  gradients = sharding.described(
    where,
    jax.tree.map(
      lambda p: jax.ShapeDtypeStruct((where.size, *p.shape), p.dtype),
      state.params,
    ),
    split,
  )
  softmax = jax.ShapeDtypeStruct((batch, space.classes), 'float32')
  one = arch_lib.encode(space, arch_lib.biggest(space))
  indices = sharding.described(where, one, REPLICATED)

  static = [(role, make(space)) for role, make in STATIC.items()]
  order = [
    *((role, arch.resolution, arch) for role, arch in static),
    *(('random', resolution, None) for resolution in space.train_resolution),
  ]
  programs, softmaxes = [], {}
  for role, resolution, arch in order:
    name = f'{role}@{resolution}' if arch is None else role
    function = child(setup, role, resolution, arch)
    arguments = (
      state.params,
      state.step,
      inputs,
      indices if arch is None else None,
      gradients if programs else None,
      dict(softmaxes),
    )
    function = _jitted(name, function, 4, where)
    programs.append(Program(name, function, arguments))
    if role in rules.teachers(setup.rule):
      softmaxes[role] = sharding.described(where, softmax, split)
  last = _jitted(
    'update', update(setup), 0, where, (sharding.places(state), None)
  )
  return [*programs, Program('update', last, (state, gradients))]


def _jitted(name: str, function: Callable, donated: int, where: Mesh, out=None):
  """Compiled under this name, which profiles show."""
  function.__name__ = name.replace('@', '_')
  return jax.jit(
    function,
    donate_argnums=donated,
    out_shardings=out,
    compiler_options=backend.compiler_options(sharding.platform(where)),
  )


def compile_all(programs: list[Program]) -> dict[str, Callable]:
  """The compiled programs by name."""
  return backend.compile_all(lowering(programs))


def lowering(programs: list[Program]) -> dict[str, Callable[[], Any]]:
  """What lowers each, those of most branches first."""
  return {
    p.name: functools.partial(p.function.lower, *p.arguments)
    for p in sorted(programs, key=lambda p: p.name in STATIC)
  }


def step(
  setup: Setup,
  compiled: dict[str, Callable],
  state: State,
  batch: Tree,
  children: list[Child],
) -> tuple[State, list[dict[str, jax.Array]]]:
  """One sandwich step.

  Args:
    setup: of the run.
    compiled: its programs by name.
    state: before the step; donated.
    batch: `image` uint8 [batch, size, size, channels] and `label` int32
      [batch], split over the mesh.
    children: to train, teachers first.

  Returns:
    The state after the step, and the metrics of each child and, last, of the
    update.
  """
  gradients, softmaxes, metrics = None, {}, []
  for one in children:
    name = key(one)
    indices = None
    if one.role not in STATIC:
      indices = sharding.put(
        setup.model.where,
        arch_lib.encode(setup.model.space, one.arch),
        REPLICATED,
      )
    gradients, softmax, measured = compiled[name](
      state.params, state.step, batch, indices, gradients, dict(softmaxes)
    )
    if softmax is not None:
      softmaxes[one.role] = softmax
    metrics.append(measured)
  state, last = compiled['update'](state, gradients)
  return state, [*metrics, last]
