"""Tiles of images, and how Triton kernels read them."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array

_THREADS = 32  # of a warp


class Tile(NamedTuple):
  """What a program computes at a time.

  Attributes:
    rows: rows of the output.
    columns: columns of the output, a power of 2.
    channels: channels, a power of 2.
    entries: entries of one row that each thread computes.
  """

  rows: int
  columns: int
  channels: int
  entries: int

  @property
  def warps(self) -> int:
    """Returns the warps of a program."""
    threads = self.columns * self.channels // self.entries
    return max(1, threads // _THREADS)


def for_taps(size: int) -> Tile:
  """Returns a good tile of sums over a kernel's taps.

  Args:
    size: size of the kernel. For 3 and 5, the best of nine tiles on an H200;
      for 7, one whose weights fit the registers (docs/performance.md).
  """
  if size <= 3:
    return Tile(8, 8, 32, 4)
  return Tile(4, 8, 64, 4) if size <= 5 else Tile(4, 4, 64, 2)


def for_kernel_gradients(size: int) -> Tile:
  """Returns a good tile of kernel gradients; `for_taps` has the argument."""
  if size <= 3:
    return Tile(4, 8, 32, 2)
  return Tile(2, 8, 64, 4) if size <= 5 else Tile(2, 4, 64, 2)


class Image:
  """The part of an image that a tile reads.

  It traces each mask once, because tracing takes most of the time in which
  programs of many convolutions are compiled. For the same reason the sums are
  of `lax`.
  """

  def __init__(self, ref: Any, number, row, columns, channels, tile: Tile):
    """Takes the place that offsets are added to.

    Args:
      ref: images.
      number: number of the image.
      row: number of the first row.
      columns: numbers of columns, [columns, 1].
      channels: numbers of channels, [1, channels].
      tile: what a program computes at a time.
    """
    _, self._height, self._width, most = ref.shape
    self._ref, self._number, self._channels = ref, number, channels
    self._row, self._columns, self.tile = row, columns, tile
    self._inside = channels < most
    self._rows: dict[int, tuple] = {}
    self._across: dict[int, tuple] = {}

  def read(self, line: int, column: int) -> Array:
    """Returns pixels as float32; zeros where there are none.

    Args:
      line: number of rows below the first row.
      column: number of columns to the right.
    """
    if line not in self._rows:
      row = self._row + line
      there = (row >= 0) & (row < self._height)
      self._rows[line] = row, lax.broadcast(there, self.tile[1:3])
    if column not in self._across:
      at = self._columns + column
      there = (at >= 0) & (at < self._width) & self._inside
      self._across[column] = at, there
    row, has_row = self._rows[line]
    at, has_column = self._across[column]
    mask = lax.bitwise_and(has_row, has_column)
    place = self._ref.at[self._number, row, at, self._channels]
    return lax.convert_element_type(
      triton.load(place, mask=mask, other=0), jnp.float32
    )


def spread(row, tile: Tile) -> Array:
  """Returns values of channels, [1, channels], for each column, in float32."""
  return lax.broadcast_in_dim(row.astype(jnp.float32), tile[1:3], (0, 1))


def down(first, number: int) -> Array:
  """Returns consecutive numbers, [number, 1]."""
  return first + lax.broadcasted_iota(jnp.int32, (number, 1), 0)


def across(first, number: int) -> Array:
  """Returns consecutive numbers, [1, number]."""
  return first + lax.broadcasted_iota(jnp.int32, (1, number), 1)


def call(run, grid, out, tile: Tile, interpret: bool):
  """Returns a function that runs a kernel over a grid of programs.

  Args:
    run: the kernel, a function of references to its inputs and its output.
    grid: numbers of programs.
    out: shape and dtype of the output.
    tile: what a program computes at a time.
    interpret: whether the kernel runs on a CPU, slowly.
  """
  return pl.pallas_call(
    run,
    grid=grid,
    out_shape=out,
    compiler_params=triton.CompilerParams(num_warps=tile.warps, num_stages=1),
    interpret=interpret,
  )
