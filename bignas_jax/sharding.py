"""The mesh, and where arrays lie on it."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA = 'data'
REPLICATED = PartitionSpec()
SPLIT = PartitionSpec(DATA)  # the first axis over all devices


def mesh(devices: Sequence[Any] | None = None) -> Mesh:
  """All devices in a row; the batch is split over them."""
  devices = jax.devices() if devices is None else devices
  return Mesh(np.array(devices), (DATA,), axis_types=(AxisType.Auto,))


def platform(where: Mesh) -> str:
  """Of the mesh's devices: `cpu`, `gpu` or `tpu`."""
  return where.devices.flat[0].platform


def per_device(where: Mesh, in_specs, out_specs) -> Callable:
  """Decorates a function that each device runs on its part of the batch.

  Inside, gradients of replicated arguments are this device's share only; the
  one reduction a step is the caller's (`programs.update`).
  """
  return functools.partial(
    jax.shard_map,
    mesh=where,
    in_specs=in_specs,
    out_specs=out_specs,
    check_vma=False,
  )


def described(where: Mesh, tree, spec: PartitionSpec):
  """Shapes with a sharding, for compiling ahead of any array."""
  placed = NamedSharding(where, spec)
  return jax.tree.map(
    lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=placed), tree
  )


def spread(where: Mesh, tree):
  """A batch split over the mesh, from arrays that every process has whole."""
  placed = NamedSharding(where, SPLIT)
  return jax.tree.map(
    lambda a: jax.make_array_from_callback(a.shape, placed, a.__getitem__),
    jax.tree.map(np.asarray, tree),
  )


def put(where: Mesh, tree, spec: PartitionSpec):
  """Global arrays from host arrays: this process's part of the batch."""
  placed = NamedSharding(where, spec)
  return jax.tree.map(
    lambda a: jax.make_array_from_process_local_data(placed, np.asarray(a)),
    tree,
  )
