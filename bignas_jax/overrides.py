"""Reading a config file and `--config.x=y` overrides of its fields."""

import argparse
import ast
import dataclasses
import importlib.util
import pathlib
import types
import typing
from collections.abc import Sequence
from typing import Any

from bignas_jax import errors
from bignas_jax.config import Config

_OVERRIDE = '--config.'


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
    help='overrides a field, such as --config.optimizer.momentum=0.8',
  )
  changes = [a for a in arguments if a.startswith(_OVERRIDE)]
  options = parser.parse_args([a for a in arguments if a not in changes])
  config = load(options.config)
  for change in changes:
    path, given, text = change.removeprefix(_OVERRIDE).partition('=')
    if not given:
      parser.error(f'{change}: write {change}=VALUE')
    apply(config, path, text)
  return config, options


def load(path: str) -> Config:
  """Runs the file's `get_config()`.

  Raises:
    UserError: there is no such file, or it makes no Config.
  """
  file = pathlib.Path(path)
  if not file.is_file():
    raise errors.UserError('--config', path, 'a Python file with get_config()')
  spec = importlib.util.spec_from_file_location('bignas_jax_config', file)
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    make = getattr(module, 'get_config', None)
    config = make() if callable(make) else None
  except (SyntaxError, ImportError) as error:
    allowed = f'valid Python ({error})'
    raise errors.UserError('--config', path, allowed) from None
  except TypeError as error:  # a misspelt field of a dataclass
    allowed = f'known fields ({error})'
    raise errors.UserError('--config', path, allowed) from None
  if not isinstance(config, Config):
    raise errors.UserError(
      '--config', path, 'a Python file whose get_config() returns a Config'
    )
  return config


def apply(config: Config, path: str, text: str) -> None:
  """Sets a field, such as `optimizer.momentum`, from its text.

  Raises:
    UserError: no such field (says which was probably meant), or a value of
      another type.
  """
  field = f'--config.{path}'
  *outer, last = path.split('.')
  owner: Any = config
  for name in [*outer, last]:
    names = (
      [f.name for f in dataclasses.fields(owner)]
      if dataclasses.is_dataclass(owner)
      else []
    )
    if name not in names:
      raise errors.UserError(field, text, errors.one_of(names, name))
    if name is not last:
      owner = getattr(owner, name)
  kind = typing.get_type_hints(type(owner))[last]
  try:
    value = _parse(kind, text)
  except (ValueError, SyntaxError):
    raise errors.UserError(field, text, _describe(kind)) from None
  setattr(owner, last, value)


def _parse(kind: Any, text: str) -> Any:
  """The text as a value of the annotated type; ValueError if it is none."""
  if isinstance(kind, types.UnionType):
    kinds = typing.get_args(kind)
    return text if str in kinds else _parse(kinds[0], text)
  if typing.get_origin(kind) is typing.Literal:
    if text not in typing.get_args(kind):
      raise ValueError
    return text
  return text if kind is str else _typed(kind, ast.literal_eval(text))


def _typed(kind: Any, value: Any) -> Any:
  """The value, if it is of the annotated type; ValueError if not."""
  if kind is float and type(value) is int:
    return float(value)
  if typing.get_origin(kind) is tuple:
    inner = typing.get_args(kind)[0]
    if not isinstance(value, tuple | list):
      raise ValueError
    return tuple(_typed(inner, item) for item in value)
  if type(value) is not kind:
    raise ValueError
  return value


def _describe(kind: Any) -> str:
  names = {
    int: 'a whole number',
    float: 'a number',
    bool: 'True or False',
    str: 'text',
  }
  if typing.get_origin(kind) is typing.Literal:
    return errors.one_of(typing.get_args(kind))
  if typing.get_origin(kind) is tuple:
    return f'a tuple of {_describe(typing.get_args(kind)[0])}, like (1, 2)'
  return names.get(kind, 'a value that only a config file can give')
