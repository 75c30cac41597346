"""Depthwise convolutions and their gradients on NVIDIA GPUs, as Triton kernels.

Each thread of a program computes a patch of the output for two channels, and
reads each pixel that the patch needs once. Products are summed in float32.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

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
_Place = tuple[int, int]  # row and column, from the patch's first ones


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
  tile = tile or tiles.of_outputs(size, columns, stride)
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
  width = pl.cdiv(shape[2], stride)
  tile = tile or tiles.of_images(len(kernel), width, stride)
  return _weighted(cotangent, kernel, shape, 1, phases, stride, tile, interpret)


def _weighted(
  x, kernel, shape, step: int, phases, spread: int, tile: tiles.Tile, interpret
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
  high, wide = (pl.cdiv(n, spread) for n in (rows, columns))  # of one phase
  patches = tiles.Patches.cover(images, high, wide, tile)

  def run(x_ref, kernel_ref, y_ref):
    own = tiles.across(pl.program_id(0) * tile.channels, tile.channels)
    weights = {}
    for number, tap in enumerate(np.ndindex(*kernel.shape[:2])):
      place = kernel_ref.at[own + number * channels]
      values = triton.load(place, mask=own < channels, other=0.0)
      weights[tap] = tiles.spread(values, tile)
    image, row, column = patches.at(pl.program_id(1))
    place = image, row * step, column * step, own
    source = tiles.Images(x_ref, x.shape, *place)
    place = image, row * spread, column * spread, own
    result = tiles.Images(y_ref, shape, *place)
    for output, total in _sums(source, weights, step, phases, tile).items():
      phase, row, column = output
      below, right = divmod(phase, spread)
      result.write(row * spread + below, column * spread + right, total)

  grid = pl.cdiv(channels, tile.channels), patches.groups
  out = jax.ShapeDtypeStruct((math.prod(shape),), x.dtype)
  y = tiles.call(run, grid, out, interpret)(x.reshape(-1), kernel.reshape(-1))
  return y.reshape(shape)


def _sums(
  source: tiles.Images, weights, step: int, phases, tile: tiles.Tile
) -> dict[tuple[int, int, int], Array]:
  """Returns the weighted sums of a patch, by phase, row and column."""
  outputs = [
    (phase, row, column)
    for phase, *_ in phases
    for row, column in np.ndindex(tile.rows, tile.columns)
  ]
  totals = dict.fromkeys(outputs, jnp.zeros(tile.shape, jnp.float32))
  taps = {phase: of_axes for phase, *of_axes in phases}
  needed = _needed(
    ((row * step + down, column * step + across), (output, (i, j)))
    for output in outputs
    for phase, row, column in [output]
    for down, i in taps[phase][0]
    for across, j in taps[phase][1]
  )
  for place, uses in needed:
    value = source.read(*place)
    for output, tap in uses:
      product = lax.mul(value, weights[tap])
      totals[output] = lax.add(totals[output], product)
  return totals


def _needed(pairs: Iterable[tuple[_Place, Any]]) -> list[tuple[_Place, list]]:
  """Returns the places that are read, row by row, each with all its uses."""
  uses: dict[_Place, list] = {}
  for place, use in pairs:
    uses.setdefault(place, []).append(use)
  return sorted(uses.items())


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
  tile = tile or tiles.of_kernels(size, columns, stride)
  patches = tiles.Patches.cover(images, rows, columns, tile)
  blocks = pl.cdiv(channels, tile.channels)
  each = pl.cdiv(patches.groups, max(1, _PROGRAMS // blocks))
  shares = pl.cdiv(patches.groups, each)
  taps = list(np.ndindex(size, size))
  outputs = list(np.ndindex(tile.rows, tile.columns))
  (top, _), (left, _) = around
  needed = _needed(
    ((row * stride + i - top, column * stride + j - left), (output, (i, j)))
    for output in outputs
    for row, column in [output]
    for i, j in taps
  )

  def run(x_ref, cotangent_ref, out_ref):
    own = tiles.across(pl.program_id(0) * tile.channels, tile.channels)
    share = pl.program_id(1)

    def add(number, totals):
      totals = dict(zip(taps, totals, strict=True))
      image, row, column = patches.at(share * each + number)
      place = image, row, column, own
      of_patch = tiles.Images(cotangent_ref, cotangent.shape, *place)
      given = {output: of_patch.read(*output) for output in outputs}
      place = image, row * stride, column * stride, own
      source = tiles.Images(x_ref, x.shape, *place)
      for place, uses in needed:
        value = source.read(*place)
        for output, tap in uses:
          product = lax.mul(value, given[output])
          totals[tap] = lax.add(totals[tap], product)
      return list(totals.values())

    zeros = [jnp.zeros(tile.shape, jnp.float32)] * len(taps)
    totals = lax.fori_loop(0, each, add, zeros)
    for number, total in enumerate(totals):
      place = out_ref.at[share, number, own]
      triton.store(place, total.sum(0, keepdims=True), mask=own < channels)

  out = jax.ShapeDtypeStruct((shares, len(taps), channels), jnp.float32)
  flat = x.reshape(-1), cotangent.reshape(-1)
  sums = tiles.call(run, (blocks, shares), out, interpret)(*flat).sum(0)
  return sums.reshape(size, size, 1, channels)
