"""The child package: files that describe a child without the supernet.

`child.json` describes the network, `model.safetensors` holds its weights and
calibrated statistics in static shapes. A child needs no other file; `README.md`
and `config.json` are for model hubs (`card`).
"""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import safetensors.numpy
from etils import epath
from flax import traverse_util

from bignas_jax.deploy import card
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.supernet import network as network_lib
from bignas_jax.system import digests, files, replacing, staging
from bignas_jax.values import errors, schema, stored, structs

FORMAT = 1
FILES = _INFO, _WEIGHTS = 'child.json', 'model.safetensors'
# File that another command writes into a package.
MEASURED = 'latency.json'
_CARD = (card.README, card.CONFIG)
_MANIFESTS = (staging.MANIFEST, *staging.HIDDEN)
_PACKAGE = 'a child package'
# Errors of safetensors for a damaged file, and for types that NumPy lacks.
_UNREADABLE = (OSError, safetensors.SafetensorError, KeyError, TypeError)

Variables = dict[str, Any]

# {'a': {'b': x}} is {'a.b': x} in a file.
_flatten: Callable[..., dict[str, Any]] = functools.partial(
  traverse_util.flatten_dict, sep='.'
)
_unflatten = functools.partial(traverse_util.unflatten_dict, sep='.')


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Input:
  """The part of `child.json` on images; fields with a default are optional."""

  image_size: schema.Natural
  mean: tuple[float, ...]
  std: tuple[schema.Positive, ...]
  resolution: schema.Natural | None = None
  channels: schema.Natural | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Calibration:
  """The part of `child.json` on the images that gave the statistics."""

  images: schema.Natural
  seed: schema.Seed | None = None  # None: a user's own images


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Info:
  """The part of `child.json` that every command which loads a package needs."""

  input: _Input
  classes: schema.Natural | None = None
  class_names: tuple[str, ...] | None = None
  calibration: _Calibration | None = None


@dataclasses.dataclass(frozen=True)
class Child:
  """A network with its weights.

  Attributes:
    arch: architecture of the network in the space of its supernet.
    space: space that holds this architecture only.
    variables: `params`, and `batch_stats`, which are empty if batch norms are
      folded.
    info: content of `child.json`.
  """

  arch: Arch
  space: Space
  variables: Variables
  info: dict[str, Any]

  @property
  def own_arch(self) -> Arch:
    """Returns the architecture in the child's own space.

    It is another one if the supernet chose for each block (`pinning.pin`).
    """
    return arch_lib.biggest(self.space)


def check_place(directory: epath.Path, field: str = '--out') -> None:
  """Checks, before any work, that a package may be written to a directory.

  The directory may be missing, empty, or an older package. An older package may
  also hold exports and measurements that bignas_jax made of it.

  Raises:
    UserError: the directory holds anything else, or nothing can be written.
  """
  replacing.check(directory, ours, field, _PACKAGE)


def save(directory: epath.Path, child: Child) -> None:
  """Writes a package, as a whole or not at all, and replaces an older one.

  Raises:
    UserError: `check_place` refuses the directory.
  """
  # safetensors writes an array's memory, whatever its strides say.
  flat = {
    k: np.asarray(v, order='C') for k, v in _flatten(child.variables).items()
  }
  fields = {'format': FORMAT, **child.info}
  fields['network'] = dataclasses.asdict(child.space)
  contents = {_WEIGHTS: safetensors.numpy.save(flat)}
  contents |= card.files(structs.encodable(files.finite(fields)))
  fields['files'] = {
    name: hashlib.sha256(content).hexdigest()
    for name, content in contents.items()
  }
  text = json.dumps(files.finite(fields), indent=2) + '\n'
  contents[_INFO] = text.encode()
  replacing.replace(directory, contents, ours, _PACKAGE)


def ours(directory: epath.Path) -> list[str]:
  """Returns the names of files in a package's directory that bignas_jax wrote.

  They are the two files of a package, its measurements, and those files for
  model hubs and exported files that are unchanged since they were written. If
  there is no `child.json`, they are the unchanged files of a package whose
  writing was interrupted. Manifests come after the files that they list, and
  `child.json` is the last.
  """
  names = _unchanged(directory, replacing.unfinished(_INFO), (_WEIGHTS, *_CARD))
  if (directory / _INFO).is_file():
    names |= {*FILES, MEASURED, *_unchanged(directory, _INFO, _CARD)}
  for name in replacing.names(directory):
    folder, _, last = name.rpartition('/')
    if last in _MANIFESTS:
      exported = staging.as_listed(directory / folder, last)
      names |= {f'{folder}/{n}'.strip('/') for n in exported}
  lists = lambda name: (name == _INFO, name.endswith(_MANIFESTS))  # noqa: E731
  return sorted(names, key=lists)


def _unchanged(
  directory: epath.Path, listed_in: str, names: Iterable[str]
) -> set[str]:
  """Returns the names of files that are as a package's file lists them.

  The listing file's own name is among them. If it lists none, the set is empty.

  Args:
    directory: directory of the package.
    listed_in: name of the file, which has the digests of the others.
    names: names of other files.
  """
  try:
    digest = _digests(_read_info(directory, listed_in))
  except errors.UserError:
    return set()  # it is not a package
  if not digest:
    return set()
  return {listed_in} | {
    name
    for name in names
    if name in digest
    and (directory / name).is_file()
    and digests.digest(directory / name) == digest[name]
  }


def _digests(info: dict[str, Any]) -> dict[str, Any]:
  """Returns the SHA-256 of a package's files; older packages say none."""
  written = info.get('files')
  return written if isinstance(written, dict) else {}


def load(directory: epath.Path) -> Child:
  """Reads a package.

  Raises:
    UserError: a file is missing or damaged, or does not fit the other file.
  """
  info = _read_info(directory)
  stored.check_format(info, FORMAT, str(directory / _INFO))
  space, arch = _described(str(directory / _INFO), info)
  path = directory / _WEIGHTS
  allowed = 'undamaged weights; extract the child again'
  try:
    content = path.read_bytes()
    arrays = safetensors.numpy.load(content)
  except _UNREADABLE as error:
    raise errors.UserError(str(path), str(error), allowed) from None
  variables = {'batch_stats': {}} | _unflatten(arrays)
  expected = network_lib.variables_shapes(space)
  actual = {k: (v.shape, v.dtype) for k, v in _flatten(variables).items()}
  wanted = {k: (v.shape, v.dtype) for k, v in _flatten(expected).items()}
  if actual != wanted:
    odd = sorted(name for name, _ in actual.items() ^ wanted.items())
    raise errors.UserError(
      str(path), f'other arrays: {odd[0]}', 'the arrays of its child.json'
    )
  actual = hashlib.sha256(content).hexdigest()
  if _digests(info).get(_WEIGHTS, actual) != actual:
    raise errors.UserError(str(path), f'SHA-256 {actual}', allowed)
  return Child(arch, space, variables, info)


def _described(path: str, info: dict[str, Any]) -> tuple[Space, Arch]:
  """Returns the space and the architecture that a `child.json` describes.

  Raises:
    UserError: the file is incomplete or contradicts itself.
  """
  network, version = info.get('network'), stored.version_of(info)
  space = stored.convert(Space, network, f'{path}: network', version)
  with errors.within(path):
    arch = pinning.described(space, info.get('arch'))
  fields = schema.convert(_Info, files.finite(info), f'{path}:', others=True)
  for field, value, right in (
    ('classes', fields.classes, space.classes),
    ('input.channels', fields.input.channels, space.channels),
    ('input.resolution', fields.input.resolution, arch.resolution),
    ('input.mean', len(fields.input.mean), space.channels),
    ('input.std', len(fields.input.std), space.channels),
  ):
    if value not in (None, right):
      allowed = f'{right}, as the network has it'
      raise errors.UserError(f'{path}: {field}', value, allowed)
  return space, arch


def check_complete(directory: epath.Path, child: Child) -> None:
  """Checks that `child.json` says what is needed to evaluate the child.

  The calibration may be null: statistics that a published network came with.
  The child's data are checked later, where they are opened.

  Raises:
    UserError: a field is missing in `child.json`.
  """
  for path in ('input.channels', 'input.resolution', 'calibration'):
    value: Any = child.info
    *parents, last = path.split('.')
    for name in parents:
      value = value[name]
    if last not in value or (parents and value[last] is None):
      place = f'{directory / _INFO}: {path}'
      raise errors.UserError(place, 'nothing', 'what `extract` writes')


def sha256(directory: epath.Path) -> str:
  """Returns the SHA-256 of a package's weights file."""
  return hashlib.sha256((directory / _WEIGHTS).read_bytes()).hexdigest()


def _read_info(directory: epath.Path, name: str = _INFO) -> dict[str, Any]:
  path = directory / name
  if not path.is_file():
    raise errors.UserError(
      'child', str(directory), f'a child package, with {name} in it'
    )
  return files.read_json(path)


def header_bytes(variables: Variables) -> int:
  """Returns the size of a weights file in bytes, less that of its arrays.

  The arrays are float32. The format has eight bytes for a length, then JSON
  with one entry per array, by name, filled up with spaces to a multiple of
  eight.

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
