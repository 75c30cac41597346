"""Both ends of the network, and what its modules with batch norms share."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bignas_jax.operations import convolution, ops
from bignas_jax.operations.pointwise import pointwise
from bignas_jax.spaces.space import Space
from bignas_jax.supernet import batch_norm, parameters


class NormModule(nn.Module):
  """A module that reads given statistics and stores moments."""

  space: Space
  pooling: batch_norm.Pooling

  def stats(self, name: str) -> Any:
    """Returns given statistics, or None where the batch's own are used."""
    if self.has_variable('batch_stats', name):
      return self.get_variable('batch_stats', name)
    return None

  def report(self, name: str, moments: Any) -> None:
    if self.is_mutable_collection('moments'):
      whole = functools.partial(batch_norm.whole_batch, pooling=self.pooling)
      self.put_variable('moments', name, jax.tree.map(whole, moments))

  def norm_and_activate(
    self,
    x: ops.Images,
    name: str,
    width: ops.Width | None = None,
    *,
    alone: bool = False,
  ) -> ops.Images:
    """Applies batch norm, which is `alone` if it follows no convolution."""
    epsilon = self.space.bn_epsilon

    def init(_):
      n = x.shape[-1]
      return (
        parameters.init_affine(n) if alone else parameters.init_norm(n, epsilon)
      )

    params = self.param(name, init)
    x, moments = batch_norm.batch_norm(
      x,
      params,
      self.stats(name),
      epsilon,
      self.pooling,
      activation=self.space.activation,
      width=width,
    )
    self.report(name, moments)
    return x


class Stem(NormModule):
  """A convolution, then batch norm, activation and pooling if there are."""

  @nn.compact
  def __call__(
    self, x: ops.Images, width: Int[Array, '']
  ) -> Float[Array, 'batch rows columns out']:
    space = self.space
    width_out = max(space.stem_width)
    size = space.stem_kernel
    shape = (size, size, space.channels, width_out)
    conv = self.param('conv', parameters.he_normal, shape, size**2 * width_out)
    x = convolution.conv(x, conv['kernel'], space.stem_stride, space.padding)
    active = ops.pick(list(space.stem_width), width)
    if space.stages[0].preactivated:
      x = ops.mask(x, active)
    else:
      x = self.norm_and_activate(x, 'bn', active)
    return ops.max_pool(x) if space.stem_pool else x


class Head(NormModule):
  """The layers from the last stage's output to features."""

  @nn.compact
  def __call__(
    self, x: ops.Images, widths: Int[Array, 'positions']
  ) -> Float[Array, 'batch features']:
    space = self.space
    if not space.head_width:
      if space.stages[-1].preactivated:
        width = ops.pick(list(space.stages[-1].width), widths[-1])
        x = self.norm_and_activate(x, 'bn', width, alone=True)
      return x.mean((1, 2))
    last, features = space.stages[-1].width, space.head_width
    hidden = features
    if space.head_expand is not None:
      hidden = tuple(w * space.head_expand for w in last)
    shape = (max(last), max(hidden))
    conv = self.param('conv', parameters.he_normal, shape, max(hidden))
    x = pointwise(x, conv['kernel'])
    position = widths[-1] if space.head_expand is None else widths[-2]
    width = ops.pick(list(hidden), position)
    x = self.norm_and_activate(x, 'bn', width).mean((1, 2))
    if space.head_expand is None:
      return x
    shape = (max(hidden), max(features))
    last_conv = self.param(
      'last_conv', parameters.he_normal, shape, max(features)
    )
    x = pointwise(x, last_conv['kernel'])
    x = ops.ACTIVATIONS[space.activation](x)
    return ops.mask(x, ops.pick(list(features), widths[-1]))


class Classifier(nn.Module):
  """A dense layer in float32, with small initial weights."""

  space: Space

  @nn.compact
  def __call__(
    self, x: Float[Array, 'batch features']
  ) -> Float[Array, 'batch classes']:
    classes = self.space.classes
    normal = nn.initializers.normal(0.01)
    params = {
      'kernel': self.param('kernel', normal, (x.shape[-1], classes)),
      'bias': self.param('bias', nn.initializers.zeros, (classes,)),
    }
    return ops.dense(x.astype(jnp.promote_types(jnp.float32, x.dtype)), params)
