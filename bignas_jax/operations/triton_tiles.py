"""Tiles of images, and how Triton kernels read them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array

_WARPS = 4  # of a program


class Tile(NamedTuple):
  """What a program computes at a time.

  Attributes:
    rows: rows of a patch of the output, which one thread computes.
    columns: columns of a patch.
    groups: number of patches, a power of 2.
    channels: number of channels, a power of 2.
  """

  rows: int
  columns: int
  groups: int = 8
  channels: int = 32

  @property
  def shape(self) -> tuple[int, int]:
    """Returns the shape of one pixel of all patches."""
    return self.groups, self.channels


# Of the tiles that were tried on an H200, those below are nearly the fastest
# for kernels of 3 and 5. Larger patches are up to a quarter faster, and take
# twice the time to compile (docs/performance.md).


def of_outputs(size: int, width: int, stride: int) -> Tile:
  """Returns a good tile of a convolution's output.

  Args:
    size: size of the kernel.
    width: columns of the output.
    stride: stride of the convolution.
  """
  if size == 3 and stride > 1:
    return Tile(2, 4)
  return Tile(_rows(size, width), _columns(size, width))


def of_images(size: int, width: int, stride: int) -> Tile:
  """Returns a good tile of the gradient of a convolution's images.

  Args:
    size: size of the kernel.
    width: columns of one phase of the images, which are `stride` apart.
    stride: stride of the convolution.
  """
  rows = 1 if stride > 1 else _rows(size, width)
  return Tile(rows, _columns(size, width))


def of_kernels(size: int, width: int, stride: int) -> Tile:
  """Returns a good tile of a kernel's gradient (`of_outputs` has the rest)."""
  rows = _rows(size, width)
  if size == 3 and (stride > 1 or rows < 4):
    return Tile(2, 4)
  return Tile(rows, _columns(size, width))


def _rows(size: int, width: int) -> int:
  if size > 3:
    return 1
  return 4 if width > 28 else 2


def _columns(size: int, width: int) -> int:
  """Returns the number, 7 or near it, that wastes the fewest columns.

  Kernels above 5 have 4 columns, or compiling one takes four seconds.
  """
  if size > 5:
    return 4
  return min(range(4, 9), key=lambda n: (pl.cdiv(width, n) * n, abs(n - 7)))


class Patches(NamedTuple):
  """The patches that cover some images.

  Attributes:
    images: number of images.
    down: number of patches in a column of patches.
    across: number of patches in a row of patches.
    tile: size of the patches.
  """

  images: int
  down: int
  across: int
  tile: Tile

  @classmethod
  def cover(cls, images: int, rows: int, columns: int, tile: Tile) -> 'Patches':
    """Returns the patches of images of so many rows and columns."""
    sides = pl.cdiv(rows, tile.rows), pl.cdiv(columns, tile.columns)
    return cls(images, *sides, tile)

  @property
  def groups(self) -> int:
    """Returns the number of groups of patches; the last may be incomplete."""
    return pl.cdiv(self.images * self.down * self.across, self.tile.groups)

  def at(self, group) -> tuple[Array, Array, Array]:
    """Returns image, first row and first column of the patches of a group.

    A patch that completes a group has a number of an image that is not there.
    """
    numbers = down(group * self.tile.groups, self.tile.groups)
    rest, block = _divided(numbers, self.across)
    image, line = _divided(rest, self.down)
    return image, line * self.tile.rows, block * self.tile.columns


def _divided(numbers, by: int):
  divisor = jnp.full_like(numbers, by)
  return lax.div(numbers, divisor), lax.rem(numbers, divisor)


class Images:
  """The pixels of images that a tile reads or writes.

  The images are one flat array, and each mask is made once: the fewer
  operations a kernel consists of, the sooner it is traced and compiled. For the
  same reason the sums are of `lax`.
  """

  def __init__(
    self, ref: Any, shape: Sequence[int], number, row, column, channels
  ):
    """Takes the place that offsets are added to.

    Args:
      ref: images, flat.
      shape: shape of the images, [images, height, width, channels].
      number: number of each patch's image, [groups, 1].
      row: number of its first row, likewise.
      column: number of its first column, likewise.
      channels: numbers of channels, [1, channels].
    """
    images, self._height, self._width, self._most = shape
    self._ref, self._row, self._column = ref, row, column
    pixel = (number * self._height + row) * self._width + column
    self._first = pixel * self._most + channels
    self._inside = (number < images) & (channels < self._most)
    self._nothing = jnp.zeros(self._inside.shape, ref.dtype)
    self._rows: dict[int, Array] = {}
    self._columns: dict[int, Array] = {}

  def _place(self, line: int, column: int) -> tuple[Any, Array]:
    """Returns references to a pixel of each patch, and whether it is there."""
    if line not in self._rows:
      row = self._row + line
      there = (row >= 0) & (row < self._height)
      self._rows[line] = there & self._inside
    if column not in self._columns:
      at = self._column + column
      there = (at >= 0) & (at < self._width)
      shape = self._inside.shape
      self._columns[column] = lax.broadcast_in_dim(there, shape, (0, 1))
    offset = (line * self._width + column) * self._most
    mask = lax.bitwise_and(self._rows[line], self._columns[column])
    return self._ref.at[self._first + offset], mask

  def read(self, line: int, column: int) -> Array:
    """Returns a pixel of each patch as float32; 0 where there is none.

    Args:
      line: number of rows below the first row.
      column: number of columns to the right of the first column.
    """
    place, mask = self._place(line, column)
    values = triton.load(place, mask=mask, other=self._nothing)
    return lax.convert_element_type(values, jnp.float32)

  def write(self, line: int, column: int, values: Array) -> None:
    """Writes a pixel of each patch, where it is there; `read` has the rest."""
    place, mask = self._place(line, column)
    triton.store(place, values.astype(self._ref.dtype), mask=mask)


def spread(row, tile: Tile) -> Array:
  """Returns values of channels, [1, channels], for each patch, in float32."""
  return lax.broadcast_in_dim(row.astype(jnp.float32), tile.shape, (0, 1))


def down(first, number: int) -> Array:
  """Returns consecutive numbers, [number, 1]."""
  return first + lax.broadcasted_iota(jnp.int32, (number, 1), 0)


def across(first, number: int) -> Array:
  """Returns consecutive numbers, [1, number]."""
  return first + lax.broadcasted_iota(jnp.int32, (1, number), 1)


def call(run, grid, out, interpret: bool):
  """Returns a function that runs a kernel over a grid of programs.

  Args:
    run: the kernel, a function of references to its inputs and its output.
    grid: numbers of programs.
    out: shape and dtype of the output.
    interpret: whether the kernel runs on a CPU, slowly.
  """
  return pl.pallas_call(
    run,
    grid=grid,
    out_shape=out,
    compiler_params=triton.CompilerParams(num_warps=_WARPS, num_stages=1),
    interpret=interpret,
  )
