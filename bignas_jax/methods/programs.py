"""The compiled programs of a training step.

A step runs as a chain of programs, because each resolution is a static shape:
one for each static child of the policy; for every other role, one for each
resolution, which takes the child's indices as an argument, and which roles that
are trained alike share; one for the update.
Each is given only the logits that its child learns from. One more program
starts the sum of gradients, unless the first child is static and the only one
of its role. Policies that compare children on the batch have one program a
resolution that scores a child, and so have policies that measure children on a
second split. Teachers that are no children have programs of
their own, before all others (`teaching`).
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Shaped

from bignas_jax.methods import jitted, loss_graph, teachers, teaching
from bignas_jax.methods import step as step_lib
from bignas_jax.methods import update as update_lib
from bignas_jax.methods.jitted import Program
from bignas_jax.methods.step import Setup, State, Tree
from bignas_jax.policies.policies import Child
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch, Indices
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.system import xla
from bignas_jax.system.mesh import REPLICATED

# A step's metrics by name: arrays, or shapes where a program is only traced.
# All but the gradients of gates are scalars.
Measured = dict[str, Shaped[Array | jax.ShapeDtypeStruct, '...']]


def key(setup: Setup, one: Child) -> str:
  """Returns the name of the program that trains this child."""
  if one.role in setup.policy.static:
    return one.role
  return f'{jitted.sharing(setup)[one.role]}@{one.arch.resolution}'


START, SCORE, RESORT, UPDATE = 'start', 'score', 'resort', 'update'


def all_programs(setup: Setup) -> list[Program]:
  """Returns all programs that a step of the run can need, the update last."""
  mesh, state = setup.model.mesh, step_lib.described_state(setup)
  batch, indices = jitted.batch(setup), jitted.indices(setup)
  params, logits = teachers.of_network(state.params), jitted.logits(setup)
  gradients = jitted.gradients(setup, params)
  programs, started = [], _starts(setup)
  if started:
    places = mesh_lib.places(gradients)
    start = step_lib.start(gradients)
    programs.append(
      Program(START, jitted.jit(START, start, (), mesh, places), ())
    )
  for name, role, resolution, arch in jitted.variants(setup):
    arguments = (
      params,
      state.step,
      batch,
      indices if arch is None else None,
      gradients if started else None,
      dict.fromkeys(loss_graph.teachers_of(setup.rule, role), logits),
      *mesh_lib.described(mesh, _weight(setup, 1.0), REPLICATED),
    )
    function = step_lib.child(setup, role, resolution, arch)
    function = jitted.jit(name, function, 4, mesh)
    programs.append(Program(name, function, arguments, arch is not None))
    started = True
  if setup.policy.scored or setup.policy.second_batches:
    for size in setup.model.space.train_resolution:
      name, arguments = f'{SCORE}@{size}', (params, batch, indices)
      function = jitted.jit(name, step_lib.score(setup, size), (), mesh)
      programs.append(Program(name, function, arguments))
  if setup.policy.resorts:
    function, places = step_lib.resort(setup), mesh_lib.places(state)
    function = jitted.jit(RESORT, function, 0, mesh, places)
    programs.append(Program(RESORT, function, (state,)))
  places = mesh_lib.places(state), None
  last = jitted.jit(UPDATE, update_lib.update(setup), 0, mesh, places)
  gradients = jitted.gradients(setup, state.params)
  flags = mesh_lib.described(
    mesh, (np.bool_(True), *_scale(setup, 1)), REPLICATED
  )
  whole = state, gradients, *flags
  of_teachers = teaching.all_programs(setup, state)
  return [*of_teachers, *programs, Program(UPDATE, last, whole)]


def _scale(setup: Setup, children: int) -> tuple[np.float32, ...]:
  """Returns the factor that makes a mean over so many children, if needed."""
  if not update_lib.is_scaled(setup):
    return ()
  return (np.float32(len(setup.policy.roles) / children),)


def _weight(setup: Setup, weight: float) -> tuple[np.float32, ...]:
  """Returns the weight of a child's gradient, if the policy weighs children."""
  return (np.float32(weight),) if setup.policy.weighs else ()


def _starts(setup: Setup) -> bool:
  """Returns whether the sum of gradients starts in a program of its own.

  The first child's program starts it if it is static and runs once a step.
  """
  roles, static = setup.policy.roles, setup.policy.static
  return roles[0] not in static or roles.count(roles[0]) > 1


def compile_all(programs: list[Program]) -> dict[str, Callable]:
  """Compiles the programs and returns them by name."""
  return xla.compile_all(lowering(programs))


def lowering(programs: list[Program]) -> dict[str, Callable[[], Any]]:
  """Returns functions that lower programs, those with most branches first."""
  return {
    p.name: functools.partial(p.function.lower, *p.arguments)
    for p in sorted(programs, key=lambda p: p.static)
  }


def scores(
  setup: Setup,
  compiled: dict[str, Callable],
  state: State,
  batch: Tree,
  archs: list[Arch],
) -> list[float]:
  """Returns the losses of children on a step's batch (see `step`)."""
  scored = _scored(setup, compiled, state, batch, archs)
  return [float(one['loss']) for one in jax.device_get(scored)]


def on_second(
  setup: Setup,
  compiled: dict[str, Callable],
  state: State,
  batches: Iterable[Tree],
  children: list[Child],
) -> list[dict[str, Any]]:
  """Returns `second_loss` and `second_top1` of each child, means over batches.

  Args:
    setup: setup of the run.
    compiled: compiled programs of the run by name.
    state: training state.
    batches: batches of the second split, as of `step`; at least one.
    children: the children that are measured.
  """
  archs = [child.arch for child in children]
  scored = [_scored(setup, compiled, state, batch, archs) for batch in batches]
  means = jax.tree.map(lambda *values: np.mean(values), *jax.device_get(scored))
  return [
    {f'second_{name}': value for name, value in one.items()} for one in means
  ]


def _scored(setup, compiled, state, batch, archs) -> list[Measured]:
  """Returns each child's scores on a batch (`step.score`), on the devices."""
  space, mesh = setup.model.space, setup.model.mesh
  params, scored = teachers.of_network(state.params), []
  for arch in archs:
    indices = mesh_lib.put(mesh, arch_lib.encode(space, arch), REPLICATED)
    program = compiled[f'{SCORE}@{arch.resolution}']
    scored.append(program(params, batch, indices))
  return scored


def before_step(
  setup: Setup, compiled: dict[str, Callable], state: State, done: int
) -> State:
  """Returns the state that a step begins with, its channels perhaps sorted.

  Args:
    setup: setup of the run.
    compiled: compiled programs of the run by name.
    state: state after `done` updates; donated if it changes.
    done: number of updates.
  """
  return compiled[RESORT](state) if done in setup.policy.resorts else state


def step(
  setup: Setup,
  compiled: dict[str, Callable],
  state: State,
  batch: Tree,
  children: list[Child],
  norms: bool = True,
) -> tuple[State, list[Measured]]:
  """Runs one step.

  Args:
    setup: setup of the run.
    compiled: compiled programs of the run by name.
    state: state before the step; donated.
    batch: `image` uint8 [batch, size, size, channels] and `label` int32
      [batch], split over the mesh.
    children: children to train, teachers first.
    norms: whether norms of the update are computed.

  Returns:
    The state after the step, and the metrics of each child and, last, of the
    update: its learning rate and, if asked for, its norms.
  """
  mesh, rule = setup.model.mesh, setup.rule
  params = teachers.of_network(state.params)
  called = [(key(setup, one), _indices(setup, one)) for one in children]
  by_role = dict(zip([one.role for one in children], called, strict=True))
  of_teachers = teaching.run(setup, compiled, state, batch, by_role)
  gradients: Any = compiled[START]() if START in compiled else None
  outputs, metrics = dict(of_teachers.logits), []
  for one, (name, indices) in zip(children, called, strict=True):
    gradients, logits, measured = compiled[name](
      params,
      state.step,
      batch,
      indices,
      gradients,
      {t: outputs[t] for t in loss_graph.teachers_of(rule, one.role)},
      *mesh_lib.put(mesh, _weight(setup, one.weight), REPLICATED),
    )
    if logits is not None:
      outputs[one.role] = logits
    metrics.append(measured)
  flags = np.bool_(norms), *_scale(setup, len(children))
  gradients = {**gradients, **of_teachers.gradients}
  state, last = compiled[UPDATE](
    state, gradients, *mesh_lib.put(mesh, flags, REPLICATED)
  )
  last = last if norms else {'lr': last['lr']}
  return state, [*metrics, last | of_teachers.metrics]


def _indices(setup: Setup, one: Child) -> Indices | None:
  """Returns a child's indices on the devices; None: it is static."""
  static = setup.policy.static.get(one.role)
  assert static in (None, one.arch), f'another child is {one.role}'
  if static is not None:
    return None
  indices = arch_lib.encode(setup.model.space, one.arch)
  return mesh_lib.put(setup.model.mesh, indices, REPLICATED)
