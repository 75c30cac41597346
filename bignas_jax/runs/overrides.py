"""Reading a config file and `--config.x=y` overrides of its fields."""

import argparse
import dataclasses
import pathlib
import re
import traceback
import types
from collections.abc import Sequence
from typing import Any

from bignas_jax.runs.config import Config
from bignas_jax.spaces import zoo
from bignas_jax.spaces.space import Space
from bignas_jax.system import files
from bignas_jax.values import annotations, errors, parsing
from bignas_jax.values.annotations import Step

_OVERRIDE = '--config.'
_PATH = re.compile(r'\w+(\.\w+|\[\d+\])*', re.ASCII)
_STEP = re.compile(r'\[(\d+)\]|(\w+)', re.ASCII)
_SHOWN = 300  # characters of what went wrong in a user's file


def parse(
  parser: argparse.ArgumentParser, arguments: Sequence[str]
) -> tuple[Config, argparse.Namespace]:
  """The config of `--config` with its overrides; and the other options."""
  parser.add_argument(
    '--config', required=True, help='a Python file with get_config()'
  )
  parser.add_argument(
    '--config.FIELD=VALUE',
    action='append',
    help='overrides a field, such as --config.optimizer.momentum=0.8 or '
    '--config.space.stages[0].width=(8,16)',
  )
  given = [a for a in arguments if a.startswith(_OVERRIDE)]
  options = parser.parse_args([a for a in arguments if a not in given])
  changes = []
  for change in given:
    path, found, text = change.removeprefix(_OVERRIDE).partition('=')
    if not found:
      parser.error(f'{change}: write {change}=VALUE')
    changes.append((path, text))
  return changed(load(options.config), changes), options


def load(path: str) -> Config:
  """Runs the file's `get_config()`.

  Raises:
    UserError: there is no such file, it fails, or it makes no Config; says
      where.
  """
  allowed = 'a Python file with get_config()'
  if not pathlib.Path(path).is_file():
    raise errors.UserError('--config', path, allowed)
  text = files.read_text(pathlib.Path(path)).removeprefix('\ufeff')
  module = types.ModuleType('bignas_jax_config')
  module.__file__ = path
  try:
    exec(compile(text, path, 'exec', dont_inherit=True), vars(module))
    make = getattr(module, 'get_config', None)
    config = make() if callable(make) else None
  except (Exception, SystemExit) as error:
    raise errors.UserError('--config', path, _failure(path, error)) from None
  if not isinstance(config, Config):
    allowed = 'a Python file whose get_config() returns a Config'
    raise errors.UserError('--config', path, allowed)
  return config


def _failure(path: str, error: BaseException) -> str:
  """Returns where a config file failed, and with which error."""
  frames = traceback.extract_tb(error.__traceback__)
  lines = [frame.lineno for frame in frames if frame.filename == path]
  if isinstance(error, SyntaxError) and error.filename == path:
    lines.append(error.lineno)
  where = f'line {lines[-1]}: ' if lines and lines[-1] else ''
  told = ' '.join(traceback.format_exception_only(error)[-1].split())
  if isinstance(error, errors.UserError):
    told = str(error)
  return f'a file that runs; {where}{told[:_SHOWN]}'


def changed(config: Config, changes: Sequence[tuple[str, str]]) -> Config:
  """Returns a config with other values in some of its fields.

  Args:
    config: of any values; stays as it is.
    changes: (path, text) each, in their order: of two of one path the last
      counts. A path leads into fields of dataclasses and entries of tuples,
      such as `space.stages[0].width`.

  Raises:
    UserError: no such field (says which was probably meant), or a value that
      is not allowed there.
  """
  tree = _Change()
  for path, text in changes:
    if not _PATH.fullmatch(path):
      allowed = 'a field, such as --config.space.stages[0].width'
      raise errors.UserError(_OVERRIDE + path, text, allowed)
    here = tree
    for number, name in _STEP.findall(path):
      here = here.inner.setdefault(name or int(number), _Change())
    here.text, here.inner = text, {}
  return _applied(Config, config, tree, '')


@dataclasses.dataclass
class _Change:
  """What becomes of a value: another one, then changes inside of it.

  Attributes:
    text: of the other one; None: it stays.
    inner: by field, or by position in a tuple.
  """

  text: str | None = None
  inner: dict[Step, '_Change'] = dataclasses.field(default_factory=dict)

  def first(self) -> str | None:
    """A text that was given for it, or for something inside of it."""
    if self.text is not None or not self.inner:
      return self.text
    return next(iter(self.inner.values())).first()


def _applied(kind: Any, value: Any, change: _Change, path: str) -> Any:
  """Returns a value of that annotation as the change makes it."""
  field = _OVERRIDE + path
  if change.text is not None:
    made = parsing.value(kind, change.text, field)
    if dataclasses.is_dataclass(value) and dataclasses.is_dataclass(made):
      allowed = f'its fields one by one: {field}.FIELD=VALUE'
      raise errors.UserError(field, change.text, allowed)
    value = made
  if not change.inner:
    return value
  if Space in annotations.alternatives(kind) and isinstance(value, str):
    value = zoo.get(value, field)
  entries = _entries(value)
  found = {}
  for step, inner in change.inner.items():
    where = f'{path}[{step}]' if isinstance(step, int) else f'{path}.{step}'
    where = where.removeprefix('.')
    if step not in entries:
      allowed = _names(field, entries, step)
      raise errors.UserError(_OVERRIDE + where, inner.first(), allowed)
    there = type(value) if dataclasses.is_dataclass(value) else kind
    told = annotations.inner(there, step)
    found[step] = _applied(told, entries[step], inner, where)
  return _replaced(value, found)


def _entries(value: Any) -> dict[Step, Any]:
  """Returns what is in a dataclass or a tuple; of other things, nothing."""
  if dataclasses.is_dataclass(value):
    return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
  return dict(enumerate(value)) if isinstance(value, list | tuple) else {}


def _names(field: str, entries: dict[Step, Any], step: Step) -> str:
  """Returns in words what there is in place of a wrong step."""
  if not entries:
    return f'{field}=VALUE: there is nothing inside of it'
  if 0 in entries:
    return f'one of its entries, [0] to [{len(entries) - 1}]'
  return errors.one_of(map(str, entries), step)


def _replaced(value: Any, changes: dict[Step, Any]) -> Any:
  """Returns a copy of a dataclass or a tuple."""
  if isinstance(value, list | tuple):
    return tuple((dict(enumerate(value)) | changes).values())
  try:
    return dataclasses.replace(value, **{str(k): v for k, v in changes.items()})
  except errors.UserError as error:  # of a space, which checks itself
    raise errors.UserError.quoted(f'{_OVERRIDE}{error}') from None
