"""The compiled programs of a training step.

A step runs as a chain of programs, since a resolution is a shape: one for the
biggest child and one for the smallest, both static; one a resolution for random
children, which are arguments; one for the update. Only those are made whose
children the run trains.
"""

import functools
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from bignas_jax import arch as arch_lib
from bignas_jax import backend, rules, sandwich, sharding
from bignas_jax.arch import Arch
from bignas_jax.sampling import Child
from bignas_jax.sandwich import Setup, State, Tree
from bignas_jax.sharding import REPLICATED
from bignas_jax.space import Space


class Program(NamedTuple):
  """A jitted function, and shapes to compile it for ahead of time."""

  name: str
  function: Callable
  arguments: tuple


def key(one: Child) -> str:
  """Which program trains this child."""
  if one.role in STATIC:
    return one.role
  return f'{one.role}@{one.arch.resolution}'


STATIC = {'biggest': arch_lib.biggest, 'smallest': arch_lib.smallest}


def static(roles: Collection[str]) -> dict[str, Callable[[Space], Arch]]:
  """Of these roles, those that always fall to the same child, and which."""
  return {role: make for role, make in STATIC.items() if role in roles}


def all_programs(setup: Setup) -> list[Program]:
  """Every program that any step of the run can need."""
  space, where = setup.model.space, setup.model.where
  state, split = sandwich.described_state(setup), sharding.split(where)
  size, batch = setup.model.image_size, setup.batch_size
  pixels = jax.ShapeDtypeStruct((batch, size, size, space.channels), 'uint8')
  labels = jax.ShapeDtypeStruct((batch,), 'int32')
  inputs = sharding.described(where, {'image': pixels, 'label': labels}, split)
  gradients = sharding.described(
    where,
    jax.tree.map(
      lambda p: jax.ShapeDtypeStruct(
        (where.size * p.shape[0], *p.shape[1:]), p.dtype
      ),
      state.params,
    ),
    split,
  )
  softmax = jax.ShapeDtypeStruct((batch, space.classes), 'float32')
  one = arch_lib.encode(space, arch_lib.biggest(space))
  indices = sharding.described(where, one, REPLICATED)

  order: list[tuple[str, int, Arch | None]] = []
  for role, make in static(setup.roles).items():
    arch = make(space)
    order.append((role, arch.resolution, arch))
  if 'random' in setup.roles:
    order += [('random', size, None) for size in space.train_resolution]
  programs, softmaxes = [], {}
  for role, resolution, arch in order:
    name = f'{role}@{resolution}' if arch is None else role
    function = sandwich.child(setup, role, resolution, arch)
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
    'update', sandwich.update(setup), 0, where, (sharding.places(state), None)
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
  """One step.

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
