"""StableHLO, by `jax.export`: one file for CPUs, TPUs and GPUs.

The batch size is symbolic. `jax.export.deserialize` reads the file back,
without this package.
"""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax import lax

from bignas_jax.deploy.graph import Network
from bignas_jax.operations import convolution, depthwise, ops
from bignas_jax.operations.pointwise import pointwise

NAME = 'model.stablehlo'
PLATFORMS = ('cpu', 'tpu', 'cuda')


class Jax:
  """A `graph.Library` that computes with this package's own operations.

  It uses them so that each platform gets the formulation of a depthwise
  convolution that is fastest there. Products have JAX's default precision,
  except those of the resize, which have the highest, because in pixels the
  rounding of TPUs to bfloat16 would be visible.
  """

  def conv(self, x, kernel, bias, stride, padding, groups=1):
    if kernel.shape[:2] == (1, 1) and stride == groups == 1:
      y = pointwise(x, jnp.asarray(kernel[0, 0]))
    else:
      y = convolution.conv(x, jnp.asarray(kernel), stride, padding)
    return y if bias is None else y + bias

  def depthwise(self, x, kernel, bias, stride, padding):
    return depthwise.depthwise(x, jnp.asarray(kernel), stride, padding) + bias

  def average_pool(self, x):
    return ops.average_pool(x)

  def max_pool(self, x):
    return ops.max_pool(x)

  def mean(self, x):
    return x.mean((1, 2))

  def dense(self, x, kernel, bias):
    y = pointwise(x, jnp.asarray(kernel))
    return y if bias is None else y + bias

  def add(self, x, y):
    return x + y

  def scale(self, x, gates):
    return x * gates[:, None, None, :]

  def activate(self, x, name):
    return ops.ACTIVATIONS[name](x)

  def normalise(self, pixels, factor, shift):
    return pixels.astype(jnp.float32) * factor + shift

  def resize(self, x, matrix):
    highest = lax.Precision.HIGHEST
    return jnp.einsum('bhwc,yh,xw->byxc', x, matrix, matrix, precision=highest)


def check() -> None:
  """Does nothing, since the format needs only what this package needs."""


def function(network: Network) -> Callable[[Any], jax.Array]:
  """Returns a JAX function from images to logits."""
  return lambda images: network.logits(Jax(), images)


def write(network: Network, directory: pathlib.Path) -> dict[str, Any]:
  """Writes the artifact and returns its entry for the manifest."""
  (batch,) = jax.export.symbolic_shape('batch')
  images = jax.ShapeDtypeStruct((batch, *network.shape), network.dtype)
  made = jax.jit(function(network))
  with _without_paths():
    exported = jax.export.export(made, platforms=PLATFORMS)(images)
  (directory / NAME).write_bytes(exported.serialize())
  return {
    'platforms': list(exported.platforms),
    'calling_convention_version': exported.calling_convention_version,
    'versions': {'jax': jax.__version__, 'jaxlib': metadata.version('jaxlib')},
  }


@contextlib.contextmanager
def _without_paths() -> Iterator[None]:
  """Keeps paths of this machine's source files out of what JAX exports."""
  name = 'jax_traceback_in_locations_limit'
  limit = getattr(jax.config, name)
  jax.config.update(name, 0)
  try:
    yield
  finally:
    jax.config.update(name, limit)


def load(directory: pathlib.Path) -> Callable[[np.ndarray], np.ndarray]:
  """Returns a function from images to logits that runs the artifact."""
  data = bytearray((directory / NAME).read_bytes())
  run = jax.jit(jax.export.deserialize(data).call)
  return lambda images: np.asarray(run(images))
