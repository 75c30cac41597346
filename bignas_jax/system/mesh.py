"""The device mesh, and the placement of arrays on it."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from bignas_jax.values import errors, schema

REPLICATED = PartitionSpec()


@dataclasses.dataclass(kw_only=True, slots=True)
class Layout:
  """The mesh of a run, and the placement of the training state on it.

  Attributes:
    axes: names of the mesh's axes; the batch is split over all of them.
    sizes: devices along each axis; one may be -1, for all remaining devices.
    rules: pairs (pattern, axis). An array of the state whose path, such as
      `opt_state/0/nu/head/conv/kernel`, contains a match of the pattern is
      split over the axis, along the longest dimension that the axis size
      divides. The first matching rule counts. With the axis '', or without a
      matching rule, every device has the whole array.
  """

  axes: tuple[str, ...] = ('data',)
  sizes: tuple[Annotated[int, schema.Meta(ge=-1)], ...] = (-1,)
  rules: tuple[tuple[str, str], ...] = ()


def check(layout: Layout) -> None:
  """Raises UserError, naming the field, for a value that is not allowed."""
  axes, sizes = layout.axes, layout.sizes
  if not axes or len(set(axes)) != len(axes) or '' in axes:
    raise errors.UserError('layout.axes', axes, 'one or more different names')
  open_ended = sizes.count(-1)
  if len(sizes) != len(axes) or open_ended > 1 or 0 in sizes:
    allowed = f'a number >= 1 for each of {axes}, one of which may be -1'
    raise errors.UserError('layout.sizes', sizes, allowed)
  for rule in layout.rules:
    if rule[1] not in ('', *axes) or not _compiles(rule[0]):
      allowed = f'pairs of a regular expression and one of {axes} or ""'
      raise errors.UserError('layout.rules', rule, allowed)


def _compiles(pattern: str) -> bool:
  try:
    re.compile(pattern)
  except re.error:
    return False
  return True


def create(devices: Sequence[Any] | None = None, layout: Layout | None = None):
  """Returns a mesh in the device order that JAX knows as fast for collectives.

  Devices of several hosts may alternate in that order; `rows` returns which
  rows of a batch belong to which process.

  Args:
    devices: None: all devices.
    layout: None: one axis with all devices.

  Raises:
    UserError: the sizes do not fit the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  layout = layout or Layout()
  fixed = math.prod(size for size in layout.sizes if size != -1)
  if len(devices) % fixed or (-1 not in layout.sizes and len(devices) != fixed):
    raise errors.UserError(
      'layout.sizes', layout.sizes, f'a product of {len(devices)}, the devices'
    )
  kinds = (AxisType.Auto,) * len(layout.axes)
  left = len(devices) // fixed
  sizes = [left if size == -1 else size for size in layout.sizes]
  try:
    return jax.make_mesh(
      sizes, layout.axes, axis_types=kinds, devices=list(devices)
    )
  except (AssertionError, NotImplementedError, ValueError):
    # JAX has no better order for a part of a slice, for several slices, or for
    # sizes that are not products of the slice's own.
    grid = np.array(devices).reshape(sizes)
    return Mesh(grid, layout.axes, axis_types=kinds)


class Batch(NamedTuple):
  """A batch that the devices of a mesh share equally."""

  field: str  # the config's field that says `images`
  images: int
  group: int = 0  # images that share batch statistics; 0: no such groups


def check_batches(batches: Sequence[Batch], devices: int) -> None:
  """Checks that a number of devices can share each batch equally.

  Raises:
    UserError: images would be left over, or a group of images that share batch
      statistics would be neither a whole fraction nor a whole multiple of a
      device's share; names the field.
  """
  for one in batches:
    share, left = divmod(one.images, devices)
    if left:
      allowed = f'a multiple of the {devices} devices'
      raise errors.UserError(one.field, one.images, allowed)
    if one.group and one.images % one.group:
      allowed = f'a divisor of {one.field} {one.images}'
      raise errors.UserError('bn_group_size', one.group, allowed)
    if one.group and share % one.group and one.group % share:
      allowed = (
        f'a divisor or a multiple of {share}, what each of {devices} devices '
        f'has of {one.field} {one.images}'
      )
      raise errors.UserError('bn_group_size', one.group, allowed)


def can_share(batches: Sequence[Batch], devices: int) -> bool:
  """Returns whether `check_batches` accepts these batches and devices."""
  try:
    check_batches(batches, devices)
  except errors.UserError:
    return False
  return True


def split(mesh: Mesh) -> PartitionSpec:
  """Returns the spec that splits the first dimension over all devices."""
  return PartitionSpec(mesh.axis_names)


def platform(mesh: Mesh) -> str:
  """Returns the platform of a mesh's devices: `cpu`, `gpu` or `tpu`."""
  return mesh.devices.flat[0].platform


def per_device(mesh: Mesh, in_specs, out_specs) -> Callable:
  """Returns a decorator for functions that each device runs on its own part.

  Inside such a function, the gradients of replicated arguments cover only this
  device's part of the batch. The caller must sum them over the devices, once a
  step (`update.update`).
  """
  return functools.partial(
    jax.shard_map,
    mesh=mesh,
    in_specs=in_specs,
    out_specs=out_specs,
    check_vma=False,
  )


def described(mesh: Mesh, tree, spec: PartitionSpec):
  """Returns shapes with one sharding, to compile before any array exists."""
  return jax.tree.map(lambda leaf: _placed(mesh, leaf, spec), tree)


def described_by(rules: Sequence[tuple[str, str]], mesh: Mesh, tree):
  """Returns shapes with the shardings that `Layout.rules` give."""

  def place(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    return _placed(mesh, leaf, _by_rule(rules, mesh, name, leaf.shape))

  return jax.tree.map_with_path(place, tree)


def _placed(mesh: Mesh, leaf, spec: PartitionSpec):
  place = NamedSharding(mesh, spec)
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)


def _by_rule(rules, mesh: Mesh, name: str, shape) -> PartitionSpec:
  axis = next((axis for pattern, axis in rules if re.search(pattern, name)), '')
  if not axis:
    return REPLICATED
  divided = [i for i, n in enumerate(shape) if n and n % mesh.shape[axis] == 0]
  if not divided:
    return REPLICATED
  longest = max(divided, key=lambda i: shape[i])
  return PartitionSpec(*[None] * longest, axis)


def places(described):
  """Returns the shardings of a tree of arrays or described arrays."""
  return jax.tree.map(lambda leaf: leaf.sharding, described)


def whole(mesh: Mesh, tree):
  """Returns a tree of arrays, each of them whole on every device.

  An array that is placed so already is not copied.
  """
  return jax.device_put(tree, NamedSharding(mesh, REPLICATED))


def spread(mesh: Mesh, tree):
  """Returns a batch split over the mesh, given whole to every process."""
  placed = NamedSharding(mesh, split(mesh))
  return jax.tree.map(
    lambda a: jax.make_array_from_callback(a.shape, placed, a.__getitem__),
    jax.tree.map(np.asarray, tree),
  )


def rows(mesh: Mesh, images: int, process: int | None = None) -> list[int]:
  """Returns, in ascending order, the batch rows on the devices of one process.

  Args:
    mesh: the mesh, over which the batch is split.
    images: rows of the batch.
    process: index of the process; None: this one.
  """
  number = jax.process_index() if process is None else process
  places = NamedSharding(mesh, split(mesh)).devices_indices_map((images,))
  return sorted(
    row
    for device, (span,) in places.items()
    if device.process_index == number
    for row in range(images)[span]
  )


def put(mesh: Mesh, tree, spec: PartitionSpec):
  """Returns global arrays made from each process's host arrays.

  Args:
    mesh: the mesh.
    tree: host arrays; those of a batch have this process's `rows` only.
    spec: how the global arrays are split.
  """
  placed = NamedSharding(mesh, spec)
  return jax.tree.map(
    lambda a: jax.make_array_from_process_local_data(placed, np.asarray(a)),
    tree,
  )
