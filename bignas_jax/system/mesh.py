"""The mesh, and where arrays lie on it."""

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
  """The mesh of a run, and where its state lies.

  Attributes:
    axes: names of the mesh's axes; the batch is split over all of them.
    sizes: devices along each; one may be -1, all that are left.
    rules: (pattern, axis) each. Arrays of the state whose path, such as
      `opt_state/0/nu/head/conv/kernel`, has the pattern in it are split over
      the axis, along their longest dimension that it divides. The first match
      counts. Axis '', and no match: whole on every device.
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


def mesh(devices: Sequence[Any] | None = None, layout: Layout | None = None):
  """Devices in the order that JAX knows as fast for what they exchange.

  Several hosts may take turns in it: `rows` says whose each row of a batch is.

  Args:
    devices: None: all.
    layout: None: in a row.

  Raises:
    UserError: so many devices do not make a mesh of these sizes.
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
    # JAX knows no better order of a part of a slice, of several slices, or for
    # sizes that are no products of the slice's own.
    grid = np.array(devices).reshape(sizes)
    return Mesh(grid, layout.axes, axis_types=kinds)


class Batch(NamedTuple):
  """A batch that the devices of a mesh share equally."""

  field: str  # of the config
  images: int
  group: int = 0  # images that share batch statistics; 0: no matter which


def check_batches(batches: Sequence[Batch], devices: int) -> None:
  """Checks that so many devices can share each of the batches.

  Raises:
    UserError: images would be left over, or a group of images that share
      statistics would be part of two devices' shares; names the field.
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
  """Returns whether `check_batches` finds nothing wrong."""
  try:
    check_batches(batches, devices)
  except errors.UserError:
    return False
  return True


def split(where: Mesh) -> PartitionSpec:
  """The first dimension over all devices."""
  return PartitionSpec(where.axis_names)


def platform(where: Mesh) -> str:
  """Of the mesh's devices: `cpu`, `gpu` or `tpu`."""
  return where.devices.flat[0].platform


def per_device(where: Mesh, in_specs, out_specs) -> Callable:
  """Decorates a function that each device runs on its part of the batch.

  Inside, gradients of replicated arguments are this device's share only; the
  one reduction a step is the caller's (`step.update`).
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
  return jax.tree.map(lambda leaf: _placed(where, leaf, spec), tree)


def described_by(rules: Sequence[tuple[str, str]], where: Mesh, tree):
  """Shapes with the sharding that `Layout.rules` say."""

  def place(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    return _placed(where, leaf, _by_rule(rules, where, name, leaf.shape))

  return jax.tree.map_with_path(place, tree)


def _placed(where: Mesh, leaf, spec: PartitionSpec):
  place = NamedSharding(where, spec)
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)


def _by_rule(rules, where: Mesh, name: str, shape) -> PartitionSpec:
  axis = next((axis for pattern, axis in rules if re.search(pattern, name)), '')
  if not axis:
    return REPLICATED
  divided = [i for i, n in enumerate(shape) if n and n % where.shape[axis] == 0]
  if not divided:
    return REPLICATED
  longest = max(divided, key=lambda i: shape[i])
  return PartitionSpec(*[None] * longest, axis)


def places(described):
  """The shardings of described arrays."""
  return jax.tree.map(lambda leaf: leaf.sharding, described)


def whole(where: Mesh, tree):
  """On every device; nothing happens to arrays that are."""
  return jax.device_put(tree, NamedSharding(where, REPLICATED))


def spread(where: Mesh, tree):
  """A batch split over the mesh, from arrays that every process has whole."""
  placed = NamedSharding(where, split(where))
  return jax.tree.map(
    lambda a: jax.make_array_from_callback(a.shape, placed, a.__getitem__),
    jax.tree.map(np.asarray, tree),
  )


def rows(where: Mesh, images: int, process: int | None = None) -> list[int]:
  """Returns which rows of a batch lie on a process's devices, ascending.

  Args:
    where: the mesh, over which the batch is split.
    images: a batch.
    process: its number; None: this one's.
  """
  number = jax.process_index() if process is None else process
  places = NamedSharding(where, split(where)).devices_indices_map((images,))
  return sorted(
    row
    for device, (part,) in places.items()
    if device.process_index == number
    for row in range(images)[part]
  )


def put(where: Mesh, tree, spec: PartitionSpec):
  """Global arrays from host arrays: of a batch, this process's `rows`."""
  placed = NamedSharding(where, spec)
  return jax.tree.map(
    lambda a: jax.make_array_from_process_local_data(placed, np.asarray(a)),
    tree,
  )
