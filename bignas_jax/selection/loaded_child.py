"""A child on its own as a function of images, for notebooks."""

import dataclasses
import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bignas_jax.data import identity, sources
from bignas_jax.deploy import package
from bignas_jax.spaces.arch import Arch
from bignas_jax.supernet import model, network
from bignas_jax.system import storage
from bignas_jax.values import errors, schema


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
  """A child on its own.

  Attributes:
    arch: architecture of the child.
    info: contents of `child.json`.
  """

  arch: Arch
  info: dict[str, Any]
  _child: package.Child

  def __call__(self, images: np.ndarray | jax.Array) -> jax.Array:
    """Returns logits, float32 [batch, classes].

    Args:
      images: uint8 [batch, size, size, channels]: of the supernet's size
        (`info['input']['image_size']`) or any other.

    Raises:
      UserError: `images` has another dtype or shape.
    """
    check_images(images, self.info['input']['channels'])
    return self._logits(self._child.variables, jnp.asarray(images))

  @functools.cached_property
  def _logits(self) -> Any:
    space = self._child.space
    alone = model.of_child(space, self.info['input'])
    net = network.Supernet(space)

    @jax.jit
    def logits(variables, pixels):
      return net.apply(variables, alone.images(pixels, self.arch.resolution))

    return logits

  def save(
    self, out: str | os.PathLike, data: sources.Data | None = None
  ) -> None:
    """Writes the child as a package, which `load_child` and commands read.

    Args:
      out: the package's directory: a new one, an empty one, or that of an
        older package.
      data: labelled images for `evaluate`, `export` and `serve`, with the
        child's own `mean` and `std`, whatever it says of these; None: those
        that the child was made with, if it has such.

    Raises:
      UserError: `out` holds something else, or `data` cannot be opened or has
        more classes than the child.
    """
    place = storage.of_value(out, 'out')
    package.check_place(place, 'out')
    info = self.info if data is None else self.info | self._described(data)
    package.save(place, dataclasses.replace(self._child, info=info))

  def _described(self, data: sources.Data) -> dict[str, Any]:
    """Returns what `child.json` says of the images that a child is for."""
    given = self.info['input']
    own = dataclasses.replace(
      data, mean=tuple(given['mean']), std=tuple(given['std'])
    )
    own = sources.placed(own)
    splits = sources.load(own, given['channels'])
    identity.check_classes(splits, self.info['classes'])
    return {
      'data': schema.plain(own),
      'class_names': list(splits.train.classes),
      'data_identity': identity.describe(splits),
    }


def check_images(images: Any, channels: int) -> None:
  """Checks that a value is a batch of images with as many channels.

  Raises:
    UserError: it has another dtype or shape, or is no array.
  """
  shape = getattr(images, 'shape', ())
  right = len(shape) == 4 and shape[3] == channels and 0 not in shape[1:3]
  if getattr(images, 'dtype', None) != np.uint8 or not right:
    text = f'{getattr(images, "dtype", type(images).__name__)} {shape}'
    allowed = f'an array, uint8 [batch, size, size, {channels}]'
    raise errors.UserError('images', text, allowed)
