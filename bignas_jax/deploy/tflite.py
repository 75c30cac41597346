"""LiteRT: one file, for phones and other small devices.

TensorFlow converts the child; LiteRT's own interpreter, a small package, runs
it.
"""

import pathlib
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from bignas_jax.deploy import saved_model
from bignas_jax.deploy.graph import Network
from bignas_jax.system import extras

NAME, INT8_NAME = 'model.tflite', 'model.int8.tflite'


def _load(*modules: str) -> list[Any]:
  return extras.load('--format', 'tflite', 'tflite', *modules)


def check() -> None:
  """Raises UserError if a package is missing."""
  _load('tensorflow', 'ai_edge_litert.interpreter')


def write(network: Network, directory: pathlib.Path) -> dict[str, Any]:
  """Writes the artifact and returns its entry for the manifest."""
  tf, runtime = _load('tensorflow', 'ai_edge_litert')
  (directory / NAME).write_bytes(_converter(tf, network).convert())
  return {
    'versions': {
      'tensorflow': tf.__version__,
      'ai_edge_litert': runtime.__version__,
    }
  }


def _converter(tf: Any, network: Network) -> Any:
  module = tf.Module()
  module.serve = saved_model.function(tf, network)
  concrete = module.serve.get_concrete_function()
  return tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)


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


def quantise(
  network: Network, directory: pathlib.Path, calibration: Iterable[np.ndarray]
) -> None:
  """Writes an int8 artifact whose images and logits stay float32.

  Args:
    network: the child.
    directory: directory to write to.
    calibration: batches of images that give the ranges of activations.
  """
  (tf,) = _load('tensorflow')
  converter = _converter(tf, network)
  converter.optimizations = [tf.lite.Optimize.DEFAULT]
  converter.representative_dataset = lambda: (
    {'images': image[None]} for batch in calibration for image in batch
  )
  with warnings.catch_warnings():
    # The converter measures ranges with an interpreter that it warns of.
    warnings.filterwarnings('ignore', r'\s*Warning: tf.lite.Interpreter')
    (directory / INT8_NAME).write_bytes(converter.convert())
