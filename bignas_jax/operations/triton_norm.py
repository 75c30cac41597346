"""The sums of a batch norm's gradient on NVIDIA GPUs, as a Triton kernel.

XLA does not compute an activation's slope within a reduction: it writes the
product of slope and cotangent to memory, and reads it again. The kernel reads
images and cotangents once.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from bignas_jax.operations import triton_tiles as tiles


class Tile(NamedTuple):
  """What a program reads at a time.

  Attributes:
    pixels: number of pixels, a power of 2.
    channels: number of channels, a power of 2.
  """

  pixels: int
  channels: int


_TILE = Tile(32, 32)  # the fastest of six on an H200 (docs/performance.md)
_WARPS = 4  # of a program
_PROGRAMS = 2048  # of a kernel; they fill a GPU of 132 cores


@functools.partial(jax.jit, static_argnames=('slope', 'tile', 'interpret'))
def gradient_sums(
  x: Float[Array, 'pixels channels'],
  cotangent: Float[Array, 'pixels channels'],
  factor: Float[Array, 'channels'],
  shift: Float[Array, 'channels'],
  slope: Callable,
  *,
  tile: Tile = _TILE,
  interpret: bool = False,
) -> Float[Array, '2 channels']:
  """Sums d and d * x over pixels, for d = cotangent * slope(x factor + shift).

  Args:
    x: pixels before the norm.
    cotangent: cotangent of the activation's output.
    factor: what the norm multiplies each channel by.
    shift: what it adds.
    slope: derivative of the activation.
    tile: what a program reads at a time.
    interpret: whether the kernel runs on a CPU, slowly.

  Returns:
    The two sums of each channel, in float32.
  """
  pixels, channels = x.shape
  blocks = pl.cdiv(channels, tile.channels)
  chunks = pl.cdiv(pixels, tile.pixels)
  each = pl.cdiv(chunks, max(1, _PROGRAMS // blocks))
  shares = pl.cdiv(chunks, each)

  def run(x_ref, cotangent_ref, factor_ref, shift_ref, out_ref):
    own = tiles.across(pl.program_id(0) * tile.channels, tile.channels)
    inside = own < channels
    share = pl.program_id(1)
    factors, shifts = (
      triton.load(ref.at[own], mask=inside, other=0)
      for ref in (factor_ref, shift_ref)
    )

    def add(number, totals):
      first = (share * each + number) * tile.pixels
      at = tiles.down(first, tile.pixels)
      place = at, own
      mask = (at < pixels) & inside
      values, cotangents = (
        triton.load(ref.at[place], mask=mask, other=0).astype(jnp.float32)
        for ref in (x_ref, cotangent_ref)
      )
      product = cotangents * slope(values * factors + shifts)
      return totals[0] + product, totals[1] + product * values

    zeros = jnp.zeros((tile.pixels, tile.channels), jnp.float32)
    totals = lax.fori_loop(0, each, add, (zeros, zeros))
    for number, total in enumerate(totals):
      place = out_ref.at[number, share, own]
      triton.store(place, total.sum(0, keepdims=True), mask=inside)

  return pl.pallas_call(
    run,
    grid=(blocks, shares),
    out_shape=jax.ShapeDtypeStruct((2, shares, channels), jnp.float32),
    compiler_params=triton.CompilerParams(num_warps=_WARPS, num_stages=1),
    interpret=interpret,
  )(x, cotangent, factor, shift).sum(1)
