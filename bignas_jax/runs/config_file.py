"""The flags `--config=FILE.py:ARG` and `--config.FIELD=VALUE`.

A config file is a short program; `get_config(ARG)` returns a Config. The types
of its fields come from their annotations, which `schema` alone checks.
"""

import pathlib
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags
from ml_collections.config_flags import config_path

from bignas_jax.runs.config import Config
from bignas_jax.values import annotations, errors, parsing

NAME = 'config'
_HELP = (
  'a Python file with get_config(), or FILE.py:ARG for get_config(ARG); '
  '--config.FIELD=VALUE overrides a field, such as '
  '--config.optimizer.momentum=0.8 or --config.data.mean=(0.5,)'
)
_FILE = 'a Python file with get_config()'
_OVERRIDE = re.compile(r'--?(?:no)?config\.([^=]*)(?:=(.*))?', re.DOTALL)
_SHOWN = 300  # characters of what went wrong in a user's file


def define(values: flags.FlagValues, arguments: Sequence[str]) -> None:
  """Defines `--config` and the overrides that the arguments hold.

  Args:
    values: flag values of a command.
    arguments: all arguments of the command.
  """
  for kind in _kinds(Config):
    whole = annotations.has_fields(kind)
    parser = _FieldsParser() if whole else parsing.Parser(kind)
    config_flags.register_flag_parser_for_type(kind, parser)
  config_flags.DEFINE_config_file(
    *(NAME, None, _HELP),
    flag_values=values,
    sys_argv=['', *arguments],
  )


def _kinds(kind: Any) -> Iterator[Any]:
  """Yields annotations of a config's fields that absl has no parsers for."""
  for inner in annotations.fields(kind).values():
    if annotations.has_fields(inner):
      yield from _kinds(inner)
    if inner not in (bool, str):
      yield inner


class _FieldsParser(flags.ArgumentParser):
  """A parser that refuses text for a group of fields, such as `optimizer`."""

  def parse(self, argument: Any) -> Any:
    if isinstance(argument, str):
      raise ValueError('allowed: its fields one by one, .FIELD=VALUE')
    return argument


def load(path: str, *overrides: str) -> Config:
  """Returns the config of a file.

  Args:
    path: path of the file, or `FILE.py:ARG`.
    *overrides: arguments such as `--config.steps=3`.

  Raises:
    UserError: as `parse` does.
  """
  arguments = [f'--{NAME}={path}', *overrides]
  values = flags.FlagValues()
  define(values, arguments)
  parse(values, arguments)
  config = values[NAME].value
  assert isinstance(config, Config)  # `parse` has checked it
  return config


def parse(
  values: flags.FlagValues, arguments: Sequence[str], required: bool = True
) -> list[str]:
  """Parses a command's flags, a config among them.

  Args:
    values: flag values of a command, where `define` has defined the config.
    arguments: all arguments of the command.
    required: whether the command needs a config.

  Returns:
    The arguments that are no flags.

  Raises:
    UserError: there is no such file; it fails, and in which line; it makes no
      Config; an override is of no field, or of a value that is not allowed.
    flags.Error: another flag is wrong.
  """
  keep, sys.dont_write_bytecode = sys.dont_write_bytecode, True
  try:
    _, *rest = values(['', *arguments])
  except (Exception, SystemExit) as error:
    _explain(arguments, error)
    raise
  finally:
    sys.dont_write_bytecode = keep
  path, config = _path(arguments), values[NAME].value
  if not path and not required:
    return rest
  _check_file(path)
  if not isinstance(config, Config):
    allowed = 'a Python file whose get_config() returns a Config'
    raise errors.UserError(f'--{NAME}', path, allowed)
  return rest


def _path(arguments: Sequence[str]) -> str:
  """Returns the value of `--config`, or ''."""
  path, following = '', [*arguments[1:], '']
  for argument, after in zip(arguments, following, strict=True):
    name, equals, text = argument.partition('=')
    if name.lstrip('-') == NAME and name.startswith('-'):
      path = text if equals else after
  return path


def _check_file(path: str) -> None:
  """Raises UserError if there is no such file."""
  if not pathlib.Path(path.partition(':')[0]).is_file():
    raise errors.UserError(f'--{NAME}', path or None, _FILE)


def _explain(arguments: Sequence[str], error: BaseException) -> None:
  """Raises UserError if the config file or an override caused the error."""
  path = _path(arguments)
  if not path:
    return
  _check_file(path)
  file, chain = path.partition(':')[0], list(_chain(error))
  for cause in reversed(chain):
    line = _line(file, cause)
    if line is not None:
      allowed = f'a file that runs; line {line}: {_message(cause)}'
      raise errors.UserError(f'--{NAME}', path, allowed) from None
  if not isinstance(error, flags.Error):
    for argument in arguments:
      override = _OVERRIDE.fullmatch(argument)
      if override is not None:
        _check_override(override[1], override[2])
  elif 'Error whilst parsing config file' not in str(error):
    return  # another flag or an override's value is wrong
  allowed = f'a file that runs; {_message(chain[-1])}'
  raise errors.UserError(f'--{NAME}', path, allowed) from None


def _message(error: BaseException) -> str:
  """Returns an error's message as one line of at most `_SHOWN` characters."""
  if isinstance(error, errors.UserError):
    return str(error)
  text = traceback.format_exception_only(error)[-1]
  return ' '.join(text.split())[:_SHOWN]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
  """Yields an error, its cause or context, and so on."""
  while error is not None:
    yield error
    error = error.__cause__ or error.__context__


def _line(file: str, error: BaseException) -> int | None:
  """Returns the line of a file where an error arose, or None."""
  if isinstance(error, SyntaxError) and error.filename == file:
    return error.lineno or 1
  frames = traceback.extract_tb(error.__traceback__)
  lines = [frame.lineno for frame in frames if frame.filename == file]
  return lines[-1] if lines else None


def _check_override(path: str, text: str | None) -> None:
  """Raises UserError if the path leads to no field that can be set."""
  field = f'--{NAME}.{path}'
  try:
    steps = config_path.split(path)
  except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
    allowed = 'a field, such as --config.optimizer.momentum'
    raise errors.UserError(field, text, allowed) from None
  kind, above = Config, f'--{NAME}'
  for step in steps:
    if not annotations.has_fields(kind):
      allowed = f'{above}=VALUE, which is set as a whole'
      raise errors.UserError(field, text, allowed)
    fields = annotations.fields(kind)
    if step not in fields:
      raise errors.UserError(field, text, errors.one_of(fields, step))
    kind, above = fields[step], f'{above}.{step}'
