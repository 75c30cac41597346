"""ONNX: one file, for ONNX Runtime and other runtimes that read it.

Images enter as [batch, height, width, channels]; inside, channels come first,
as ONNX has it. Each convolution, depthwise ones too, is one `Conv` with its
bias.
"""

import pathlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bignas_jax.deploy.graph import Network
from bignas_jax.operations import ops
from bignas_jax.system import extras

NAME, INT8_NAME = 'model.onnx', 'model.int8.onnx'
FLOAT16_NAME = 'model.float16.onnx'
OPSET, IR_VERSION = 17, 8  # what runtimes have read since 2022


class _Images(NamedTuple):
  """A value of the graph: images [batch, channels, size, size]."""

  name: str
  size: int


class _Onnx:
  """A `graph.Library` that builds a graph.

  Images are `_Images`; values [batch, channels] are names of values.

  Args:
    onnx: the package.
    half: whether weights are stored in float16. A runtime makes them float32
      when it loads them.
  """

  def __init__(self, onnx: Any, half: bool = False):
    self._onnx, self._half = onnx, half
    self.nodes: list[Any] = []
    self.weights: list[Any] = []

  def constant(self, array: np.ndarray) -> str:
    """Adds a constant to the graph and returns its name."""
    name = f'weight_{len(self.weights)}'
    whole = np.ascontiguousarray(array)
    self.weights.append(self._onnx.numpy_helper.from_array(whole, name))
    return name

  def weight(self, array: np.ndarray) -> str:
    """Adds a constant in the precision of the weights."""
    if not self._half:
      return self.constant(array)
    stored = self.constant(array.astype(np.float16))
    return self.node('Cast', stored, to=self._onnx.TensorProto.FLOAT)

  def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
    """Adds a node with one output and returns the name of both."""
    name = f'{kind.lower()}_{len(self.nodes)}'
    self.nodes.append(
      self._onnx.helper.make_node(kind, inputs, [name], name, **attributes)
    )
    return name

  def conv(self, x, kernel, bias, stride, padding, groups=1):
    return self._conv(x, kernel, bias, stride, padding, groups)

  def depthwise(self, x, kernel, bias, stride, padding):
    return self._conv(x, kernel, bias, stride, padding, kernel.shape[-1])

  def _conv(self, x, kernel, bias, stride, padding, group):
    size = kernel.shape[0]
    around = ops.pads(x.size, size, stride, padding)
    weights = [self.weight(kernel.transpose(3, 2, 0, 1))]
    if bias is not None:
      weights.append(self.weight(bias))
    name = self.node(
      'Conv',
      x.name,
      *weights,
      kernel_shape=[size, size],
      strides=[stride, stride],
      pads=[around[0], around[0], around[1], around[1]],
      group=group,
    )
    return _Images(name, (x.size + sum(around) - size) // stride + 1)

  def average_pool(self, x):
    # Odd edges are not counted as zeros: the default.
    name = self.node(
      'AveragePool', x.name, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1
    )
    return _Images(name, -(-x.size // 2))

  def max_pool(self, x):
    how = {'kernel_shape': [3, 3], 'strides': [2, 2], 'pads': [1, 1, 1, 1]}
    return _Images(self.node('MaxPool', x.name, **how), -(-x.size // 2))

  def mean(self, x):
    return self.node('Flatten', self.node('GlobalAveragePool', x.name))

  def dense(self, x, kernel, bias):
    if bias is None:
      return self.node('MatMul', x, self.weight(kernel))
    return self.node('Gemm', x, self.weight(kernel), self.weight(bias))

  def add(self, x, y):
    return _Images(self.node('Add', x.name, y.name), x.size)

  def scale(self, x, gates):
    axes = self.constant(np.array([2, 3], np.int64))
    wide = self.node('Unsqueeze', gates, axes)
    return _Images(self.node('Mul', x.name, wide), x.size)

  def activate(self, x, name):
    if isinstance(x, _Images):
      return _Images(self._activate(x.name, name), x.size)
    return self._activate(x, name)

  def _activate(self, x: str, name: str) -> str:
    if name == 'relu':
      return self.node('Relu', x)
    if name == 'relu6':
      zero, six = (
        self.constant(np.array(bound, np.float32)) for bound in (0, 6)
      )
      return self.node('Clip', x, zero, six)
    if name in ('hard_sigmoid', 'hard_swish'):
      gate = self.node('HardSigmoid', x, alpha=1 / 6, beta=0.5)
    else:
      gate = self.node('Sigmoid', x)
    return self.node('Mul', x, gate) if name.endswith('swish') else gate

  def normalise(self, pixels, factor, shift):
    floats = self.node('Cast', pixels.name, to=self._onnx.TensorProto.FLOAT)
    factor, shift = (self.constant(v[:, None, None]) for v in (factor, shift))
    scaled = self.node('Mul', floats, factor)
    return _Images(self.node('Add', scaled, shift), pixels.size)

  def resize(self, x, matrix):
    along = self.node('MatMul', x.name, self.constant(matrix.T))
    name = self.node('MatMul', self.constant(matrix), along)
    return _Images(name, len(matrix))


def _load(*modules: str) -> list[Any]:
  return extras.load('--format', 'onnx', 'onnx', *modules)


def check() -> None:
  """Raises UserError if a package is missing."""
  _load('onnx', 'onnxruntime')


def model(
  run: Callable[[Any, Any], Any],
  shape: Sequence[int],
  shape_out: Sequence[int],
  dtype: str = 'float32',
  *,
  channels_first: bool = False,
  half: bool = False,
) -> bytes:
  """Returns a serialised model from `images` to `logits`.

  Args:
    run: applies the network; takes a `graph.Library` and images, such as
      `Network.logits`.
    shape: shape of an image, [size, size, channels].
    shape_out: shape of the result for one image.
    dtype: type of images, `uint8` or `float32`.
    channels_first: whether images enter with channels first, as they are
      inside; for parts of a network.
    half: whether weights are stored in float16.
  """
  (onnx,) = _load('onnx')
  graph = _Onnx(onnx, half)
  first, given = 'images', ['batch', *shape]
  if channels_first:
    given = ['batch', shape[2], *shape[:2]]
  else:
    first = graph.node('Transpose', 'images', perm=[0, 3, 1, 2])
  out = run(graph, _Images(first, shape[0]))
  graph.node('Identity', out.name if isinstance(out, _Images) else out)
  graph.nodes[-1].output[0] = 'logits'
  helper, types = onnx.helper, onnx.TensorProto
  kind = types.UINT8 if dtype == 'uint8' else types.FLOAT
  made = helper.make_model(
    helper.make_graph(
      graph.nodes,
      'network',
      [helper.make_tensor_value_info('images', kind, given)],
      [
        helper.make_tensor_value_info(
          'logits', types.FLOAT, ['batch', *shape_out]
        )
      ],
      graph.weights,
    ),
    opset_imports=[helper.make_opsetid('', OPSET)],
    ir_version=IR_VERSION,
    producer_name='bignas_jax',
  )
  onnx.checker.check_model(made, full_check=True)
  return made.SerializeToString()


def _serialised(network: Network, *, half: bool = False) -> bytes:
  classes = [network.space.classes]
  return model(network.logits, network.shape, classes, network.dtype, half=half)


def write(network: Network, directory: pathlib.Path) -> dict[str, Any]:
  """Writes the artifact and returns its entry for the manifest."""
  onnx, runtime = _load('onnx', 'onnxruntime')
  (directory / NAME).write_bytes(_serialised(network))
  return {
    'opset': OPSET,
    'versions': {
      'onnx': onnx.__version__,
      'onnxruntime': runtime.__version__,
    },
  }


def load(
  directory: pathlib.Path, name: str = NAME
) -> Callable[[np.ndarray], np.ndarray]:
  """Returns a function from images to logits that runs the artifact."""
  (runtime,) = _load('onnxruntime')
  return _session(runtime, str(directory / name))


def load_bytes(
  serialised: bytes, threads: int = 0
) -> Callable[[np.ndarray], np.ndarray]:
  """Returns a function from images to logits that runs a serialised model.

  Args:
    serialised: the model.
    threads: threads of the runtime; 0: one a core.
  """
  (runtime,) = _load('onnxruntime')
  return _session(runtime, serialised, threads)


def _session(runtime, what: str | bytes, threads: int = 0):
  options = runtime.SessionOptions()
  options.intra_op_num_threads = threads
  session = runtime.InferenceSession(
    what, options, providers=['CPUExecutionProvider']
  )
  return lambda images: session.run(['logits'], {'images': images})[0]


def halve(network: Network, directory: pathlib.Path) -> None:
  """Writes an artifact whose weights are stored in float16."""
  (directory / FLOAT16_NAME).write_bytes(_serialised(network, half=True))


def quantise(
  network: Network, directory: pathlib.Path, calibration: Iterable[np.ndarray]
) -> None:
  """Writes an int8 artifact made from the float32 one by ONNX Runtime.

  Weights are quantised by channel and activations by tensor, symmetrically, by
  their ranges. Images and logits keep their types.

  Args:
    network: the child.
    directory: directory of the float32 artifact, and of the result.
    calibration: batches of images that give the ranges of activations.
  """
  del network
  tools, shapes = _load(
    'onnxruntime.quantization', 'onnxruntime.quantization.shape_inference'
  )
  batches = iter(calibration)

  class Reader(tools.CalibrationDataReader):
    def get_next(self):
      images = next(batches, None)
      return None if images is None else {'images': images}

  with tempfile.TemporaryDirectory() as scratch:
    prepared = pathlib.Path(scratch) / NAME
    shapes.quant_pre_process(
      str(directory / NAME), str(prepared), skip_symbolic_shape=True
    )
    tools.quantize_static(
      prepared,
      directory / INT8_NAME,
      Reader(),
      quant_format=tools.QuantFormat.QDQ,
      per_channel=True,
    )
