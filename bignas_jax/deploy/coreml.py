"""Core ML: one package, for iPhones, iPads and Macs.

The graph is written with coremltools, which also run on Linux. Core ML itself
runs on Apple's systems only: elsewhere the operations of the file are read back
and computed by `coreml_run`.

Images enter one at a time, as [1, size, size, channels], or with `uint8` pixels
as Core ML's own images. Inside, channels come first, as Core ML has it.
"""

import contextlib
import io
import logging
import pathlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bignas_jax.deploy import coreml_run
from bignas_jax.deploy.graph import Network
from bignas_jax.operations import ops
from bignas_jax.system import extras
from bignas_jax.values import errors

NAME, FLOAT16_NAME = 'model.mlpackage', 'model.float16.mlpackage'
_LAYOUTS = {1: 'GRAYSCALE', 3: 'RGB'}  # of Core ML's images, by channels
# Those that are one operation there, and its name.
_ACTIVATIONS = {
  'relu': 'relu',
  'relu6': 'relu6',
  'sigmoid': 'sigmoid',
  'swish': 'silu',
}


class _CoreMl:
  """A `graph.Library` that builds a program; images have channels first.

  Args:
    build: the builder of coremltools.
  """

  def __init__(self, build: Any):
    self._build = build

  def conv(self, x, kernel, bias, stride, padding, groups=1):
    around = ops.pads(x.shape[2], kernel.shape[0], stride, padding)
    given = {} if bias is None else {'bias': _weight(bias)}
    return self._build.conv(
      x=x,
      weight=_weight(kernel.transpose(3, 2, 0, 1)),
      strides=[stride, stride],
      pad_type='custom',
      pad=[*around, *around],
      groups=groups,
      **given,
    )

  def depthwise(self, x, kernel, bias, stride, padding):
    return self.conv(x, kernel, bias, stride, padding, kernel.shape[-1])

  def average_pool(self, x):
    odd = x.shape[2] % 2
    return self._build.avg_pool(
      x=x,
      kernel_sizes=[2, 2],
      strides=[2, 2],
      pad_type='custom',
      pad=[0, odd, 0, odd],
      exclude_padding_from_average=True,
    )

  def max_pool(self, x):
    return self._build.max_pool(
      x=x,
      kernel_sizes=[3, 3],
      strides=[2, 2],
      pad_type='custom',
      pad=[1, 1, 1, 1],
    )

  def mean(self, x):
    return self._build.reduce_mean(x=x, axes=[2, 3], keep_dims=False)

  def dense(self, x, kernel, bias):
    given = {} if bias is None else {'bias': _weight(bias)}
    return self._build.linear(x=x, weight=_weight(kernel.T), **given)

  def add(self, x, y):
    return self._build.add(x=x, y=y)

  def scale(self, x, gates):
    wide = self._build.expand_dims(x=gates, axes=[2, 3])
    return self._build.mul(x=x, y=wide)

  def activate(self, x, name):
    if name in _ACTIVATIONS:
      return getattr(self._build, _ACTIVATIONS[name])(x=x)
    gate = self._build.sigmoid_hard(x=x, alpha=1 / 6, beta=0.5)
    return self._build.mul(x=x, y=gate) if name == 'hard_swish' else gate

  def normalise(self, pixels, factor, shift):
    factor, shift = (_weight(v)[:, None, None] for v in (factor, shift))
    scaled = self._build.mul(x=pixels, y=factor)
    return self._build.add(x=scaled, y=shift)

  def resize(self, x, matrix):
    whole = _weight(matrix)[None, None]
    along = self._build.matmul(x=x, y=whole, transpose_y=True)
    return self._build.matmul(x=whole, y=along)


def _weight(array: Any) -> np.ndarray:
  return np.ascontiguousarray(array, np.float32)


def _load(*modules: str) -> list[Any]:
  with _silence():
    return extras.load('--format', 'coreml', 'coreml', *modules)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
  """Drops bars, and that this is no Mac; what goes wrong is raised."""
  before = logging.root.manager.disable
  logging.disable(logging.WARNING)
  said = io.StringIO()
  try:
    with contextlib.redirect_stderr(said), warnings.catch_warnings():
      warnings.simplefilter('ignore')
      yield
  finally:
    logging.disable(before)


def check() -> None:
  """Raises UserError if a package is missing."""
  _load('coremltools')


def write(network: Network, directory: pathlib.Path) -> dict[str, Any]:
  """Writes the artifact and returns its entry for the manifest."""
  (tools,) = _load('coremltools')
  _save(network, 'FLOAT32', directory / NAME)
  return {
    'batch': 1,
    'needs': 'iOS 16, macOS 13',
    'run_by': "the file's operations in JAX; Core ML runs on Apple's systems",
    'versions': {'coremltools': tools.__version__},
  }


def halve(network: Network, directory: pathlib.Path) -> None:
  """Writes an artifact whose weights and activations are float16."""
  _save(network, 'FLOAT16', directory / FLOAT16_NAME)


def _save(network: Network, precision: str, path: pathlib.Path) -> None:
  """Writes a package that others may read, as all files of an export."""
  _convert(network, precision).save(str(path))
  mode = (path / 'Manifest.json').stat().st_mode
  for file in path.rglob('*.mlmodel'):
    file.chmod(mode)


def _convert(network: Network, precision: str) -> Any:
  """Returns the network as a model of coremltools."""
  tools, mil = _load('coremltools', 'coremltools.converters.mil')
  shape, given = network.shape, {}
  size, _, channels = shape
  if network.dtype == 'uint8':
    shape = channels, size, size
    if channels not in _LAYOUTS:
      allowed = 'images of 1 or 3 channels, as Core ML has them'
      raise errors.UserError('--preprocess', f'{channels} channels', allowed)
    layout = getattr(tools.colorlayout, _LAYOUTS[channels])
    image = tools.ImageType('images', (1, *shape), color_layout=layout)
    given = {'inputs': [image]}
  target = tools.target.iOS16

  def build(images):
    library, x = _CoreMl(mil.Builder), images
    if network.dtype != 'uint8':
      x = mil.Builder.transpose(x=images, perm=[0, 3, 1, 2])
    logits = network.logits(library, x)
    return mil.Builder.identity(x=logits, name='logits')

  with _silence():
    specs = [mil.Builder.TensorSpec((1, *shape))]
    program = mil.Builder.program(specs, opset_version=target)(build)
    return tools.convert(
      program,
      convert_to='mlprogram',
      compute_precision=getattr(tools.precision, precision),
      minimum_deployment_target=target,
      skip_model_load=True,
      **given,
    )


def load(
  directory: pathlib.Path, name: str = NAME
) -> Callable[[np.ndarray], np.ndarray]:
  """Returns a function from images to logits that computes the artifact.

  The artifact's operations are read from its file, and computed by JAX.
  """
  tools, reader = _load(
    'coremltools', 'coremltools.converters.mil.frontend.milproto.load'
  )
  with _silence():
    specification = tools.models.utils.load_spec(str(directory / name))
    weights = directory / name / 'Data/com.apple.CoreML/weights'
    program = reader.load(
      specification,
      specification.specificationVersion,
      file_weights_dir=str(weights),
    )
  (described,) = specification.description.input
  of_pixels = described.type.WhichOneof('Type') == 'imageType'
  return coreml_run.function(program, channels_first=of_pixels)
