"""A model repository of Triton Inference Server: the ONNX file and its config.

The config makes Triton gather single images into batches.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from bignas_jax.deploy import onnx
from bignas_jax.deploy.graph import Network

NAME = 'triton'
MODEL = 'child'  # what clients ask for
_MAX_BATCH, _WAIT_US = 32, 2000
_TYPES = {'uint8': 'TYPE_UINT8', 'float32': 'TYPE_FP32'}


def check() -> None:
  """Raises UserError if a package is missing."""
  onnx.check()


def config(network: Network) -> str:
  """Returns Triton's ModelConfig as text, without the batch dimension."""
  shape = ', '.join(map(str, network.shape))
  return f"""name: "{MODEL}"
backend: "onnxruntime"
max_batch_size: {_MAX_BATCH}
input [
  {{ name: "images" data_type: {_TYPES[network.dtype]} dims: [ {shape} ] }}
]
output [
  {{ name: "logits" data_type: TYPE_FP32 dims: [ {network.space.classes} ] }}
]
dynamic_batching {{ max_queue_delay_microseconds: {_WAIT_US} }}
"""


def write(network: Network, directory: pathlib.Path) -> dict[str, Any]:
  """Writes the repository and returns its entry for the manifest."""
  model = directory / NAME / MODEL
  (model / '1').mkdir(parents=True)
  (model / 'config.pbtxt').write_text(config(network))
  return onnx.write(network, model / '1')


def load(directory: pathlib.Path) -> Callable[[np.ndarray], np.ndarray]:
  """Returns a function from images to logits that runs the model.

  It uses ONNX Runtime, which Triton uses for this model too, without Triton.
  """
  return onnx.load(directory / NAME / MODEL / '1')
