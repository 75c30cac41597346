"""A supernet on a mesh: what training, evaluation and extraction share."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.supernet import batch_norm, network, ops


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
  """How pixels become logits.

  Attributes:
    space: whose children are meant.
    where: the mesh.
    mean: per channel, of pixels in 0..1.
    std: likewise.
    dtype: of activations.
    bn_group_size: images that share batch statistics; None: all.
    recompute: see `Config`.
    image_size: pixels of the images in a batch; 0: those of the biggest child.
  """

  space: Space
  where: Mesh
  mean: tuple[float, ...]
  std: tuple[float, ...]
  dtype: Any = jnp.float32
  bn_group_size: int | None = None
  recompute: bool = False
  image_size: int = 0

  def __post_init__(self):
    if not self.image_size:
      size = max(self.space.train_resolution)
      object.__setattr__(self, 'image_size', size)

  def net(self, arch: Arch | None = None) -> network.Supernet:
    """The supernet, or a child of it as a network of its own."""
    space = self.space if arch is None else arch_lib.pin(self.space, arch)
    pooling = batch_norm.Pooling(self.where.axis_names, self.bn_group_size)
    recompute = self.recompute or arch is None
    return network.Supernet(space, self.dtype, pooling, recompute)

  @jax.named_scope('images')
  def images(self, pixels: jax.Array, resolution: int) -> jax.Array:
    """uint8 [batch, size, size, channels] -> normalised, resized floats."""
    return ops.resize(ops.normalise(pixels, self.mean, self.std), resolution)

  def image_keys(self, seed: int, step: jax.Array, local: int) -> jax.Array:
    """A key for each image of this device: of its place in the whole batch."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    first = lax.axis_index(self.where.axis_names) * local
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(
      first + jnp.arange(local)
    )
