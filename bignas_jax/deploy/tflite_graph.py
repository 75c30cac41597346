"""A child as LiteRT's operations, each written as LiteRT computes it."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from bignas_jax.operations import ops


class Value(NamedTuple):
  """A value of the graph.

  Attributes:
    index: its place in the list of tensors.
    shape: its shape for one image, without the batch.
  """

  index: int
  shape: tuple[int, ...]


@dataclasses.dataclass
class Operator:
  """An operation of the graph, on places in the list of tensors."""

  kind: str
  inputs: list[int]
  outputs: list[int]
  options: dict[str, Any]


class LiteRT:
  """A `graph.Library` that builds a graph.

  Args:
    schema: LiteRT's module of that name.
    half: whether weights are stored in float16. LiteRT makes them float32 when
      it loads them.
  """

  def __init__(self, schema: Any, half: bool):
    self._schema, self._half = schema, half
    self.tensors: list[Any] = []
    self.buffers = [schema.BufferT()]  # the first one is empty, by convention
    self.operators: list[Operator] = []

  def value(
    self, shape: tuple[int, ...], kind: str = 'FLOAT32', name: str = ''
  ) -> Value:
    """Adds a tensor for any number of images."""
    tensor = self._tensor((1, *shape), kind, name or 'value')
    tensor.shapeSignature = [-1, *shape]
    return Value(len(self.tensors) - 1, shape)

  def _tensor(self, shape, kind, name):
    tensor = self._schema.TensorT()
    tensor.shape, tensor.hasRank = [*shape], True
    tensor.type = getattr(self._schema.TensorType, kind)
    # The quantiser knows tensors by their names.
    is_end = name in ('images', 'logits')
    tensor.name = name if is_end else f'{name}_{len(self.tensors)}'
    self.tensors.append(tensor)
    return tensor

  def constant(self, array: np.ndarray) -> int:
    """Adds a constant and returns its place in the list of tensors."""
    whole = np.ascontiguousarray(array)
    tensor = self._tensor(whole.shape, whole.dtype.name.upper(), 'constant')
    tensor.buffer = len(self.buffers)
    buffer = self._schema.BufferT()
    buffer.data = whole.view(np.uint8).reshape(-1)
    self.buffers.append(buffer)
    return len(self.tensors) - 1

  def weight(self, array: np.ndarray) -> int:
    """Adds a constant in the precision of the weights."""
    if not self._half:
      return self.constant(array.astype(np.float32))
    stored = self.constant(array.astype(np.float16))
    self._tensor(array.shape, 'FLOAT32', 'weight')
    used = len(self.tensors) - 1
    self.operators.append(Operator('DEQUANTIZE', [stored], [used], {}))
    return used

  def node(
    self, kind: str, x: Value, *others: int, to: tuple[int, ...], **options
  ) -> Value:
    """Adds an operation with one output, whose shape is `to`."""
    out = self.value(to, name=kind.lower())
    inputs = [x.index, *others]
    self.operators.append(Operator(kind, inputs, [out.index], options))
    return out

  def conv(self, x, kernel, bias, stride, padding, groups=1):
    if bias is None:
      bias = np.zeros(kernel.shape[-1], np.float32)
    if groups == 1:
      return self._conv(x, kernel, bias, stride, padding)
    # Not all of LiteRT's implementations have convolutions of groups.
    size, _, channels = x.shape
    own = [self.value((size, size, channels // groups)) for _ in range(groups)]
    axis = self.constant(np.array(3, np.int32))
    inputs, outputs = [axis, x.index], [group.index for group in own]
    options = {'numSplits': groups}
    self.operators.append(Operator('SPLIT', inputs, outputs, options))
    outputs = [
      self._conv(group, its, biases, stride, padding)
      for group, its, biases in zip(
        own,
        np.split(kernel, groups, -1),
        np.split(bias, groups),
        strict=True,
      )
    ]
    to = (*outputs[0].shape[:2], len(bias))
    others = [group.index for group in outputs[1:]]
    return self.node('CONCATENATION', outputs[0], *others, to=to, axis=3)

  def _conv(self, x, kernel, bias, stride, padding):
    stored = kernel.transpose(3, 0, 1, 2)
    return self._window('CONV_2D', x, stored, bias, stride, padding)

  def depthwise(self, x, kernel, bias, stride, padding):
    stored = kernel.transpose(2, 0, 1, 3)
    kind = 'DEPTHWISE_CONV_2D'
    return self._window(
      kind, x, stored, bias, stride, padding, depthMultiplier=1
    )

  def _window(self, kind, x, kernel, bias, stride, padding, **options):
    size, length = x.shape[0], kernel.shape[1]
    pads = ops.pads(size, length, stride, padding)
    same = pads == ops.pads(size, length, stride, 'same')
    if not same:
      x = self._pad('PAD', x, pads)
    out = (sum(pads) + size - length) // stride + 1
    return self.node(
      kind,
      x,
      self.weight(kernel),
      self.weight(bias),
      to=(out, out, len(bias)),
      padding=getattr(self._schema.Padding, 'SAME' if same else 'VALID'),
      strideW=stride,
      strideH=stride,
      **options,
    )

  def _pad(self, kind, x, pads, **options):
    size, channels = x.shape[0] + sum(pads), x.shape[2]
    edges = np.array([[0, 0], pads, pads, [0, 0]], np.int32)
    to = size, size, channels
    return self.node(kind, x, self.constant(edges), to=to, **options)

  def average_pool(self, x):
    return self._pool('AVERAGE_POOL_2D', x, 2, 'SAME')

  def max_pool(self, x):
    # LiteRT pools without explicit padding. The pixels of the edge once more
    # change no maximum, and no range of int8.
    symmetric = self._schema.MirrorPadMode.SYMMETRIC
    x = self._pad('MIRROR_PAD', x, (1, 1), mode=symmetric)
    return self._pool('MAX_POOL_2D', x, 3, 'VALID')

  def _pool(self, kind, x, length, padding):
    size, _, channels = x.shape
    out = -(-size // 2) if padding == 'SAME' else (size - length) // 2 + 1
    return self.node(
      kind,
      x,
      to=(out, out, channels),
      padding=getattr(self._schema.Padding, padding),
      strideW=2,
      strideH=2,
      filterWidth=length,
      filterHeight=length,
    )

  def mean(self, x):
    axes = self.constant(np.array([1, 2], np.int32))
    return self.node('MEAN', x, axes, to=x.shape[2:])

  def dense(self, x, kernel, bias):
    if bias is None:
      bias = np.zeros(kernel.shape[1], np.float32)
    weights = self.weight(kernel.T), self.weight(bias)
    return self._dense(x, *weights, length=len(bias))

  def _dense(self, x, *weights, length):
    to = (*x.shape[:-1], length)
    keep = len(to) > 1
    return self.node('FULLY_CONNECTED', x, *weights, to=to, keepNumDims=keep)

  def add(self, x, y):
    return self.node('ADD', x, y.index, to=x.shape)

  def scale(self, x, gates):
    shape = [-1, 1, 1, x.shape[2]]
    wanted = self.constant(np.array(shape, np.int32))
    to = 1, 1, x.shape[2]
    gates = self.node('RESHAPE', gates, wanted, to=to, newShape=shape)
    return self.node('MUL', x, gates.index, to=x.shape)

  def activate(self, x, name):
    kinds = {'sigmoid': 'LOGISTIC', 'hard_swish': 'HARD_SWISH'}
    kinds |= {'relu': 'RELU', 'relu6': 'RELU6'}
    if name == 'swish':
      gate = self.node('LOGISTIC', x, to=x.shape)
      return self.node('MUL', x, gate.index, to=x.shape)
    if name == 'hard_sigmoid':
      y = self._times('ADD', x, np.float32(3))
      return self._times(
        'MUL', self.node('RELU6', y, to=x.shape), np.float32(1 / 6)
      )
    return self.node(kinds[name], x, to=x.shape)

  def _times(self, kind, x, number):
    return self.node(kind, x, self.constant(np.array(number)), to=x.shape)

  def normalise(self, pixels, factor, shift):
    types = self._schema.TensorType
    options = {'inDataType': types.UINT8, 'outDataType': types.FLOAT32}
    x = self.node('CAST', pixels, to=pixels.shape, **options)
    return self._times('ADD', self._times('MUL', x, factor), shift)

  def resize(self, x, matrix):
    # Rows and columns come last in turn, as a dense layer has its inputs.
    for order in ([0, 2, 3, 1], [0, 3, 2, 1]):
      x = self._transpose(x, order)
      weights = self.constant(matrix.astype(np.float32))
      none = self.constant(np.zeros(len(matrix), np.float32))
      x = self._dense(x, weights, none, length=len(matrix))
    return self._transpose(x, [0, 1, 3, 2])

  def _transpose(self, x, order):
    to = tuple(x.shape[axis - 1] for axis in order[1:])
    return self.node(
      'TRANSPOSE', x, self.constant(np.array(order, np.int32)), to=to
    )
