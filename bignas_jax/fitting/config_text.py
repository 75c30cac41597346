"""A config as the text of a Python file, as a person would write it."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from bignas_jax.runs.config import Config

_WIDTH = 80
_INDENT = '  '


def write(config: Config, title: str, why: Sequence[str]) -> str:
  """Returns a Python file whose `get_config()` returns the config.

  Fields that have their default values are left out.

  Args:
    config: the config, with its space as a literal.
    title: first line of the file's docstring.
    why: sentences that explain the choices.
  """
  classes = {type(value) for value in _inside(config)}
  imports = sorted(f'from {c.__module__} import {c.__name__}' for c in classes)
  reasons = ''.join(f'- {_wrapped(line)}\n' for line in map(_quoted, why))
  value = _literal(config, _INDENT)
  return (
    f'"""{_quoted(title)}\n\n'
    'Written by `python -m bignas_jax.fit`. An edited copy is trained by\n\n'
    '  python -m bignas_jax.main --config=FILE --workdir=DIR\n\n'
    f'What was chosen, and why:\n\n{reasons}"""\n\n'
    + '\n'.join(imports)
    + f'\n\n\ndef get_config() -> Config:\n{_INDENT}return {value}\n'
  )


def _quoted(text: str) -> str:
  """Returns a text that can stand in a docstring."""
  written = text.encode('utf-8', 'backslashreplace').decode()
  return written.replace('\\', '\\\\').replace('"', "'")


def _wrapped(text: str) -> str:
  """Returns a text in lines that are not too long, the later ones indented."""
  lines, line = [], ''
  for word in text.split():
    if line and len(line) + len(word) + 4 > _WIDTH:
      lines.append(line)
      line = word
    else:
      line = f'{line} {word}'.strip()
  return f'\n{_INDENT}'.join([*lines, line])


def _inside(value: Any) -> Iterator[Any]:
  """Yields all dataclasses that a value's literal names."""
  if isinstance(value, tuple):
    for one in value:
      yield from _inside(one)
  elif dataclasses.is_dataclass(value):
    yield value
    for _, inner in _fields(value):
      yield from _inside(inner)


def _fields(value: Any) -> list[tuple[str, Any]]:
  """Returns the fields of a dataclass that are not as by default."""
  kept = []
  for field in dataclasses.fields(value):
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
      default = field.default_factory()
    inner = getattr(value, field.name)
    if inner != default:
      kept.append((field.name, inner))
  return kept


def _literal(value: Any, indent: str) -> str:
  """Returns a value as Python, its further lines indented by `indent`."""
  deeper = indent + _INDENT
  if dataclasses.is_dataclass(value):
    inside = [
      f'{name}={_literal(inner, deeper)}' for name, inner in _fields(value)
    ]
    begin, end = f'{type(value).__name__}(', ')'
  elif isinstance(value, tuple):
    inside = [_literal(one, deeper) for one in value]
    begin, end = '(', ',)' if len(value) == 1 else ')'
  else:
    return ascii(value)
  line = f'{begin}{", ".join(inside)}{end}'
  short = len(indent) + len(line) < _WIDTH - 20 and '\n' not in line
  if short or not inside:
    return line
  rows = ''.join(f'{deeper}{one},\n' for one in inside)
  return f'{begin}\n{rows}{indent}{end.lstrip(",")}'
