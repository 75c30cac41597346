"""Export of child packages to formats for serving, each of them verified.

Each format is run on images of the child's own data, in its own runtime where
that runs here, and compared with the child before any file is put in its place.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

import bignas_jax
from bignas_jax.costs import counting
from bignas_jax.data import identity
from bignas_jax.deploy import (
  coreml,
  graph,
  onnx,
  package,
  parity,
  saved_model,
  stablehlo,
  tflite,
  triton,
)
from bignas_jax.deploy.package import Child
from bignas_jax.spaces import arch
from bignas_jax.system import cluster, console, staging
from bignas_jax.system import digests as digests_lib
from bignas_jax.values import errors

TOLERANCE = 1e-4  # largest difference over the logits' scale
# Two logits may each be off by TOLERANCE, so closer ones may change places.
_TIE = 2 * TOLERANCE
FORMATS: dict[str, Any] = {
  'stablehlo': stablehlo,
  'onnx': onnx,
  'saved_model': saved_model,
  'tflite': tflite,
  'coreml': coreml,
  'triton': triton,
}
# Those whose runtime is for other systems; here, JAX computes their files.
_FOR_OTHERS = ('coreml',)
# Those that have smaller artifacts too, by precision.
_SMALL = 'onnx', 'tflite'
REDUCED = {'int8': _SMALL, 'float16': (*_SMALL, 'coreml')}


def parse(text: str) -> list[str]:
  """Returns the names of formats in a comma-separated list.

  Raises:
    UserError: there is no such format.
  """
  names = list(dict.fromkeys(name.strip() for name in text.split(',')))
  for name in names:
    if name not in FORMATS:
      raise errors.UserError('--format', name, errors.one_of(FORMATS, name))
  return names


def export(
  directory: epath.Path,
  names: Sequence[str],
  out: epath.Path,
  *,
  preprocess: bool = False,
  int8: bool = False,
  float16: bool = False,
  images: int = 1000,
  data: str = '',
) -> dict[str, Any]:
  """Writes verified artifacts of a child, and their manifest.

  Args:
    directory: directory of the child package.
    names: names of the formats.
    out: directory to write to, made if missing. Formats that an earlier export
      of this child left there are kept.
    preprocess: whether artifacts take uint8 images, and normalise and resize
      them.
    int8: whether to write quantised artifacts too, for the formats that have
      them.
    float16: whether to write artifacts with weights in float16 too, for the
      same formats.
    images: number of test images to compare on.
    data: directory of the child's data, or of other data to compare on; '':
      where the child's data were.

  Returns:
    The content of the manifest, with `out` and `verified`; if `verified` is
    False, nothing was written.

  Raises:
    UserError: a format's packages are missing, the child is damaged, or `out`
      cannot be written to or has files where artifacts would go that this
      package did not write.
  """
  cluster.refuse('export')
  for name in names:
    FORMATS[name].check()
  reduced = [n for n, on in (('int8', int8), ('float16', float16)) if on]
  for precision in reduced:
    if not set(names) & set(REDUCED[precision]):
      allowed = f'with --format={" or ".join(REDUCED[precision])}'
      raise errors.UserError(f'--{precision}', ','.join(names), allowed)
  staging.check_place(out, [directory])
  child = package.load(directory)
  package.check_complete(directory, child)
  network = graph.network(child, preprocess=preprocess)
  about = _about(directory, child, network)
  used = ('test', 'train') if int8 else ('test',)
  with staging.staging(out) as stage:
    _check_files(out, about, names, reduced)
    opened = identity.of_child(child.info, data, *used)
    samples = parity.samples(child, opened, preprocess, images)
    entries = {}
    # LiteRT last: where it has run, TensorFlow 2.21 may abort the process.
    for name in sorted(names, key='tflite'.__eq__):
      (stage / name).mkdir()
      calibration = None
      if int8:
        calibration = parity.calibration(child, opened, preprocess)
      entries[name] = _entry(
        name, network, stage / name, samples, calibration, float16
      )
    manifest = about | _reference(samples) | {'formats': entries}
    if opened.differs:
      manifest['data_differs'] = opened.differs
    verified = all(entry['verified'] for entry in entries.values())
    if verified:
      _check_child(directory, about)
      _check_files(out, about, names, reduced)
      manifest['formats'] = _kept(out, about, names) | entries
      made = {name: entry['files'] for name, entry in entries.items()}
      staging.install(out, stage, manifest, made)
  return manifest | {'out': str(out), 'verified': verified}


def _entry(
  name: str,
  network: graph.Network,
  directory: pathlib.Path,
  samples: parity.Samples,
  calibration: list[np.ndarray] | None,
  float16: bool,
) -> dict[str, Any]:
  """Writes and verifies one format, and returns its entry in the manifest."""
  made = FORMATS[name]
  notes = made.write(network, directory)
  scores = _scores(name, made.load(directory), samples)
  right = (
    scores['max_abs_diff'] <= TOLERANCE * samples.scale
    and scores['top1_agreement'] == 1
  )
  ties = f', {scores["ties"]} ties left out' if scores['ties'] else ''
  console.say(
    f'{name}: within {scores["max_abs_diff"]:.1e} of the child, top-1 the same '
    f'on {scores["top1_agreement"]:.2%} of {scores["images"]} images{ties}'
  )
  entry = {'verified': bool(right)} | notes | scores | _files(directory)
  entry['bytes_over_params'] = entry['bytes'] / (4 * _params(network))
  if calibration is not None and name in REDUCED['int8']:
    made.quantise(network, directory, calibration)
    entry['int8'] = _reduced('int8', name, directory, samples, scores)
    entry['int8']['calibration_images'] = sum(map(len, calibration))
  if float16 and name in REDUCED['float16']:
    made.halve(network, directory)
    entry['float16'] = _reduced('float16', name, directory, samples, scores)
  return entry | {'files': _files(directory)['files']}


def _scores(name: str, run: Any, samples: parity.Samples) -> dict[str, Any]:
  """Returns what `parity.compare` does, times only of an own runtime."""
  scores = parity.compare(run, samples, _TIE * samples.scale)
  return scores | {'ms_per_image': None} if name in _FOR_OTHERS else scores


def _reduced(
  precision: str,
  name: str,
  directory: pathlib.Path,
  samples: parity.Samples,
  whole: dict[str, Any],
) -> dict[str, Any]:
  """Returns the entry of an artifact that is compared, but may differ.

  Args:
    precision: `int8` or `float16`.
    name: name of the format.
    directory: directory of the artifact.
    samples: what to compare on.
    whole: scores of the float32 artifact.
  """
  made = FORMATS[name]
  file = _file(name, precision)
  scores = _scores(name, made.load(directory, file), samples)
  files = (directory / file, *(directory / file).rglob('*'))
  console.say(
    f'{name}, {precision}: top-1 {scores["top1"]:.4f}, '
    f'{whole["top1"]:.4f} in float32'
  )
  return scores | {
    'top1_loss': whole['top1'] - scores['top1'],
    'file': file,
    'bytes': sum(f.stat().st_size for f in files if f.is_file()),
  }


def _file(name: str, precision: str) -> str:
  """Returns the name of a format's artifact in int8 or float16."""
  made = FORMATS[name]
  return made.INT8_NAME if precision == 'int8' else made.FLOAT16_NAME


def _about(
  directory: epath.Path, child: Child, network: graph.Network
) -> dict[str, Any]:
  """Returns the manifest's part on the child, its input and its output."""
  return {
    'format': staging.FORMAT,
    'version': bignas_jax.__version__,
    'child': {
      'arch': arch.to_dict(child.arch),
      'params': _params(network),
      'sha256': _digests(directory),
    },
    'input': {
      'name': 'images',
      'dtype': network.dtype,
      'shape': ['batch', *network.shape],
      'preprocess': network.dtype == 'uint8',
      'mean': list(network.mean),
      'std': list(network.std),
    },
    'output': {'name': 'logits', 'shape': ['batch', network.space.classes]},
  }


def _reference(samples: parity.Samples) -> dict[str, Any]:
  """Returns the manifest's part on the comparison that all formats undergo."""
  tolerance = {'max_diff_over_scale': TOLERANCE, 'tie_over_scale': _TIE}
  return {
    'reference': parity.reference(samples),
    'tolerance': tolerance | {'top1_agreement': 1.0},
  }


def _params(network: graph.Network) -> int:
  """Returns the number of the child's parameters, batch norms included."""
  only = arch.biggest(network.space)
  return counting.cost(network.space, only).params


def _files(directory: pathlib.Path) -> dict[str, Any]:
  """Returns the files below a directory, and the sum of their bytes."""
  facts = digests_lib.facts(epath.Path(directory))
  return {'files': facts, 'bytes': sum(f['bytes'] for f in facts.values())}


def _digests(directory: epath.Path) -> dict[str, str]:
  """Returns the SHA-256 of each file of a child package."""
  return {n: digests_lib.digest(directory / n) for n in package.FILES}


def _check_child(directory: epath.Path, about: dict[str, Any]) -> None:
  """Raises UserError if the package changed while it was exported."""
  if _digests(directory) != about['child']['sha256']:
    allowed = 'a child that stays as it is while it is exported'
    raise errors.UserError('--child', str(directory), allowed)


def _kept(
  out: epath.Path, about: dict[str, Any], names: Sequence[str]
) -> dict[str, Any]:
  """Returns the other formats there, if they have the same child and input."""
  before = staging.earlier(out)
  same = all(before.get(k) == about[k] for k in ('format', 'child', 'input'))
  return {
    name: entry
    for name, entry in before.get('formats', {}).items()
    if same and name not in names
  }


def _check_files(
  out: epath.Path,
  about: dict[str, Any],
  names: Sequence[str],
  reduced: Sequence[str],
) -> None:
  """Raises UserError if an export would replace files that are not its own."""
  made = [FORMATS[name].NAME for name in names]
  made += [_file(n, p) for p in reduced for n in names if n in REDUCED[p]]
  kept = staging.names({'formats': _kept(out, about, names)})
  older = staging.names(staging.earlier(out)) - kept
  staging.check_files(out, made, older)
