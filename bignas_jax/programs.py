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
from jax import lax

from bignas_jax import arch as arch_lib
from bignas_jax import backend, optim, rules, sharding, supernet
from bignas_jax.arch import Arch
from bignas_jax.model import Model
from bignas_jax.sampling import Child
from bignas_jax.sharding import DATA, REPLICATED, SPLIT
from bignas_jax.space import Space

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
  """

  model: Model
  rule: rules.Rule
  optimizer: optax.GradientTransformation
  rate: Callable
  batch_size: int
  children: int
  ema_decay: float = 0.0
  seed: int = 0


def init_state(setup: Setup) -> Callable[[], State]:
  """A function that makes step 0; jit it with shardings, or eval_shape it."""

  def init() -> State:
    params = supernet.init(setup.model.space, jax.random.key(setup.seed))
    ema = params if setup.ema_decay > 0 else None
    return State(jnp.int32(0), params, setup.optimizer.init(params), ema)

  return init


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
  gives_softmax = role in rules.teachers(rule)
  factor = 1 / setup.children if rule.aggregate == 'mean' else 1.0
  regularised = role == rule.regularised

  def loss(params, images, labels, keys, indices, softmaxes):
    own = params
    if arch is not None:
      variables = supernet.slice_child(model.space, {'params': params}, arch)
      own = variables['params']
    logits: Any = net.apply(
      {'params': own},
      images,
      indices,
      dropout_rate=rule.dropout if regularised else 0.0,
      dropout_keys=keys,
    )
    losses = rules.loss(rule, role, logits, labels, softmaxes)
    value = losses.sum() / setup.batch_size
    # Each device adds its share, so that their sum holds the term once.
    decay = rule.weight_decay / devices if regularised else 0.0
    penalty = decay * optim.half_square_norm(own) if decay else 0.0
    return value + penalty, (value, logits)

  def run(params, step, batch, indices, gradients, softmaxes):
    images = model.images(batch['image'], resolution)
    keys = _image_keys(setup.seed, step, images.shape[0])
    with jax.named_scope(role):
      grads, (value, logits) = jax.grad(loss, has_aux=True)(
        params, images, batch['label'], keys, indices, softmaxes
      )
    grads = jax.tree.map(lambda g: factor * g[None], grads)
    if gradients is not None:
      grads = jax.tree.map(jnp.add, gradients, grads)
    softmax = jax.nn.softmax(logits) if gives_softmax else None
    right = (logits.argmax(-1) == batch['label']).sum() / setup.batch_size
    metrics = lax.psum({'loss': value, 'top1': right}, DATA)
    return grads, softmax, metrics

  return sharding.per_device(
    model.where,
    (REPLICATED, REPLICATED, SPLIT, REPLICATED, SPLIT, SPLIT),
    (SPLIT, SPLIT, REPLICATED),
  )(run)


def _image_keys(seed: int, step: jax.Array, local: int) -> jax.Array:
  """A key for each image of this device: of its place in the whole batch."""
  key = jax.random.fold_in(jax.random.key(seed), step)
  first = lax.axis_index(DATA) * local
  return jax.vmap(lambda i: jax.random.fold_in(key, i))(
    first + jnp.arange(local)
  )


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
    metrics = {
      'lr': setup.rate(state.step),
      'grad_norm': optax.tree.norm(grads),
      'finite': optim.finite((params, opt_state, ema)),
    }
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
  state = sharding.described(
    where, jax.eval_shape(init_state(setup)), REPLICATED
  )
  size, batch = setup.model.image_size, setup.batch_size
  pixels = jax.ShapeDtypeStruct((batch, size, size, space.channels), 'uint8')
  labels = jax.ShapeDtypeStruct((batch,), 'int32')
  inputs = sharding.described(where, {'image': pixels, 'label': labels}, SPLIT)
  gradients = sharding.described(
    where,
    jax.tree.map(
      lambda p: jax.ShapeDtypeStruct((where.size, *p.shape), p.dtype),
      state.params,
    ),
    SPLIT,
  )
  softmax = jax.ShapeDtypeStruct((batch, space.classes), 'float32')
  indices = sharding.described(
    where,
    jax.eval_shape(lambda: _biggest(space)),
    REPLICATED,
  )

  options = backend.compiler_options(sharding.platform(where))
  order = [
    *((role, make(space)) for role, make in STATIC.items()),
    *(('random', size) for size in space.train_resolution),
  ]
  programs, softmaxes = [], {}
  for role, which in order:
    arch, resolution = None, which
    if isinstance(which, Arch):
      arch, resolution = which, which.resolution
    function = jax.jit(
      child(setup, role, resolution, arch),
      donate_argnums=4,
      compiler_options=options,
    )
    arguments = (
      state.params,
      state.step,
      inputs,
      indices if arch is None else None,
      gradients if programs else None,
      dict(softmaxes),
    )
    name = role if arch is not None else f'{role}@{resolution}'
    programs.append(Program(name, function, arguments))
    if role in rules.teachers(setup.rule):
      softmaxes[role] = sharding.described(where, softmax, SPLIT)
  last = jax.jit(update(setup), donate_argnums=0, compiler_options=options)
  return [*programs, Program('update', last, (state, gradients))]


def _biggest(space: Space) -> arch_lib.Indices:
  indices = arch_lib.encode(space, arch_lib.biggest(space))
  return jax.tree.map(jnp.asarray, indices)


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
