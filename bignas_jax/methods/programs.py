"""The compiled programs of a training step.

A step runs as a chain of programs, because each resolution is a static shape:
one for each static child of the policy; for every other role, one for each
resolution, which takes the child's indices as an argument; one for the update.
Each is given only the logits that its child learns from. One more program
starts the sum of gradients, unless the first child is static and the only one
of its role. Policies that compare children on the batch have one program a
resolution that scores a child.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Shaped

from bignas_jax.methods import loss_graph
from bignas_jax.methods import step as step_lib
from bignas_jax.methods.policies import Child, Policy
from bignas_jax.methods.step import Setup, State, Tree
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.system import xla
from bignas_jax.system.mesh import REPLICATED

# Of a compiled program or, of one that is only traced, their shapes.
Measured = dict[str, Shaped[Array | jax.ShapeDtypeStruct, '']]


class Program(NamedTuple):
  """A jitted function, and the shapes to compile it for ahead of time.

  Attributes:
    name: name of the program, unique in a run.
    function: the jitted function.
    arguments: shapes and shardings of its arguments.
    static: whether it trains a static child.
  """

  name: str
  function: Callable
  arguments: tuple
  static: bool = False


def key(policy: Policy, one: Child) -> str:
  """Returns the name of the program that trains this child."""
  if one.role in policy.static:
    return one.role
  return f'{one.role}@{one.arch.resolution}'


START, SCORE, UPDATE = 'start', 'score', 'update'


def all_programs(setup: Setup) -> list[Program]:
  """Returns all programs that a step of the run can need, the update last."""
  mesh = setup.model.mesh
  state, batch = step_lib.described_state(setup), _described_batch(setup)
  gradients = _described_gradients(setup, state)
  one = arch_lib.encode(setup.model.space, arch_lib.biggest(setup.model.space))
  indices = mesh_lib.described(mesh, one, REPLICATED)
  logits = _described_logits(setup)
  programs = []
  if _starts(setup):
    places = mesh_lib.places(gradients)
    start = step_lib.start(gradients)
    programs.append(Program(START, _jitted(START, start, (), mesh, places), ()))
  for name, role, resolution, arch in _in_order(setup):
    arguments = (
      state.params,
      state.step,
      batch,
      indices if arch is None else None,
      gradients if programs else None,
      dict.fromkeys(loss_graph.teachers_of(setup.rule, role), logits),
    )
    function = step_lib.child(setup, role, resolution, arch)
    function = _jitted(name, function, 4, mesh)
    programs.append(Program(name, function, arguments, arch is not None))
  if setup.policy.scored:
    for size in setup.model.space.train_resolution:
      name, arguments = f'{SCORE}@{size}', (state.params, batch, indices)
      function = _jitted(name, step_lib.score(setup, size), (), mesh)
      programs.append(Program(name, function, arguments))
  places = mesh_lib.places(state), None
  last = _jitted(UPDATE, step_lib.update(setup), 0, mesh, places)
  scale = mesh_lib.described(mesh, _scale(setup, 1), REPLICATED)
  return [*programs, Program(UPDATE, last, (state, gradients, *scale))]


def _scale(setup: Setup, children: int) -> tuple[np.float32, ...]:
  """Returns the factor that makes a mean over so many children, if needed."""
  if not step_lib.is_scaled(setup):
    return ()
  return (np.float32(len(setup.policy.roles) / children),)


def _starts(setup: Setup) -> bool:
  """Returns whether the sum of gradients starts in a program of its own.

  The first child's program starts it if it is static and runs once a step.
  """
  roles, static = setup.policy.roles, setup.policy.static
  return roles[0] not in static or roles.count(roles[0]) > 1


def _in_order(setup: Setup) -> list[tuple[str, str, int, Arch | None]]:
  """Returns (name, role, resolution, static child) of all, teachers first."""
  sizes, rows = setup.model.space.train_resolution, []
  for role in dict.fromkeys(setup.policy.roles):
    arch = setup.policy.static.get(role)
    if arch is not None:
      rows.append((role, role, arch.resolution, arch))
    else:
      rows += [(f'{role}@{size}', role, size, None) for size in sizes]
  return rows


def _described_batch(setup: Setup) -> Tree:
  model, batch = setup.model, setup.batch_size
  size, channels = model.image_size, model.space.channels
  images = jax.ShapeDtypeStruct((batch, size, size, channels), 'uint8')
  labels = jax.ShapeDtypeStruct((batch,), 'int32')
  tree = {'image': images, 'label': labels}
  return mesh_lib.described(model.mesh, tree, mesh_lib.split(model.mesh))


def _described_gradients(setup: Setup, state: State) -> Tree:
  """Returns shapes of gradients, stacked over devices along the first axis."""
  mesh = setup.model.mesh
  return mesh_lib.described(
    mesh,
    jax.tree.map(
      lambda p: jax.ShapeDtypeStruct(
        (mesh.size * p.shape[0], *p.shape[1:]), p.dtype
      ),
      state.params,
    ),
    mesh_lib.split(mesh),
  )


def _described_logits(setup: Setup) -> Tree:
  mesh, classes = setup.model.mesh, setup.model.space.classes
  logits = jax.ShapeDtypeStruct((setup.batch_size, classes), 'float32')
  return mesh_lib.described(mesh, logits, mesh_lib.split(mesh))


def _jitted(name: str, function: Callable, donated, mesh: Mesh, out=None):
  """Jits a function under this name, which profiles show."""
  function.__name__ = name.replace('@', '_')
  return jax.jit(
    function,
    donate_argnums=donated,
    out_shardings=out,
    compiler_options=xla.compiler_options(mesh_lib.platform(mesh)),
  )


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
  space, mesh = setup.model.space, setup.model.mesh
  losses = []
  for arch in archs:
    indices = mesh_lib.put(mesh, arch_lib.encode(space, arch), REPLICATED)
    program = compiled[f'{SCORE}@{arch.resolution}']
    losses.append(program(state.params, batch, indices))
  return [float(loss) for loss in jax.device_get(losses)]


def step(
  setup: Setup,
  compiled: dict[str, Callable],
  state: State,
  batch: Tree,
  children: list[Child],
) -> tuple[State, list[Measured]]:
  """Runs one step.

  Args:
    setup: setup of the run.
    compiled: compiled programs of the run by name.
    state: state before the step; donated.
    batch: `image` uint8 [batch, size, size, channels] and `label` int32
      [batch], split over the mesh.
    children: children to train, teachers first.

  Returns:
    The state after the step, and the metrics of each child and, last, of the
    update.
  """
  space, mesh, policy = setup.model.space, setup.model.mesh, setup.policy
  gradients = compiled[START]() if START in compiled else None
  outputs, metrics = {}, []
  for one in children:
    indices = None
    static = policy.static.get(one.role)
    assert static in (None, one.arch), f'another child is {one.role}'
    if static is None:
      indices = arch_lib.encode(space, one.arch)
      indices = mesh_lib.put(mesh, indices, REPLICATED)
    teachers = loss_graph.teachers_of(setup.rule, one.role)
    gradients, logits, measured = compiled[key(policy, one)](
      state.params,
      state.step,
      batch,
      indices,
      gradients,
      {teacher: outputs[teacher] for teacher in teachers},
    )
    if logits is not None:
      outputs[one.role] = logits
    metrics.append(measured)
  scale = mesh_lib.put(mesh, _scale(setup, len(children)), REPLICATED)
  state, last = compiled[UPDATE](state, gradients, *scale)
  return state, [*metrics, last]
