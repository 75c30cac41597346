"""A child as a plain network, written once for any library of few operations.

Masks, switches, loops, batch norms and everything else of the supernet are
gone. An exporter passes a `Library`, which computes (JAX) or builds a graph
(ONNX, TensorFlow).
"""

import dataclasses
from typing import Any, Protocol

import jax
import numpy as np

from bignas_jax.costs.layers import layers
from bignas_jax.deploy import folding, package
from bignas_jax.operations import ops
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import block_kinds
from bignas_jax.spaces.space import Space
from bignas_jax.spaces.stage import Stage

Array = Any  # the library's own type: an array, a tensor, the name of one


class Library(Protocol):
  """Operations on images [batch, height, width, channels] in float32.

  The layout is that of arguments; a library may use another one inside. Weights
  are NumPy arrays.
  """

  def conv(
    self,
    x: Array,
    kernel: np.ndarray,
    bias: np.ndarray | None,
    stride: int,
    padding: ops.Padding,
    groups: int = 1,
  ) -> Array:
    """Convolves images with a kernel [k, k, in / groups, out].

    It adds a bias [out], unless it is None.
    """
    ...

  def depthwise(
    self,
    x: Array,
    kernel: np.ndarray,
    bias: np.ndarray,
    stride: int,
    padding: ops.Padding,
  ) -> Array:
    """Convolves each channel; kernel [k, k, 1, channels], bias [channels]."""
    ...

  def average_pool(self, x: Array) -> Array:
    """Averages 2x2 pixels with stride 2, fewer at the edge of an odd side."""
    ...

  def max_pool(self, x: Array) -> Array:
    """Takes maxima of 3x3 pixels with stride 2; edges see fewer pixels."""
    ...

  def mean(self, x: Array) -> Array:
    """Averages images over height and width to [batch, channels]."""
    ...

  def dense(
    self, x: Array, kernel: np.ndarray, bias: np.ndarray | None
  ) -> Array:
    """Multiplies [batch, in] by a kernel [in, out] and adds a bias [out].

    A bias of None is not added.
    """
    ...

  def add(self, x: Array, y: Array) -> Array:
    """Returns the sum of two batches of images."""
    ...

  def scale(self, x: Array, gates: Array) -> Array:
    """Multiplies images by gates [batch, channels]."""
    ...

  def activate(self, x: Array, name: str) -> Array:
    """Applies one of `ops.ACTIVATIONS` to images or to [batch, channels]."""
    ...

  def normalise(
    self, pixels: Array, factor: np.ndarray, shift: np.ndarray
  ) -> Array:
    """Multiplies uint8 images by a factor [channels] and adds a shift.

    The shift is [channels], too; the result is float32.
    """
    ...

  def resize(self, x: Array, matrix: np.ndarray) -> Array:
    """Resizes square images [batch, n, n, channels] by a matrix [m, n].

    The matrix is applied along both axes.
    """
    ...


@dataclasses.dataclass(frozen=True)
class Network:
  """A single network that computes logits from images.

  Attributes:
    space: folded space of the single network.
    params: parameters of the folded network.
    shape: shape of an image, [size, size, channels].
    dtype: type of images: `float32`, which are normalised, or `uint8`, which
      are as the training data were before they were normalised and resized.
    mean: mean of each channel, for pixels in 0..1.
    std: standard deviation of each channel, for pixels in 0..1.
  """

  space: Space
  params: dict[str, Any]
  shape: tuple[int, int, int]
  dtype: str
  mean: tuple[float, ...]
  std: tuple[float, ...]

  def logits(self, library: Library, images: Array) -> Array:
    """Returns logits [batch, classes]."""
    x = images
    if self.dtype == 'uint8':
      std, mean = (np.asarray(v, np.float32) for v in (self.std, self.mean))
      x = library.normalise(x, 1 / (255 * std), -mean / std)
      (resolution,) = self.space.resolution
      if resolution != self.shape[0]:
        how = self.space.resize
        matrix = ops.resize_matrix(self.shape[0], resolution, how)
        x = library.resize(x, matrix)
    return logits(library, self.space, self.params, x)


def network(child: package.Child, *, preprocess: bool = False) -> Network:
  """Returns a child as a network, with its batch norms folded.

  Args:
    child: the child as `package.load` returns it.
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


def logits(
  library: Library, space: Space, params: dict[str, Any], x: Array
) -> Array:
  """Returns logits [batch, classes] of a folded network.

  Args:
    library: computes or builds the operations.
    space: folded space of a single network.
    params: parameters of the folded network.
    x: normalised images.
  """
  x = stem(library, space, params['stem'], x)
  for layer in layers(space, arch_lib.biggest(space)):
    if layer.is_block:
      stage, stride = layer.of(space), layer.stride(space)
      own = _own(params[f'stage{layer.stage}'], layer.block)
      shortcut = layer.has_shortcut(space)
      x = block(
        library, stage, own, x, stride, space.padding, shortcut=shortcut
      )
  return head(library, space, params, x)


def stem(
  library: Library, space: Space, params: dict[str, Any], x: Array
) -> Array:
  """Applies the stem, which is `ends.Stem` for a single network."""
  kernel, bare = params['conv']['kernel'], space.stages[0].preactivated
  bias = None if bare else params['bn']['bias']
  x = library.conv(x, kernel, bias, space.stem_stride, space.padding)
  if not bare:
    x = library.activate(x, space.activation)
  return library.max_pool(x) if space.stem_pool else x


def head(
  library: Library, space: Space, params: dict[str, Any], x: Array
) -> Array:
  """Applies `ends.Head` and `ends.Classifier` for a single network."""
  if space.head_width:
    own = params['head']
    x = _pointwise(library, x, own['conv'], own['bn'])
    x = library.activate(x, space.activation)
  elif space.stages[-1].preactivated:
    x = _affine(library, x, params['head']['bn'], space.activation)
  x = library.mean(x)
  if space.head_expand is not None:
    x = library.dense(x, params['head']['last_conv']['kernel'], None)
    x = library.activate(x, space.activation)
  return library.dense(x, **params['classifier'])


def _own(stage: dict[str, Any], block: int) -> dict[str, Any]:
  """Returns the parameters of a block; all but the first are stacked."""
  if block == 0:
    return stage['first']
  return jax.tree.map(lambda stacked: stacked[block - 1], stage['rest'])


def block(
  library: Library,
  stage: Stage,
  params: dict[str, Any],
  x: Array,
  stride: int,
  padding: ops.Padding,
  *,
  shortcut: bool = True,
) -> Array:
  """Applies a block, which is `blocks.apply` for a single network."""
  convs, h = block_kinds.convs(stage), x
  if stage.preactivated:
    h = _affine(library, x, params['pre_bn'], stage.activation)
  source = h if 'shortcut' in params else x
  for conv in convs:
    if conv is convs[-1] and stage.se is not None:
      gates = library.dense(library.mean(h), **params['se']['reduce'])
      gates = library.activate(gates, stage.se.activation)
      gates = library.dense(gates, **params['se']['expand'])
      h = library.scale(h, library.activate(gates, stage.se.gate))
    kernel = params[conv.name]['kernel']
    norm: Any = params.get(f'{conv.name}_bn', {'bias': None})
    bias = norm['bias']
    own = stride if conv.strided else 1
    if conv.kind == 'depthwise':
      h = library.depthwise(h, kernel, bias, own, padding)
    elif conv.kind == 'dense':
      h = library.conv(h, kernel, bias, own, padding, stage.groups)
    else:
      h = library.conv(h, kernel[None, None], bias, 1, 'same')
    if conv.activated:
      h = library.activate(h, stage.activation)
  if not convs:
    return _shortcut(library, stage, params, source, stride)
  if stage.block in block_kinds.MAX_POOLED and stride == 2:
    h = library.max_pool(h)
  if shortcut:
    h = library.add(h, _shortcut(library, stage, params, source, stride))
  if stage.block in block_kinds.RESIDUAL:
    h = library.activate(h, stage.activation)
  return h


def _shortcut(
  library: Library, stage: Stage, params: dict[str, Any], x: Array, stride: int
) -> Array:
  """Returns what is added to a block's result."""
  if stage.shortcut in block_kinds.POOLED_SHORTCUTS and stride == 2:
    x, stride = library.average_pool(x), 1
  if 'shortcut' not in params:
    return x
  kernel = params['shortcut']['kernel'][None, None]
  bias = params.get('shortcut_bn', {'bias': None})['bias']
  return library.conv(x, kernel, bias, stride, 'same')


def _affine(library: Library, x: Array, norm, activation: str) -> Array:
  """Applies a folded batch norm that follows no convolution, and activates."""
  kernel = np.asarray(norm['scale'])[None, None, None]
  x = library.depthwise(x, kernel, norm['bias'], 1, 'same')
  return library.activate(x, activation)


def _pointwise(library: Library, x: Array, conv, norm) -> Array:
  """Applies a 1x1 convolution with a kernel [in, out]."""
  kernel = conv['kernel'][None, None]
  return library.conv(x, kernel, norm['bias'], 1, 'same')
