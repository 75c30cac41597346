"""LiteRT: one file, for phones and other small devices.

The graph is written here, in the schema that LiteRT brings; no TensorFlow is
needed. LiteRT's quantiser, a package of its own, makes it int8.
"""

import contextlib
import io
import pathlib
import warnings
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Any

import numpy as np

from bignas_jax.deploy import tflite_file
from bignas_jax.deploy.graph import Network
from bignas_jax.system import extras

NAME, INT8_NAME = 'model.tflite', 'model.int8.tflite'
FLOAT16_NAME = 'model.float16.tflite'


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
  model = tflite_file.model(schema, network, half=half)
  return bytes(files.convert_object_to_bytearray(model))


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
