"""Blocks in the smallest of their variants that holds a child, and stages.

`blocks` computes a variant; `branches` chooses one while a program runs.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bignas_jax.operations import ops, slicing
from bignas_jax.supernet import blocks, branches
from bignas_jax.supernet.accumulator import Accumulator
from bignas_jax.supernet.blocks import Params, apply, shapes
from bignas_jax.supernet.drop_connect import DropConnect
from bignas_jax.supernet.stage_blocks import Active, Block


def switch(
  block: Block,
  accumulator: Accumulator,
  stats: Params | None,
  x: ops.Images,
  active: Active,
  drop: DropConnect | None = None,
  *,
  recompute: bool = True,
) -> tuple[Float[Array, 'batch rows columns out'], Params, Accumulator]:
  """Computes the smallest variant that holds the active hidden channels.

  Arguments, output and moments are those of `apply`, at the block's largest
  shapes; `accumulator` is that of `branches.switch`. Without `recompute`
  residuals are stored, and the whole block is computed.
  """
  if not recompute:
    y, remembered = apply(
      block, accumulator.params, stats, x, active, drop=drop
    )
  else:
    y, remembered, accumulator = branches.switch(
      _chosen(block, active),
      _branches(block),
      accumulator,
      x,
      (stats, active, drop),
    )
  return y, remembered['moments'], accumulator


def chain(
  block: Block,
  accumulator: Accumulator,
  stats: Params | None,
  x: ops.Images,
  active: Active,
  count: ops.Width,
  drop: DropConnect | None = None,
  *,
  recompute: bool = True,
) -> tuple[ops.Images, Params, Accumulator]:
  """Computes the first `count` of equal blocks, whose parameters are stacked.

  Arguments are those of `switch`; kernel size and expand ratio in `active` may
  be arrays with an entry for each block, and `drop` has an entry for each.
  Without `recompute` all blocks are computed.
  """
  if recompute:
    y, remembered, accumulator = branches.chain(
      _chosen(block, active),
      _branches(block),
      None if isinstance(count, int) else count,
      accumulator,
      x,
      (stats, active, drop),
    )
    return y, remembered['moments'], accumulator

  def compute(x, one):
    params, stats, index = one
    own = _of_entry(active, index)
    dropped = None if drop is None else drop.of_entry(index)
    x, remembered = apply(block, params, stats, x, own, drop=dropped)
    return x, remembered['moments']

  # Residuals stacked by a loop cost more to move than to compute.
  blocks = jax.tree.leaves(accumulator.params)[0].shape[0]
  stacks = accumulator.params, stats, jnp.arange(blocks)
  y, moments = jax.lax.scan(compute, x, stacks, unroll=True)
  return y, moments, accumulator


def _chosen(block: Block, active: Active) -> Int[Array, '*blocks']:
  if block.stage.separate_weights:
    return block.operation(active)
  return jnp.asarray(ops.pick(block.variant(), block.pair(active)))


def _of_entry(active: Active, index: Any) -> Active:
  """Returns the choices of one block of a stack."""
  if jnp.ndim(active.kernel_size) == 0:
    return active
  widths, choices = active[:2], active[2:]
  return Active(*widths, *jax.tree.map(lambda some: some[index], choices))


@functools.cache
def _branches(block: Block) -> tuple[branches.Branch, ...]:
  """Returns a block's branches, the same objects whenever it is asked."""
  if block.stage.separate_weights:
    return tuple(
      branches.Branch(
        {name: shapes(one)} if shapes(one) else {},
        functools.partial(_compute_operation, name, one),
      )
      for name, one in block.operations().items()
    )
  return tuple(
    branches.Branch(shapes(variant), functools.partial(_compute, variant))
    for variant in block.variants()
  )


def _compute(variant: Block, params, x, constants, cached, index):
  stats, active, drop = constants
  active = _of_entry(active, index)
  if drop is not None and index is not None:
    drop = drop.of_entry(index)
  if stats is not None:
    stats = slicing.shrink(stats, blocks.stats_shapes(variant), index=index)
  return apply(variant, params, stats, x, active, cached, drop)


def _compute_operation(
  name: str, one: Block, params, x, constants, cached, index
):
  stats, active, drop = constants
  stats = None if stats is None else stats.get(name, {})
  if cached is not None:
    cached = cached | {'moments': cached['moments'].get(name, {})}
  active = active._replace(kernel_size=0, expand_ratio=0)
  own = params.get(name, {})
  y, remembered = _compute(one, own, x, (stats, active, drop), cached, index)
  moments = remembered['moments']
  return y, remembered | {'moments': {name: moments} if moments else {}}
