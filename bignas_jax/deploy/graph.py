"""A child as a plain network: written once, for any library of few operations.

No masks, no switches, no loops, no batch norms: what a child is when nothing
of the supernet is left. An exporter hands in a `Library`, which computes (JAX)
or builds a graph (ONNX, TensorFlow).
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from bignas_jax.deploy import folding, package
from bignas_jax.spaces.space import Space, Stage
from bignas_jax.supernet import ops

Array = Any  # the library's own: an array, a tensor, the name of one


class Library(Protocol):
  """Operations on images [batch, height, width, channels] in float32.

  Layouts are what arguments have; a library may keep its own inside. Weights
  are NumPy arrays.
  """

  def conv(
    self,
    x: Array,
    kernel: np.ndarray,
    bias: np.ndarray | None,
    stride: int,
    padding: ops.Padding,
  ) -> Array:
    """Kernel [k, k, in, out]; bias [out]."""
    ...

  def depthwise(
    self,
    x: Array,
    kernel: np.ndarray,
    bias: np.ndarray,
    stride: int,
    padding: ops.Padding,
  ) -> Array:
    """Kernel [k, k, 1, channels]; bias [channels]."""
    ...

  def average_pool(self, x: Array) -> Array:
    """2x2 with stride 2; odd edges average what is there."""
    ...

  def mean(self, x: Array) -> Array:
    """Over height and width: [batch, channels]."""
    ...

  def dense(
    self, x: Array, kernel: np.ndarray, bias: np.ndarray | None
  ) -> Array:
    """Of [batch, in]; kernel [in, out], bias [out]."""
    ...

  def add(self, x: Array, y: Array) -> Array: ...

  def scale(self, x: Array, gates: Array) -> Array:
    """Images times [batch, channels]."""
    ...

  def activate(self, x: Array, name: str) -> Array:
    """Of `ops.ACTIVATIONS`, of images or of [batch, channels]."""
    ...

  def normalise(
    self, pixels: Array, factor: np.ndarray, shift: np.ndarray
  ) -> Array:
    """uint8 images times and plus a number a channel."""
    ...

  def resize(self, x: Array, matrix: np.ndarray) -> Array:
    """Square images [batch, n, n, channels] along both axes, by [m, n]."""
    ...


@dataclasses.dataclass(frozen=True)
class Network:
  """From images to logits.

  Attributes:
    space: folded, of a single network.
    params: of the folded network.
    shape: of an image, [size, size, channels].
    dtype: of images: `float32`, normalised; or `uint8`, as the training data
      were before they were normalised and resized.
    mean: per channel, of pixels in 0..1.
    std: likewise.
  """

  space: Space
  params: dict[str, Any]
  shape: tuple[int, int, int]
  dtype: str
  mean: tuple[float, ...]
  std: tuple[float, ...]

  def logits(self, library: Library, images: Array) -> Array:
    """[batch, classes]."""
    x = images
    if self.dtype == 'uint8':
      std, mean = (np.asarray(v, np.float32) for v in (self.std, self.mean))
      x = library.normalise(x, 1 / (255 * std), -mean / std)
      (resolution,) = self.space.resolution
      if resolution != self.shape[0]:
        x = library.resize(x, bicubic(self.shape[0], resolution))
    return logits(library, self.space, self.params, x)


def network(child: package.Child, *, preprocess: bool = False) -> Network:
  """A child, its batch norms folded if they were not.

  Args:
    child: as loaded.
    preprocess: whether images are uint8, normalised and resized inside.
  """
  space, variables = folding.fold(child.space, child.variables)
  given = child.info['input']
  size = given['image_size' if preprocess else 'resolution']
  return Network(
    space=space,
    params=variables['params'],
    shape=(size, size, space.channels),
    dtype='uint8' if preprocess else 'float32',
    mean=tuple(given['mean']),
    std=tuple(given['std']),
  )


def bicubic(size: int, resolution: int) -> np.ndarray:
  """[resolution, size]: what `ops.resize` does along an axis."""
  shape = (resolution, size)
  with jax.ensure_compile_time_eval():  # weights, also where JAX is tracing
    ones = jnp.eye(size, dtype=jnp.float32)
    return np.asarray(jax.image.resize(ones, shape, 'bicubic'))


def logits(
  library: Library, space: Space, params: dict[str, Any], x: Array
) -> Array:
  """[batch, classes] of a folded network, from normalised images."""
  x = stem(library, space, params['stem'], x)
  for i, stage in enumerate(space.stages):
    for j, own in enumerate(_blocks(params[f'stage{i + 1}'])):
      stride = 1 if j else stage.stride
      x = block(library, stage, own, x, stride, space.padding)
  return head(library, space, params, x)


def stem(
  library: Library, space: Space, params: dict[str, Any], x: Array
) -> Array:
  """`network.Stem` of one network."""
  kernel, bias = params['conv']['kernel'], params['bn']['bias']
  x = library.conv(x, kernel, bias, space.stem_stride, space.padding)
  return library.activate(x, 'swish')


def head(
  library: Library, space: Space, params: dict[str, Any], x: Array
) -> Array:
  """`network.Head` and `network.Classifier` of one network."""
  own = params['head']
  x = _pointwise(library, x, own['conv'], own['bn'])
  x = library.mean(library.activate(x, 'swish'))
  if space.head_expand is not None:
    x = library.dense(x, own['last_conv']['kernel'], None)
    x = library.activate(x, 'swish')
  return library.dense(x, **params['classifier'])


def _blocks(stage: dict[str, Any]) -> Iterator[dict[str, Any]]:
  """The first one, and those that are stacked."""
  yield stage['first']
  rest = stage.get('rest')
  if rest is not None:
    for i in range(len(rest['depthwise']['kernel'])):
      yield jax.tree.map(lambda stacked, i=i: stacked[i], rest)


def block(
  library: Library,
  stage: Stage,
  params: dict[str, Any],
  x: Array,
  stride: int,
  padding: ops.Padding,
) -> Array:
  """`mbconv.apply`, of a block that is one network's only."""
  h = x
  if 'expand' in params:
    h = _pointwise(library, h, params['expand'], params['expand_bn'])
    h = library.activate(h, 'swish')
  kernel, bias = params['depthwise']['kernel'], params['depthwise_bn']['bias']
  h = library.depthwise(h, kernel, bias, stride, padding)
  h = library.activate(h, 'swish')
  if stage.se is not None:
    gates = library.dense(library.mean(h), **params['se']['reduce'])
    gates = library.activate(gates, stage.se.activation)
    gates = library.dense(gates, **params['se']['expand'])
    h = library.scale(h, library.activate(gates, stage.se.gate))
  h = _pointwise(library, h, params['project'], params['project_bn'])
  if stride == 2:
    x = library.average_pool(x)
  if 'shortcut' in params:
    x = _pointwise(library, x, params['shortcut'], {'bias': None})
  return library.add(h, x)


def _pointwise(library: Library, x: Array, conv, norm) -> Array:
  """1x1 convolution; kernel [in, out]."""
  kernel = conv['kernel'][None, None]
  return library.conv(x, kernel, norm['bias'], 1, 'same')
