"""A LiteRT file, as an object in the schema that LiteRT brings.

Nothing is converted: `tflite_graph` has written the operations.
"""

import collections
from typing import Any

from bignas_jax.deploy import tflite_graph
from bignas_jax.deploy.graph import Network
from bignas_jax.deploy.tflite_graph import Operator

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


def model(schema: Any, network: Network, *, half: bool = False) -> Any:
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
