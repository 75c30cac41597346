"""The supernet: one Flax module whose children share its parameters.

`Supernet(space).apply(variables, images, indices)` computes the child that
`indices` names. A child as a network of its own is this module at a pinned
space: every shape is static, nothing of the supernet is left.

Collections: `params`; `batch_stats`, if given, normalise (evaluation), else
the batch's own do (training, calibration); `moments`, if mutable, receive
E[x] and E[x^2] of every batch norm's input; `accumulator`, if mutable,
receives each recomputed block's `accumulator.Accumulator`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from bignas_jax.operations import ops, slicing
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning
from bignas_jax.spaces.arch import Arch, Indices
from bignas_jax.spaces.space import Space
from bignas_jax.supernet import (
  batch_norm,
  blocks,
  derived,
  elastic_blocks,
  ends,
  parameters,
  stage_blocks,
)
from bignas_jax.supernet.accumulator import COLLECTION, Accumulator
from bignas_jax.supernet.drop_connect import DropConnect, DropRates
from bignas_jax.supernet.stage_blocks import Active, Block

Variables = dict[str, Any]


class Supernet(nn.Module):
  """A network that computes any child of a space.

  Attributes:
    space: space of the children.
    dtype: dtype of activations; parameters, statistics and logits stay float32.
    pooling: how batch statistics are pooled.
    recompute: whether blocks are computed again in the backward pass, not
      stored; False is for a space of one architecture.
    gated: whether parallel members have gates among their parameters.
  """

  space: Space
  dtype: Any = jnp.float32
  pooling: batch_norm.Pooling = batch_norm.Pooling()
  recompute: bool = True
  gated: bool = False

  @nn.compact
  def __call__(
    self,
    images: Float[ops.AnyArray, 'batch resolution resolution channels'],
    indices: Indices | None = None,
    *,
    dropout_rate: float = 0.0,
    dropout_keys: Key[Array, 'batch'] | None = None,
    drop_rates: DropRates = DropRates(),  # noqa: B008
    probe: Float[Array, ''] | None = None,
  ) -> Float[Array, 'batch classes']:
    """Returns logits in float32.

    Args:
      images: normalised images.
      indices: the child; None where the space holds one architecture only.
      dropout_rate: dropout rate before the classifier.
      dropout_keys: keys of the images, needed if a rate is above 0.
      drop_rates: rates of drop-connect.
      probe: a scalar that blocks pass through (`accumulator.Accumulator`).
    """
    space = self.space
    if indices is None:
      assert arch_lib.is_one(space), 'which child?'
      indices = arch_lib.encode(space, arch_lib.biggest(space))
    given = indices._replace(bank=None)
    indices = Indices(*(a if a is None else jnp.asarray(a) for a in given))
    if probe is None:
      probe = jnp.zeros(())
    x = ends.Stem(space, self.pooling, name='stem')(
      jnp.asarray(images, self.dtype), indices.width[0]
    )
    for i in range(len(space.stages)):
      widths = indices.width[i], indices.width[i + 1]
      stage = StageModule(
        space,
        self.pooling,
        i,
        self.recompute,
        self.gated,
        name=f'stage{i + 1}',
      )
      own = stage_blocks.own_indices(space, indices, i)
      drop = drop_rates.of_stage(space, i, indices.depth, dropout_keys)
      x = stage(x, widths, own, probe, drop)
    x = ends.Head(space, self.pooling, name='head')(x, indices.width)
    if dropout_rate > 0:
      assert dropout_keys is not None
      x = ops.dropout(x, dropout_rate, dropout_keys)
    return ends.Classifier(space, name='classifier')(x)


class StageModule(ends.NormModule):
  """A first block, and the others with stacked parameters in one loop.

  A stage that some children have no block of has others only.
  """

  number: int
  recompute: bool
  gated: bool

  @nn.compact
  def __call__(
    self,
    x: ops.Images,
    widths: tuple[Int[Array, ''], Int[Array, '']],
    indices: Indices,
    probe: Float[Array, ''],
    drop: tuple[DropConnect | None, DropConnect | None],
  ) -> Float[Array, 'batch rows columns out']:
    """Runs as many blocks as `indices.depth` says.

    Args:
      x: images.
      widths: positions of the stage's input and output width.
      indices: this stage's entries.
      probe: probe of `accumulator.Accumulator`.
      drop: drop-connect of the first block and of the others.
    """
    space = self.space
    stage = space.stages[self.number]
    inside = (
      *(indices.kernel_size, indices.expand_ratio),
      *(indices.parallel, indices.squeeze_excite),
    )
    of_first_block = of_other_blocks = inside
    if space.per_block and not stage.optional:
      of_first_block = jax.tree.map(lambda positions: positions[0], inside)
      of_other_blocks = jax.tree.map(lambda positions: positions[1:], inside)
    described = stage_blocks.of_stage(space, self.number, self.pooling)
    if self.gated and stage.parallel:
      described = {
        name: dataclasses.replace(block, gated=True)
        for name, block in described.items()
      }
    first, rest = described.get('first'), described.get('rest')
    of_first, of_rest, had = None, None, 0 if first is None else 1
    if first is not None:
      of_first = self.param('first', parameters.init, first)
    if rest is not None:
      of_rest = self.param('rest', _init_stack, rest, max(stage.depth) - had)
    if self.is_initializing():  # only parameters are needed
      return ops.resize_channels(x, max(stage.width))

    if first is not None:
      x, moments, accumulator = elastic_blocks.switch(
        first,
        Accumulator(of_first, probe),
        self.stats('first'),
        x,
        Active(*widths, *of_first_block),
        drop[0],
        recompute=self.recompute,
      )
      self.report('first', moments)
      self.pass_on('first', accumulator)
    if rest is None:
      return x

    x, moments, accumulator = elastic_blocks.chain(
      rest,
      Accumulator(of_rest, probe),
      self.stats('rest'),
      x,
      Active(widths[1], widths[1], *of_other_blocks),
      ops.pick([depth - had for depth in stage.depth], indices.depth),
      drop[1],
      recompute=self.recompute,
    )
    self.report('rest', moments)
    self.pass_on('rest', accumulator)
    return x

  def pass_on(self, name: str, accumulator: Accumulator) -> None:
    """Stores a recomputed block's accumulator, if it is asked for."""
    if self.recompute and self.is_mutable_collection(COLLECTION):
      self.put_variable(COLLECTION, name, accumulator)


def _init_stack(key: Key[Array, ''], block: Block, n: int) -> blocks.Params:
  keys = jax.random.split(key, n)
  return jax.vmap(lambda key: parameters.init(key, block))(keys)


def images_like(
  space: Space, resolution: int, batch: int = 1
) -> jax.ShapeDtypeStruct:
  """Returns the shape of a batch of images."""
  shape = (batch, resolution, resolution, space.channels)
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def init(space: Space, key: Key[Array, '']) -> Variables:
  """Returns the supernet's parameters; jit or eval_shape it."""
  images = jnp.zeros(images_like(space, space.train_resolution[0]).shape)
  indices = arch_lib.encode(space, arch_lib.biggest(space))
  variables: Any = Supernet(derived.plain(space)).init(key, images, indices)
  return derived.extend(space, variables['params'], norms(space))


@functools.lru_cache(maxsize=4096)
def shapes(space: Space) -> Variables:
  """Returns shapes of the supernet's `params`."""
  return jax.eval_shape(lambda: init(space, jax.random.key(0)))


def _of_blocks(space: Space, of: Callable[[Block], Any]) -> dict[str, Any]:
  """Returns a value for each block description, nested as parameters are."""
  pooling = batch_norm.Pooling()
  return {
    f'stage{i + 1}': {
      name: of(block)
      for name, block in stage_blocks.of_stage(space, i, pooling).items()
    }
    for i in range(len(space.stages))
  }


def centred(space: Space) -> slicing.Centred:
  """Returns axes of the parameters that a child takes the middle of."""
  return _of_blocks(space, lambda block: blocks.CENTRED)


def norms(space: Space) -> dict[str, Any]:
  """Returns the convolution before each batch norm, nested as parameters are.

  None: the batch norm follows no convolution. A folded network has no batch
  norms.
  """
  if space.bn_epsilon is None:
    return {}
  outer: dict[str, Any] = {}
  if not space.stages[0].preactivated:
    outer['stem'] = {'bn': 'conv'}
  if space.head_width or space.stages[-1].preactivated:
    outer['head'] = {'bn': 'conv' if space.head_width else None}
  return outer | _of_blocks(space, parameters.norms)


def stats_shapes(space: Space) -> Variables:
  """Returns shapes of `batch_stats`: `mean` and `var` of every batch norm."""
  return parameters.stats_shapes(norms(space), shapes(derived.plain(space)))


def variables_shapes(space: Space) -> Variables:
  """Returns shapes of a network's `params` and `batch_stats`."""
  return {'params': shapes(space), 'batch_stats': stats_shapes(space)}


def resolve(space: Space, params: Variables, indices: Indices) -> Variables:
  """Returns parameters of the plain space's supernet, for one child.

  A module for a space is always that of its plain space (`derived`).
  """
  if derived.is_plain(space):
    return params
  return derived.resolve(space, params, norms(space), indices)


def slice_child(space: Space, variables: Variables, arch: Arch) -> Variables:
  """Returns the child's own variables, for `Supernet(pin(space, arch))`.

  Args:
    space: space of the supernet.
    variables: `params` of the supernet, and `batch_stats` if they were
      calibrated for this child.
    arch: the child.
  """
  own = pinning.pin(space, arch)
  params = resolve(space, variables['params'], arch_lib.encode(space, arch))
  params = derived.by_pinned_stage(space, arch, params)
  out = {'params': slicing.shrink(params, shapes(own), centred(own))}
  if 'batch_stats' in variables:
    stats = derived.by_pinned_stage(space, arch, variables['batch_stats'])
    out['batch_stats'] = slicing.shrink(stats, stats_shapes(own))
  return out
