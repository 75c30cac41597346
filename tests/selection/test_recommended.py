"""The files that are recommended for a device."""

import pytest

from bignas_jax.reporting import contents, run_files
from bignas_jax.selection import recommended
from bignas_jax.spaces import zoo

SPACE = zoo.SPACES['mnist']


def child(**formats):
  """Returns a child with artifacts, each with an int8 and a float16 one."""
  made = {
    name: contents.Format(
      files=dict.fromkeys(names),
      int8=contents.Reduced(file='model.int8.any'),
      float16=contents.Reduced(file='model.float16.any'),
    )
    for name, names in formats.items()
  }
  return run_files.ChildFile(
    name='a',
    info=contents.Child(),
    arch=None,
    space=SPACE,
    exports=contents.Exports(formats=made),
    measured=contents.Measured(),
  )


REDUCED = ['model.float16.any', 'model.int8.any', 'model.float16.any/weights']


@pytest.mark.parametrize(
  ('formats', 'runtime', 'file'),
  [
    ({}, 'onnx', 'model.safetensors'),
    ({'onnx': [*REDUCED, 'model.onnx']}, None, 'export/model.onnx'),
    ({'onnx': ['a'], 'tflite': ['b', *REDUCED]}, 'tflite', 'export/b'),
    ({'onnx': ['a'], 'tflite': ['b']}, 'jax', 'export/a'),
    ({'saved_model': ['saved_model/1/m']}, None, 'export/saved_model'),
  ],
)
def test_the_file_is_the_one_in_float32(formats, runtime, file):
  assert recommended.file_of(child(**formats), runtime) == f'children/a/{file}'
