"""What version 0.1.0 exported is loaded for ever, and computes the same.

`golden/exports_0_1_0` has every format of the child of `golden/run_0_1_0`, and
in `logits.safetensors` some images with the logits of each. None of it must be
written anew: if it no longer loads, people's exports do not either.
"""

import pathlib

import numpy as np
import pytest
import safetensors.numpy
import test_export

import bignas_jax
from bignas_jax.deploy import coreml, onnx, saved_model, stablehlo, tflite

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden'
EXPORTS = GOLDEN / 'exports_0_1_0'
SEEN = safetensors.numpy.load_file(EXPORTS / 'logits.safetensors')
NEEDS = {
  'saved_model': test_export.TENSORFLOW.marks,
  'tflite': test_export.LITERT.marks,
  'coreml': test_export.COREML.marks,
}
LOADS = {
  'onnx': lambda: onnx.load(EXPORTS),
  'onnx int8': lambda: onnx.load(EXPORTS, onnx.INT8_NAME),
  'onnx float16': lambda: onnx.load(EXPORTS, onnx.FLOAT16_NAME),
  'triton': lambda: onnx.load(EXPORTS / 'triton/child/1'),
  'stablehlo': lambda: stablehlo.load(EXPORTS),
  'saved_model': lambda: saved_model.load(EXPORTS),
  'tflite': lambda: tflite.load(EXPORTS),
  'tflite int8': lambda: tflite.load(EXPORTS, tflite.INT8_NAME),
  'tflite float16': lambda: tflite.load(EXPORTS, tflite.FLOAT16_NAME),
  'coreml': lambda: coreml.load(EXPORTS),
  'coreml float16': lambda: coreml.load(EXPORTS, coreml.FLOAT16_NAME),
}
# int8 kernels round as the processor does: by a few steps of 1/255.
TOLERANCE = {'onnx int8': 0.02, 'tflite int8': 0.02}


def check(found, name):
  expected = SEEN[name]
  error = np.abs(found - expected).max() / np.abs(expected).max()
  assert error < TOLERANCE.get(name, 1e-5)


@pytest.mark.parametrize(
  'name',
  [pytest.param(name, marks=NEEDS.get(name.split()[0], ())) for name in LOADS],
)
def test_an_artifact_computes_what_it_did(name):
  check(LOADS[name]()(SEEN['images']), name)


def test_the_child_computes_what_it_did():
  child = bignas_jax.load_child(GOLDEN / 'run_0_1_0/children/best')
  check(np.asarray(child(SEEN['pixels'])), 'child')
