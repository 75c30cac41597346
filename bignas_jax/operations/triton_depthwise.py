"""Depthwise convolutions and their gradients on NVIDIA GPUs, as Triton kernels.

A program of a kernel takes some rows of an image and some channels, and goes
along the columns. It reads an input row once for all output rows that need it.
Products are summed in float32.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from bignas_jax.operations import triton_tiles as tiles
from bignas_jax.operations.ops import Images
from bignas_jax.operations.taps import Convolved, Kernel

_PROGRAMS = 1024  # that sum a kernel gradient; they fill a GPU of 132 cores

Around = tuple[tuple[int, int], tuple[int, int]]
# Of the taps along one axis: which row or column is read, and which of the
# kernel's it is weighted with.
_Taps = Sequence[tuple[int, int]]


@functools.partial(
  jax.jit, static_argnames=('stride', 'around', 'tile', 'interpret')
)
def convolve(
  x: Images,
  kernel: Kernel,
  stride: int,
  around: Around,
  *,
  tile: tiles.Tile | None = None,
  interpret: bool = False,
) -> Convolved:
  """Convolves each channel with its own kernel.

  Args:
    x: images.
    kernel: kernels of the channels.
    stride: stride of both spatial axes.
    around: pixels to add before and after each spatial axis.
    tile: what a program computes at a time; None: a good choice.
    interpret: whether the kernel runs on a CPU, slowly.
  """
  size = kernel.shape[0]
  rows, columns = (
    (n + sum(edges) - size) // stride + 1
    for n, edges in zip(x.shape[1:3], around, strict=True)
  )
  taps = [[(i - low, i) for i in range(size)] for low, _ in around]
  shape = (x.shape[0], rows, columns, x.shape[3])
  return _weighted(x, kernel, shape, stride, [(0, *taps)], 1, tile, interpret)


@functools.partial(
  jax.jit, static_argnames=('stride', 'around', 'shape', 'tile', 'interpret')
)
def image_gradient(
  cotangent: Convolved,
  kernel: Kernel,
  stride: int,
  around: Around,
  shape: tuple[int, ...],
  *,
  tile: tiles.Tile | None = None,
  interpret: bool = False,
) -> Images:
  """Returns the gradient of a convolution's images.

  With a stride of 2, each pixel is reached by the taps of its own parity only.

  Args:
    cotangent: cotangent of the output.
    kernel: kernels of the channels.
    stride: stride of both spatial axes.
    around: pixels that were added before and after each spatial axis.
    shape: shape of the images.
    tile: what a program computes at a time; None: a good choice.
    interpret: whether the kernel runs on a CPU, slowly.
  """

  def taps(first: int, axis: int) -> _Taps:
    moved = [(first + around[axis][0] - i, i) for i in range(len(kernel))]
    return [(at // stride, i) for at, i in moved if at % stride == 0]

  phases = [
    (row * stride + column, taps(row, 0), taps(column, 1))
    for row, column in np.ndindex(stride, stride)
  ]
  return _weighted(cotangent, kernel, shape, 1, phases, stride, tile, interpret)


def _weighted(
  x, kernel, shape, step: int, phases, spread: int, tile, interpret
) -> Array:
  """Sums x over taps, weighted by the kernel.

  Args:
    x: what is read.
    kernel: weights of the taps.
    shape: shape of the result.
    step: rows and columns of x between those that a tap reads for neighbours.
    phases: number of a phase, and its taps along rows and along columns. The
      result has phases of rows and columns that are `spread` apart.
    spread: number of phases of each axis.
    tile: what a program computes at a time.
    interpret: whether the kernel runs on a CPU.
  """
  images, rows, columns, channels = shape
  # Of one phase.
  high, wide = (pl.cdiv(n, spread) for n in (rows, columns))
  tile = tile or tiles.for_taps(len(kernel))

  def run(x_ref, kernel_ref, y_ref):
    own = tiles.across(pl.program_id(0) * tile.channels, tile.channels)
    image, first = pl.program_id(1), pl.program_id(2) * tile.rows
    inside = own < channels
    weights = {
      (i, j): tiles.spread(
        triton.load(kernel_ref.at[i, j, 0, own], mask=inside, other=0), tile
      )
      for i, j in np.ndindex(*kernel.shape[:2])
    }

    def add(number, _):
      at = tiles.down(number * tile.columns, tile.columns)
      for phase, row_taps, column_taps in phases:
        row_phase, column_phase = divmod(phase, spread)
        image_of = tiles.Image(x_ref, image, first * step, at * step, own, tile)
        totals = _sums(image_of, weights, step, row_taps, column_taps)
        place = at * spread + column_phase
        there = (place < columns) & inside
        for row, total in enumerate(totals):
          line = (first + row) * spread + row_phase
          target = y_ref.at[image, line, place, own]
          triton.store(
            target, total.astype(x.dtype), mask=(line < rows) & there
          )

    lax.fori_loop(0, pl.cdiv(wide, tile.columns), add, None)

  grid = (
    pl.cdiv(channels, tile.channels),
    images,
    pl.cdiv(high, tile.rows),
  )
  out = jax.ShapeDtypeStruct(shape, x.dtype)
  return tiles.call(run, grid, out, tile, interpret)(x, kernel)


def _sums(
  image: tiles.Image, weights, step: int, row_taps: _Taps, column_taps: _Taps
) -> list[Array]:
  """Returns the weighted sums of each row of a tile."""
  tile = image.tile
  totals = [jnp.zeros(tile[1:3], jnp.float32) for _ in range(tile.rows)]
  needed: dict[int, list[tuple[int, int]]] = {}
  for row in range(tile.rows):
    for offset, i in row_taps:
      needed.setdefault(row * step + offset, []).append((row, i))
  for line in sorted(needed):
    for column, j in column_taps:
      values = image.read(line, column)
      for row, i in needed[line]:
        totals[row] = lax.add(totals[row], lax.mul(values, weights[i, j]))
  return totals


@functools.partial(
  jax.jit, static_argnames=('size', 'stride', 'around', 'tile', 'interpret')
)
def kernel_gradient(
  x: Images,
  cotangent: Convolved,
  size: int,
  stride: int,
  around: Around,
  *,
  tile: tiles.Tile | None = None,
  interpret: bool = False,
) -> Float[Array, '{size} {size} 1 channels']:
  """Returns the gradient of a convolution's kernel, in float32.

  Args:
    x: images.
    cotangent: cotangent of the output.
    size: size of the kernel.
    stride: stride of both spatial axes.
    around: pixels that were added before and after each spatial axis.
    tile: what a program computes at a time; None: a good choice.
    interpret: whether the kernel runs on a CPU, slowly.
  """
  images, rows, columns, channels = cotangent.shape
  tile = tile or tiles.for_kernel_gradients(size)
  blocks = pl.cdiv(channels, tile.channels)
  across, down = pl.cdiv(columns, tile.columns), pl.cdiv(rows, tile.rows)
  each = pl.cdiv(images * down, max(1, _PROGRAMS // blocks))
  shares = pl.cdiv(images * down, each)
  taps = list(np.ndindex(size, size))
  (top, _), (left, _) = around

  def run(x_ref, cotangent_ref, out_ref):
    own = tiles.across(pl.program_id(0) * tile.channels, tile.channels)
    share = pl.program_id(1)

    def add(number, totals):
      totals = dict(zip(taps, totals, strict=True))
      group, block = _divided(number, across)
      place = share * each + group
      image, line = _divided(place, down)
      # Past the last image, rows are outside of it.
      first = jnp.where(image < images, line * tile.rows, rows + size)
      image = jnp.minimum(image, images - 1)
      at = tiles.down(block * tile.columns, tile.columns)
      outputs = tiles.Image(cotangent_ref, image, first, at, own, tile)
      given = [outputs.read(row, 0) for row in range(tile.rows)]
      inputs = tiles.Image(x_ref, image, first * stride, at * stride, own, tile)
      for line in range((tile.rows - 1) * stride + size):
        for j in range(size):
          values = inputs.read(line - top, j - left)
          for row, cotangents in enumerate(given):
            i = line - row * stride
            if 0 <= i < size:
              product = lax.mul(values, cotangents)
              totals[i, j] = lax.add(totals[i, j], product)
      return list(totals.values())

    zeros = [jnp.zeros(tile[1:3], jnp.float32)] * len(taps)
    totals = lax.fori_loop(0, each * across, add, zeros)
    for number, total in enumerate(totals):
      place = out_ref.at[share, number, own]
      triton.store(place, total.sum(0, keepdims=True), mask=own < channels)

  out = jax.ShapeDtypeStruct((shares, len(taps), channels), jnp.float32)
  sums = tiles.call(run, (blocks, shares), out, tile, interpret)(
    x, cotangent
  ).sum(0)
  return sums.reshape(size, size, 1, channels)


def _divided(number, by: int):
  return lax.div(number, jnp.int32(by)), lax.rem(number, jnp.int32(by))
