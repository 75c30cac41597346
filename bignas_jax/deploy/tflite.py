"""LiteRT: one file, for phones and other small devices.

The graph is written here, in the schema that LiteRT brings; no TensorFlow is
needed. LiteRT's quantiser, a package of its own, makes it int8.
"""

import collections
import contextlib
import io
import pathlib
import warnings
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Any

import numpy as np

from bignas_jax.deploy import tflite_graph
from bignas_jax.deploy.graph import Network
from bignas_jax.deploy.tflite_graph import Operator
from bignas_jax.system import extras

NAME, INT8_NAME = 'model.tflite', 'model.int8.tflite'
FLOAT16_NAME = 'model.float16.tflite'

# What holds the options of an operation that has any.
_OPTIONS = {
  'CONV_2D': 'Conv2DOptions',
  'DEPTHWISE_CONV_2D': 'DepthwiseConv2DOptions',
  'FULLY_CONNECTED': 'FullyConnectedOptions',
  'AVERAGE_POOL_2D': 'Pool2DOptions',
  'MAX_POOL_2D': 'Pool2DOptions',
  'MIRROR_PAD': 'MirrorPadOptions',
  'MEAN': 'ReducerOptions',
  'ADD': 'AddOptions',
  'MUL': 'MulOptions',
  'RESHAPE': 'ReshapeOptions',
  'SPLIT': 'SplitOptions',
  'CONCATENATION': 'ConcatenationOptions',
  'CAST': 'CastOptions',
}
# Where an operation may clip its own result.
_CLIPPING = {'CONV_2D', 'DEPTHWISE_CONV_2D', 'FULLY_CONNECTED', 'ADD'}
# The first version of an operation that can do what is done here, if not 1.
_VERSIONS = {'FULLY_CONNECTED': 5, 'DEQUANTIZE': 3}


def _load(*modules: str) -> list[Any]:
  return extras.load('--format', 'tflite', 'tflite', *modules)


def check() -> None:
  """Raises UserError if a package is missing."""
  _load('ai_edge_litert', 'ai_edge_quantizer')


def write(network: Network, directory: pathlib.Path) -> dict[str, Any]:
  """Writes the artifact and returns its entry for the manifest."""
  (directory / NAME).write_bytes(_serialised(network))
  packages = 'ai-edge-litert', 'ai-edge-quantizer'
  return {
    'versions': {
      name.replace('-', '_'): metadata.version(name) for name in packages
    }
  }


def _serialised(network: Network, *, half: bool = False) -> bytes:
  schema, files = _load(
    'ai_edge_litert.schema_py_generated',
    'ai_edge_litert.tools.flatbuffer_utils',
  )
  model = _model(schema, network, half=half)
  return bytes(files.convert_object_to_bytearray(model))


def _model(schema: Any, network: Network, *, half: bool = False) -> Any:
  """Returns the object of a model from `images` to `logits`.

  Args:
    schema: LiteRT's module of that name.
    network: the child.
    half: whether weights are stored in float16.
  """
  library = tflite_graph.LiteRT(schema, half)
  images = library.value(network.shape, network.dtype.upper(), 'images')
  logits = network.logits(library, images)
  library.tensors[logits.index].name = 'logits'
  operators = _clipped(schema, library.operators)
  tensors = _used(library.tensors, operators)
  kinds = sorted({operator.kind for operator in operators})
  graph = schema.SubGraphT()
  graph.name, graph.tensors = 'main', tensors
  graph.operators = [_operator(schema, kinds, each) for each in operators]
  graph.inputs, graph.outputs = [0], operators[-1].outputs
  made = schema.ModelT()
  made.version, made.description = 3, 'bignas_jax'
  made.operatorCodes = [_code(schema, kind) for kind in kinds]
  made.subgraphs, made.buffers = [graph], library.buffers
  made.signatureDefs = [_signature(schema, graph)]
  return made


def _clipped(schema: Any, operators: list[Operator]) -> list[Operator]:
  """Returns operators that clip their own results where they can.

  An activation goes into the operation before it, if nothing else reads that
  one's result. In int8 only the clipped range is stored then.
  """
  readers = collections.Counter(i for each in operators for i in each.inputs)
  made_by = {i: each for each in operators for i in each.outputs}
  kept = []
  for each in operators:
    source = made_by.get(each.inputs[0])
    if (
      each.kind in ('RELU', 'RELU6')
      and source is not None
      and source.kind in _CLIPPING
      and readers[each.inputs[0]] == 1
    ):
      activations = schema.ActivationFunctionType
      source.options['fusedActivationFunction'] = getattr(
        activations, each.kind
      )
      source.outputs = each.outputs
    else:
      kept.append(each)
  return kept


def _used(tensors: list[Any], operators: list[Operator]) -> list[Any]:
  """Returns the tensors of operators, which then have their new places."""
  used = sorted({i for each in operators for i in each.inputs + each.outputs})
  place = {old: new for new, old in enumerate(used)}
  for each in operators:
    each.inputs = [place[i] for i in each.inputs]
    each.outputs = [place[i] for i in each.outputs]
  return [tensors[i] for i in used]


def _code(schema: Any, kind: str) -> Any:
  code = schema.OperatorCodeT()
  code.builtinCode = getattr(schema.BuiltinOperator, kind)
  code.deprecatedBuiltinCode = code.builtinCode  # all of ours are below 127
  code.version = _VERSIONS.get(kind, 1)
  return code


def _operator(schema: Any, kinds: list[str], operator: Operator) -> Any:
  made = schema.OperatorT()
  made.opcodeIndex = kinds.index(operator.kind)
  made.inputs, made.outputs = operator.inputs, operator.outputs
  if operator.kind in _OPTIONS:
    name = _OPTIONS[operator.kind]
    made.builtinOptionsType = getattr(schema.BuiltinOptions, name)
    made.builtinOptions = getattr(schema, f'{name}T')()
    for field, value in operator.options.items():
      assert hasattr(made.builtinOptions, field), (name, field)
      setattr(made.builtinOptions, field, value)
  return made


def _signature(schema: Any, graph: Any) -> Any:
  made = schema.SignatureDefT()
  made.signatureKey = 'serving_default'
  for field, name, (index,) in (
    ('inputs', 'images', graph.inputs),
    ('outputs', 'logits', graph.outputs),
  ):
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    setattr(made, field, [entry])
  return made


def load(
  directory: pathlib.Path, name: str = NAME
) -> Callable[[np.ndarray], np.ndarray]:
  """Returns a function from images to logits that runs the artifact."""
  (library,) = _load('ai_edge_litert.interpreter')
  interpreter = library.Interpreter(str(directory / name))
  (images_at,) = interpreter.get_input_details()
  (logits_at,) = interpreter.get_output_details()
  interpreter.allocate_tensors()

  def run(images: np.ndarray) -> np.ndarray:
    if tuple(interpreter.get_input_details()[0]['shape']) != images.shape:
      interpreter.resize_tensor_input(images_at['index'], images.shape)
      interpreter.allocate_tensors()
    interpreter.set_tensor(images_at['index'], images)
    interpreter.invoke()
    return interpreter.get_tensor(logits_at['index'])

  return run


def halve(network: Network, directory: pathlib.Path) -> None:
  """Writes an artifact whose weights are stored in float16."""
  (directory / FLOAT16_NAME).write_bytes(_serialised(network, half=True))


def quantise(
  network: Network, directory: pathlib.Path, calibration: Iterable[np.ndarray]
) -> None:
  """Writes an int8 artifact made from the float32 one by LiteRT's quantiser.

  Weights are quantised by channel and activations by tensor, by their ranges.
  Images and logits keep their types.

  Args:
    network: the child.
    directory: directory of the float32 artifact, and of the result.
    calibration: batches of images that give the ranges of activations.
  """
  del network
  tools, recipes, types, algorithms, calibrators, statistics = _load(
    'ai_edge_quantizer.quantizer',
    'ai_edge_quantizer.recipe',
    'ai_edge_quantizer.qtyping',
    'ai_edge_quantizer.algorithm_manager',
    'ai_edge_quantizer.calibrator',
    'ai_edge_quantizer.utils.qsv_utils',
  )
  said = io.StringIO()  # bars and sizes; what goes wrong is raised
  with (
    contextlib.redirect_stdout(said),
    contextlib.redirect_stderr(said),
    warnings.catch_warnings(),
  ):
    # It measures ranges with an interpreter that warns of its memory.
    warnings.filterwarnings('ignore', '.*experimental_preserve_all_tensors')
    path = str(directory / NAME)
    quantizer = tools.Quantizer(path, recipes.static_wi8_ai8())
    for end in (types.TFLOperationName.INPUT, types.TFLOperationName.OUTPUT):
      quantizer.update_quantization_recipe(
        '.*', end, algorithm_key=algorithms.AlgorithmName.NO_QUANTIZE
      )
    ranges: dict[str, Any] = {}
    for images in calibration:
      # Of one batch: it averages those of several, which cuts off the
      # rarest values.
      of_batch = quantizer.calibrate(
        {'serving_default': [{'images': images}]},
        mode=calibrators.CalibrationMode.CALIBRATION_PROFILER_BASED,
      )
      for name, extent in of_batch.items():
        ranges[name] = statistics.min_max_update(ranges.get(name), extent)
    result = quantizer.quantize(ranges)
  (directory / INT8_NAME).write_bytes(result.quantized_model)
