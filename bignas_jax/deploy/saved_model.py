"""TensorFlow SavedModel, for TensorFlow Serving and others that read it.

It is built from TensorFlow's own operations, with weights as constants. The
directory is laid out as TensorFlow Serving expects: the number of a version,
with the model in it.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from bignas_jax.deploy.graph import Network
from bignas_jax.system import extras

NAME, VERSION = 'saved_model', '1'


class _TensorFlow:
  """A `graph.Library` of TensorFlow's operations."""

  def __init__(self, tf: Any):
    self._tf = tf

  def conv(self, x, kernel, bias, stride, padding, groups=1):
    around = self._padding(kernel.shape[0], padding)
    # A grouped convolution that is fused with its bias fails on CPUs.
    images = self._tf.split(x, groups, -1) if groups > 1 else [x]
    kernels = np.split(kernel, groups, -1)
    results = [
      self._tf.nn.conv2d(own, its, stride, around)
      for own, its in zip(images, kernels, strict=True)
    ]
    y = self._tf.concat(results, -1) if groups > 1 else results[0]
    return y if bias is None else self._tf.nn.bias_add(y, bias)

  def depthwise(self, x, kernel, bias, stride, padding):
    around = self._padding(kernel.shape[0], padding)
    if padding != 'same':
      # With a bias after it, oneDNN's kernel for explicit padding aborts the
      # process, on CPUs where TensorFlow uses it.
      x, around = self._tf.pad(x, around), 'VALID'
    y = self._tf.nn.depthwise_conv2d(
      x, kernel.transpose(0, 1, 3, 2), [1, stride, stride, 1], around
    )
    return self._tf.nn.bias_add(y, bias)

  def _padding(self, size, padding):
    if padding == 'same':
      return 'SAME'
    edge = [size // 2, size // 2]
    return [[0, 0], edge, edge, [0, 0]]

  def average_pool(self, x):
    return self._tf.nn.avg_pool2d(x, 2, 2, 'SAME')

  def max_pool(self, x):
    # The pixels of the edge once more change no maximum; zeros would.
    edges = [[0, 0], [1, 1], [1, 1], [0, 0]]
    x = self._tf.pad(x, edges, 'SYMMETRIC')
    return self._tf.nn.max_pool2d(x, 3, 2, 'VALID')

  def mean(self, x):
    return self._tf.reduce_mean(x, [1, 2])

  def dense(self, x, kernel, bias):
    y = self._tf.matmul(x, kernel)
    return y if bias is None else self._tf.nn.bias_add(y, bias)

  def add(self, x, y):
    return x + y

  def scale(self, x, gates):
    return x * gates[:, None, None, :]

  def activate(self, x, name):
    tf = self._tf
    if name in ('hard_sigmoid', 'hard_swish'):
      gate = tf.nn.relu6(x + 3) / 6
      return x * gate if name == 'hard_swish' else gate
    if name == 'swish':
      return x * tf.sigmoid(x)
    plain = {'relu': tf.nn.relu, 'relu6': tf.nn.relu6, 'sigmoid': tf.sigmoid}
    return plain[name](x)

  def normalise(self, pixels, factor, shift):
    return self._tf.cast(pixels, self._tf.float32) * factor + shift

  def resize(self, x, matrix):
    tall = self._tf.einsum('bhwc,yh->bywc', x, matrix)
    return self._tf.einsum('bywc,xw->byxc', tall, matrix)


def _tensorflow() -> Any:
  return extras.load('--format', 'saved_model', 'tf', 'tensorflow')[0]


def check() -> None:
  """Raises UserError if a package is missing."""
  _tensorflow()


def function(tf: Any, network: Network) -> Any:
  """Returns a TensorFlow function from any number of images to logits."""
  images = tf.TensorSpec([None, *network.shape], network.dtype, name='images')

  def logits(images):
    return {'logits': network.logits(_TensorFlow(tf), images)}

  return tf.function(logits, input_signature=[images])


def write(network: Network, directory: pathlib.Path) -> dict[str, Any]:
  """Writes the artifact and returns its entry for the manifest."""
  tf = _tensorflow()
  module = tf.Module()
  module.serve = function(tf, network)
  path = directory / NAME / VERSION
  tf.saved_model.save(module, str(path), {'serving_default': module.serve})
  return {
    'signature': 'serving_default',
    'versions': {'tensorflow': tf.__version__},
  }


def load(directory: pathlib.Path) -> Callable[[np.ndarray], np.ndarray]:
  """Returns a function from images to logits that runs the artifact."""
  tf = _tensorflow()
  loaded = tf.saved_model.load(str(directory / NAME / VERSION))
  run = loaded.signatures['serving_default']
  return lambda images: run(images=tf.constant(images))['logits'].numpy()
