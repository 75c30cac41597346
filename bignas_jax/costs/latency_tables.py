"""Latency tables as JSON files, made for one space and checked when read."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from etils import epath

from bignas_jax.costs import latency
from bignas_jax.costs.latency import Fit, Table
from bignas_jax.costs.layers import Layer
from bignas_jax.spaces.space import Space
from bignas_jax.system import files
from bignas_jax.values import errors, schema

FORMAT = 1
_MS: Any = schema.AtLeastZero
# What a file says of how its parts were measured.
_ABOUT: dict[str, Any] = {
  'runtime': str,
  'batch': schema.Natural,
  'device': str,
  'versions': dict,
  'estimate': bool,
  'statistic': Literal['least', 'median'],
  'threads': schema.Natural,
}
# Fields of a stage that the digests of older tables do not have.
_LATER = {
  'se_choice': False,
  'groups': 1,
  'shared_kernel': False,
  'zero_start': False,
}
_NOT_ALWAYS = ('statistic', 'threads')  # a compiler's estimate has none


def digest(space: Space) -> str:
  """Returns a SHA-256 of a space without its name and train_resolution."""
  fields = dataclasses.asdict(space)
  for left_out in ('name', 'train_resolution'):
    del fields[left_out]
  for stage in fields['stages']:
    for name, default in _LATER.items():
      if stage[name] == default:
        del stage[name]
  return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


def sha256(table: Table) -> str:
  """Returns a digest of everything that a table predicts."""
  entries = {latency.name(p): ms for p, ms in table.entries.items()}
  text = json.dumps([table.network_ms, table.resolutions, entries])
  return hashlib.sha256(text.encode()).hexdigest()


def save(
  path: epath.Path,
  space: Space,
  resolutions: Sequence[int],
  about: dict[str, Any],
  measured: dict[Layer, float],
  fit: Fit | None,
  more: dict[str, Any] | None = None,
) -> None:
  """Writes a table atomically; without a fit, the table is unfinished."""
  files.write_json(
    path,
    {
      'format': FORMAT,
      'space': space.name,
      'space_sha256': digest(space),
      'resolutions': list(resolutions),
      **about,
      'fit': None if fit is None else fit._asdict(),
      **(more or {}),
      'parts_ms': {latency.name(layer): ms for layer, ms in measured.items()},
    },
  )


def load(path: epath.Path, space: Space) -> Table:
  """Reads a finished table of a space.

  Raises:
    UserError: there is no table; or it is damaged, of another space,
      unfinished, or lacks a layer, which the error names.
  """
  fields, resolutions = read(path, space)
  about = {
    key: schema.convert(kind, fields.get(key), f'{path}: {key}')
    for key, kind in _ABOUT.items()
    if key in fields or key not in _NOT_ALWAYS
  }
  fit: Any = fields.get('fit')
  try:
    network_ms, part_ms, scale = (
      schema.convert(float, fit[name]) for name in Fit._fields
    )
  except (KeyError, TypeError, errors.UserError):
    again = 'a finished table; run `benchmark table` again'
    raise errors.UserError(f'{path}: fit', fit, again) from None
  with errors.within(path):
    measured = milliseconds(fields, space, resolutions)
  for layer in latency.all_layers(space, resolutions):
    if layer not in measured:
      raise errors.UserError(
        f'{path}: parts_ms',
        'a table',
        f'one with {latency.name(layer)!r}',
      )
  entries = {layer: part_ms + scale * ms for layer, ms in measured.items()}
  return Table(space, resolutions, about, entries, network_ms)


def contents(path: epath.Path) -> dict[str, Any]:
  """Returns a table's fields as they are in the file, of whichever space.

  Raises:
    UserError: there is no file, or it is not that of a latency table.
  """
  if not path.is_file():
    raise errors.UserError('latency table', str(path), 'a file')
  fields = files.read_json(path)
  if fields.get('format') != FORMAT:
    raise errors.UserError(
      f'{path}: format', fields.get('format'), f'{FORMAT}, of a latency table'
    )
  return fields


def read(
  path: epath.Path, space: Space
) -> tuple[dict[str, Any], tuple[int, ...]]:
  """Returns a table's fields as they are in the file, and its resolutions.

  Raises:
    UserError: there is no table, it is damaged, or it is of another space.
  """
  fields = contents(path)
  if fields.get('space_sha256') != digest(space):
    raise errors.UserError(
      f'{path}: space', fields.get('space'), f'{space.name}, with all it says'
    )
  resolutions: Any = fields.get('resolutions')
  right = isinstance(resolutions, list) and bool(resolutions)
  if not right or any(
    type(r) is not int or r not in space.resolution for r in resolutions
  ):
    allowed = f'a list of some of {", ".join(map(str, space.resolution))}'
    raise errors.UserError(f'{path}: resolutions', resolutions, allowed)
  return fields, tuple(resolutions)


def milliseconds(
  fields: dict[str, Any], space: Space, resolutions: Iterable[int]
) -> dict[Layer, float]:
  """Returns the milliseconds of the parts that a file contains.

  Raises:
    UserError: an entry is not a number of milliseconds.
  """
  there = fields.get('parts_ms')
  if not isinstance(there, dict):
    raise errors.UserError('parts_ms', there, 'milliseconds by layer')
  entries: dict[Layer, float] = {}
  for layer in latency.all_layers(space, resolutions):
    called = latency.name(layer)
    if called in there:
      entries[layer] = schema.convert(_MS, there[called], f'parts_ms: {called}')
  return entries
