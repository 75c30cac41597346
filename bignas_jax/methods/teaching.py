"""The programs of a step's teachers, which run before any child is trained."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Float

from bignas_jax.methods import jitted, loss_graph, teachers
from bignas_jax.methods.jitted import Program
from bignas_jax.methods.step import Setup, State, Tree
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Indices
from bignas_jax.system import mesh as mesh_lib

EMA, PACKAGE, FORWARD, MEAN = loss_graph.EMA, 'package:', 'forward:', 'mean:'


def is_static(name: str) -> bool:
  """Returns whether a name is that of a teacher's program without branches."""
  ours = name == EMA or name.startswith((PACKAGE, FORWARD, MEAN))
  return ours and '@' not in name


class Outputs(NamedTuple):
  """What the teachers of a step hand on.

  Attributes:
    logits: logits by the teacher's name.
    gradients: gradients of learnt weights, stacked over devices, nested as
      these weights are in the parameters.
    metrics: scalars such as `top1_NAME`, equal on all devices.
  """

  logits: dict[str, Float[Array, 'batch classes']]
  gradients: Tree
  metrics: dict[str, Float[Array, '']]


def all_programs(setup: Setup, state: Tree) -> list[Program]:
  """Returns the programs of all teachers of a run's loss graph.

  Args:
    setup: setup of the run.
    state: shapes of the training state.
  """
  mesh, rule, batch = setup.model.mesh, setup.rule, jitted.batch(setup)
  indices, logits, programs = jitted.indices(setup), jitted.logits(setup), []

  def add(name: str, function: Callable, *arguments: Any) -> None:
    function = jitted.jit(name, function, (), mesh)
    programs.append(Program(name, function, arguments))

  if EMA in loss_graph.teachers(rule):
    arch = arch_lib.biggest(setup.model.space)
    forward = teachers.forward(setup.model, arch.resolution, arch)
    add(EMA, forward, teachers.of_network(state.ema), batch, None)
  for name, one in setup.packages.items():
    variables = mesh_lib.described(mesh, one.variables, mesh_lib.REPLICATED)
    function = teachers.package(setup.model, one.space)
    add(PACKAGE + name, function, variables, batch)
  for name, role, size, arch in jitted.variants(setup):
    if role in loss_graph.members(rule):
      forward = teachers.forward(setup.model, size, arch)
      params = teachers.of_network(state.params)
      of_child = indices if arch is None else None
      add(FORWARD + name, forward, params, batch, of_child)
  for one in rule.means:
    function = teachers.mean(
      setup.model, rule, one, setup.batch_size, setup.factor
    )
    given = _alpha(state, one), dict.fromkeys(one.of, logits), batch['label']
    add(MEAN + one.name, function, *given)
  return programs


def run(
  setup: Setup,
  compiled: dict[str, Callable],
  state: State,
  batch: Tree,
  children: dict[str, tuple[str, Indices | None]],
) -> Outputs:
  """Runs the teachers of a step.

  Args:
    setup: setup of the run.
    compiled: compiled programs of the run by name.
    state: state before the step.
    batch: images and labels, split over the mesh.
    children: the program's name and the indices of each child, by role.
  """
  rule, params = setup.rule, teachers.of_network(state.params)
  logits, weights, metrics = {}, {}, {}
  if EMA in loss_graph.teachers(rule):
    logits[EMA] = compiled[EMA](teachers.of_network(state.ema), batch, None)
  for name, network in setup.packages.items():
    logits[name] = compiled[PACKAGE + name](network.variables, batch)
  of_members = {
    role: compiled[FORWARD + name](params, batch, indices)
    for role, (name, indices) in children.items()
    if role in loss_graph.members(rule)
  }
  for one in rule.means:
    own = {role: of_members[role] for role in one.of}
    mean, gradient, measured = compiled[MEAN + one.name](
      _alpha(state, one), own, batch['label']
    )
    logits[one.name] = mean
    weights |= {one.name: gradient} if one.learnt else {}
    metrics |= {f'{name}_{one.name}': m for name, m in measured.items()}
  gradients = {teachers.WEIGHTS: weights} if weights else {}
  return Outputs(logits, gradients, metrics)


def placed(setup: Setup) -> Setup:
  """Returns the setup with the arrays of its packages on the devices."""
  put = {
    name: one._replace(
      variables=mesh_lib.put(
        setup.model.mesh, one.variables, mesh_lib.REPLICATED
      )
    )
    for name, one in setup.packages.items()
  }
  return dataclasses.replace(setup, packages=put)


def _alpha(state: Any, one: loss_graph.Mean) -> Any:
  return state.params[teachers.WEIGHTS][one.name] if one.learnt else None
