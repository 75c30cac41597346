"""A child on its own: a package of two files, without the supernet.

`child.json` says what it is, `model.safetensors` holds its weights and
calibrated statistics in static shapes.
"""

import dataclasses
import hashlib
import json
import math
from typing import Any

import numpy as np
import safetensors.numpy
from etils import epath

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.supernet import network as network_lib
from bignas_jax.supernet import slicing
from bignas_jax.system import digests, files, replacing, staging
from bignas_jax.values import errors, schema, stored

FORMAT = 1
FILES = _INFO, _WEIGHTS = 'child.json', 'model.safetensors'
# What other commands write beside them.
MEASURED = 'latency.json'
_RECEIPTS = (staging.RECEIPT, *staging.UNDER_WAY)
_PACKAGE = 'a child package'
# What safetensors says of a damaged file, and of numbers that NumPy has not.
_UNREADABLE = (OSError, safetensors.SafetensorError, KeyError, TypeError)

Variables = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Input:
  """What `child.json` says of images; what is None need not be there."""

  image_size: schema.Natural
  mean: tuple[float, ...]
  std: tuple[schema.Positive, ...]
  resolution: schema.Natural | None = None
  channels: schema.Natural | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Calibration:
  """What `child.json` says of the images that its statistics come from."""

  images: schema.Natural
  seed: schema.Seed


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Info:
  """What all that load a package rely on in `child.json`."""

  input: _Input
  classes: schema.Natural | None = None
  class_names: tuple[str, ...] | None = None
  calibration: _Calibration | None = None


@dataclasses.dataclass(frozen=True)
class Child:
  """A network with its weights.

  Attributes:
    arch: its architecture.
    space: that holds this architecture only.
    variables: `params`; `batch_stats`, empty if batch norms are folded.
    info: contents of `child.json`.
  """

  arch: Arch
  space: Space
  variables: Variables
  info: dict[str, Any]


def check_place(directory: epath.Path, field: str = '--out') -> None:
  """Checks, before any work, that a package may be written there.

  It may be where nothing is, in an empty directory, and in place of an older
  package with what we have made of that: exports and measurements.

  Raises:
    UserError: something else is there, or nothing can be written.
  """
  replacing.check(directory, ours, field, _PACKAGE)


def save(directory: epath.Path, child: Child) -> None:
  """Writes the package, whole or not at all; replaces an older one.

  Raises:
    UserError: as `check_place` does.
  """
  flat = {k: np.asarray(v) for k, v in _flatten(child.variables).items()}
  fields = {'format': FORMAT, **child.info}
  fields['network'] = dataclasses.asdict(child.space)
  contents = {
    _WEIGHTS: safetensors.numpy.save(flat),
    _INFO: (json.dumps(files.finite(fields), indent=2) + '\n').encode(),
  }
  replacing.replace(directory, contents, ours, _PACKAGE)


def ours(directory: epath.Path) -> set[str]:
  """Returns the names in a package's directory of what we have written.

  The two files of a package, what was measured of it, and exports with all
  that is as their receipts say.
  """
  found = {*FILES, MEASURED}
  for name in replacing.names(directory):
    folder, _, last = name.rpartition('/')
    if last in _RECEIPTS:
      exported = _exported(directory / folder, last)
      found |= {f'{folder}/{n}'.strip('/') for n in exported}
  return found


def _exported(directory: epath.Path, receipt: str) -> set[str]:
  """Returns the names of an export's files that nobody has changed since."""
  try:
    entries = staging.receipt(directory, receipt)['formats'].values()
  except errors.UserError:
    return set()  # no receipt of ours
  told = {n: f['sha256'] for e in entries for n, f in e['files'].items()}
  there = replacing.names(directory)
  return {receipt} | {
    name
    for name, sha256 in told.items()
    if name in there and digests.digest(directory / name) == sha256
  }


def load(directory: epath.Path) -> Child:
  """Reads a package.

  Raises:
    UserError: a file is missing, damaged, or does not fit the other.
  """
  info = _read_info(directory)
  stored.check_format(info, FORMAT, str(directory / _INFO))
  space, arch = _described(str(directory / _INFO), info)
  path = directory / _WEIGHTS
  try:
    arrays = safetensors.numpy.load(path.read_bytes())
  except _UNREADABLE as error:
    raise errors.UserError(
      str(path), str(error), 'undamaged weights; extract the child again'
    ) from None
  variables = {'batch_stats': {}} | _unflatten(arrays)
  params = network_lib.shapes(space)
  expected = {
    'params': params,
    'batch_stats': slicing.norm_shapes(params, ('mean', 'var')),
  }
  found = {k: (v.shape, v.dtype) for k, v in _flatten(variables).items()}
  wanted = {k: (v.shape, v.dtype) for k, v in _flatten(expected).items()}
  if found != wanted:
    odd = sorted(name for name, _ in found.items() ^ wanted.items())
    raise errors.UserError(
      str(path), f'other arrays: {odd[0]}', 'the arrays of its child.json'
    )
  return Child(arch, space, variables, info)


def _described(path: str, info: dict[str, Any]) -> tuple[Space, Arch]:
  """Returns what a `child.json` describes.

  Raises:
    UserError: it is not complete, or says things that do not go together.
  """
  network, version = info.get('network'), stored.version_of(info)
  space = stored.convert(Space, network, f'{path}: network', version)
  with errors.within(path):
    arch = arch_lib.from_dict(space, info.get('arch'))
  told = schema.convert(_Info, files.finite(info), f'{path}:', others=True)
  for field, value, right in (
    ('classes', told.classes, space.classes),
    ('input.channels', told.input.channels, space.channels),
    ('input.resolution', told.input.resolution, arch.resolution),
    ('input.mean', len(told.input.mean), space.channels),
    ('input.std', len(told.input.std), space.channels),
  ):
    if value not in (None, right):
      allowed = f'{right}, as the network has it'
      raise errors.UserError(f'{path}: {field}', value, allowed)
  return space, arch


def check_complete(directory: epath.Path, child: Child) -> None:
  """Checks that a package says what is needed to show it images.

  Which images, is looked at where they are opened.

  Raises:
    UserError: `child.json` does not.
  """
  for path in ('input.channels', 'input.resolution', 'calibration'):
    value: Any = child.info
    for name in path.split('.'):
      value = value.get(name)
    if value is None:
      where = f'{directory / _INFO}: {path}'
      raise errors.UserError(where, 'nothing', 'what `extract` writes')


def sha256(directory: epath.Path) -> str:
  """Names the weights of a package that is there."""
  return hashlib.sha256((directory / _WEIGHTS).read_bytes()).hexdigest()


def _read_info(directory: epath.Path) -> dict[str, Any]:
  path = directory / _INFO
  if not path.is_file():
    raise errors.UserError(
      'child', str(directory), f'a child package, with {_INFO} in it'
    )
  return files.read_json(path)


def header_bytes(variables: Variables) -> int:
  """Of a weights file: everything before the arrays, which are float32.

  The format: eight bytes for a length, and JSON with an entry an array, by
  name, filled up with spaces to a multiple of eight.

  Args:
    variables: nested dicts of arrays, or of anything with a `shape`.
  """
  header, end = {}, 0
  for name, array in sorted(_flatten(variables).items()):
    begin, end = end, end + 4 * math.prod(array.shape)
    header[name] = {
      'dtype': 'F32',
      'shape': list(array.shape),
      'data_offsets': [begin, end],
    }
  text = json.dumps(header, separators=(',', ':'))
  return 8 + -(-len(text) // 8) * 8


def _flatten(tree: Variables, prefix: str = '') -> dict[str, Any]:
  """{'a': {'b': x}} -> {'a.b': x}."""
  flat = {}
  for name, value in tree.items():
    if isinstance(value, dict):
      flat |= _flatten(value, f'{prefix}{name}.')
    else:
      flat[prefix + name] = value
  return flat


def _unflatten(flat: dict[str, Any]) -> Variables:
  tree: Variables = {}
  for path, value in flat.items():
    *outer, last = path.split('.')
    inner = tree
    for name in outer:
      inner = inner.setdefault(name, {})
    inner[last] = value
  return tree
