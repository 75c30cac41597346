"""A supernet on a mesh, as training, evaluation and extraction use it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key, UInt8

from bignas_jax.operations import ops
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.supernet import batch_norm, derived, network
from bignas_jax.system import mesh as mesh_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
  """A network with the preprocessing that turns pixels into its input.

  Attributes:
    space: space whose children can be built.
    mesh: mesh of devices.
    mean: mean per channel of pixels in 0..1.
    std: standard deviation per channel of pixels in 0..1.
    dtype: dtype of activations.
    bn_group_size: number of images that share batch statistics; None: all
      images of the batch share them.
    recompute: whether blocks of the biggest and the smallest child are computed
      again in the backward pass (`Config.recompute`).
    image_size: side of the images in a batch, pixels; 0: the largest training
      resolution.
  """

  space: Space
  mesh: Mesh
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
    """Returns the supernet, or a child of it as a network of its own."""
    space = derived.plain(self.space)
    if arch is not None:
      space = pinning.pin(space, arch)
    pooling = batch_norm.Pooling(self.mesh.axis_names, self.bn_group_size)
    recompute = self.recompute or not arch_lib.is_one(space)
    return network.Supernet(space, self.dtype, pooling, recompute)

  def resolve(self, params: Any, indices: Any) -> Any:
    """Returns what `net()` is applied to for a child (`network.resolve`)."""
    return network.resolve(self.space, params, indices)

  @jax.named_scope('images')
  def images(
    self,
    pixels: UInt8[ops.AnyArray, 'batch size size channels'],
    resolution: int,
  ) -> Float[Array, 'batch {resolution} {resolution} channels']:
    """Normalises pixels, and resizes them."""
    normalised = ops.normalise(pixels, self.mean, self.std)
    return ops.resize(normalised, resolution, self.space.resize)

  def image_keys(
    self, seed: int, step: Int[Array, ''], local: int
  ) -> Key[Array, '{local}']:
    """Returns a key per image of this device, by place in the whole batch."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    first = lax.axis_index(self.mesh.axis_names) * local
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(
      first + jnp.arange(local)
    )


def of_child(space: Space, given: Mapping[str, Any]) -> Model:
  """Returns a child on its own, on one device.

  Args:
    space: the child's space.
    given: what `child.json` says of its `input`.
  """
  return Model(
    space=space,
    mesh=mesh_lib.create(jax.devices()[:1]),
    mean=tuple(given['mean']),
    std=tuple(given['std']),
    image_size=given['image_size'],
  )
