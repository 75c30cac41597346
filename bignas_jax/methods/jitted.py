"""A program of a step: a jitted function, and the shapes it is compiled for."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from bignas_jax.methods import loss_graph
from bignas_jax.methods.step import Setup, Tree
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.system import xla
from bignas_jax.system.mesh import REPLICATED


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


def jit(name: str, function: Callable, donated, mesh: Mesh, out=None):
  """Jits a function under this name, which profiles show."""
  function.__name__ = name.replace('@', '_').replace(':', '_')
  return jax.jit(
    function,
    donate_argnums=donated,
    out_shardings=out,
    compiler_options=xla.compiler_options(mesh_lib.platform(mesh)),
  )


def batch(setup: Setup) -> Tree:
  """Returns shapes of a batch, split over the mesh."""
  model, number = setup.model, setup.batch_size
  size, channels = model.image_size, model.space.channels
  images = jax.ShapeDtypeStruct((number, size, size, channels), 'uint8')
  labels = jax.ShapeDtypeStruct((number,), 'int32')
  tree = {'image': images, 'label': labels}
  return mesh_lib.described(model.mesh, tree, mesh_lib.split(model.mesh))


def gradients(setup: Setup, params: Tree) -> Tree:
  """Returns shapes of gradients, stacked over devices along the first axis."""
  mesh = setup.model.mesh
  return mesh_lib.described(
    mesh,
    jax.tree.map(
      lambda p: jax.ShapeDtypeStruct(
        (mesh.size * p.shape[0], *p.shape[1:]), p.dtype
      ),
      params,
    ),
    mesh_lib.split(mesh),
  )


def logits(setup: Setup) -> Tree:
  """Returns the shape of a child's or a teacher's logits."""
  mesh, classes = setup.model.mesh, setup.model.space.classes
  shape = jax.ShapeDtypeStruct((setup.batch_size, classes), 'float32')
  return mesh_lib.described(mesh, shape, mesh_lib.split(mesh))


def indices(setup: Setup) -> Tree:
  """Returns shapes of a child's indices."""
  space = setup.model.space
  one = arch_lib.encode(space, arch_lib.biggest(space))
  return mesh_lib.described(setup.model.mesh, one, REPLICATED)


def sharing(setup: Setup) -> dict[str, str]:
  """Returns for each role that is not static the one that names its programs.

  Roles that are trained alike share their programs.
  """
  policy = setup.policy
  elastic = [role for role in policy.roles if role not in policy.static]
  return loss_graph.alike(setup.rule, elastic)


def variants(setup: Setup) -> list[tuple[str, str, int, Arch | None]]:
  """Returns a row for each program that trains children, teachers first.

  A row is (name, role, resolution, static child or None).

  A child that is not static has a program for each trained resolution.
  """
  sizes, rows = setup.model.space.train_resolution, []
  shared = sharing(setup)
  for role in dict.fromkeys(setup.policy.roles):
    arch = setup.policy.static.get(role)
    if arch is not None:
      rows.append((role, role, arch.resolution, arch))
    elif shared[role] == role:
      rows += [(f'{role}@{size}', role, size, None) for size in sizes]
  return rows
