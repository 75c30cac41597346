"""Operations on nested dataclasses and dicts: access, filtering, comparison."""

import dataclasses
from collections.abc import Sequence
from typing import Any


def get(value: Any, path: str) -> Any:
  """Returns the field at a dotted path, such as `schedule.name`."""
  for name in path.split('.'):
    value = getattr(value, name)
  return value


def encodable(value: Any) -> Any:
  """Returns a JSON value whose text can be written as UTF-8.

  The name of a folder may not be UTF-8; characters of it that cannot be encoded
  become escape sequences.
  """
  if isinstance(value, dict):
    return {encodable(name): encodable(inner) for name, inner in value.items()}
  if isinstance(value, list):
    return [encodable(inner) for inner in value]
  if isinstance(value, str):
    return value.encode('utf-8', 'backslashreplace').decode()
  return value


def without(fields: dict[str, Any], paths: Sequence[str]) -> dict[str, Any]:
  """Returns nested dicts without the values at the dotted paths."""
  left = {}
  for name, value in fields.items():
    inside = [p[len(name) + 1 :] for p in paths if p.startswith(f'{name}.')]
    if name not in paths:
      left[name] = without(value, inside) if inside else value
  return left


def differences(a: Any, b: Any, path: str = '') -> list[str]:
  """Returns one text, with both values, per field that differs in two dicts."""
  if isinstance(a, dict) and isinstance(b, dict):
    return [
      line
      for key in sorted({*a, *b})
      for line in differences(
        a.get(key), b.get(key), f'{path}.{key}'.strip('.')
      )
    ]
  if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
    return [
      line
      for i, (x, y) in enumerate(zip(a, b, strict=True))
      for line in differences(x, y, f'{path}[{i}]')
    ]
  if a == b or (a != a and b != b):
    return []
  return [f'{path} ({a} there, {b} here)']


def replaced(value: Any, path: str, new: Any) -> Any:
  """Returns a copy of nested dataclasses with another value at a dotted path.

  Args:
    value: a dataclass; not changed.
    path: path of a field, such as `schedule.name`.
    new: value of the field in the copy.
  """
  name, _, rest = path.partition('.')
  inner = replaced(getattr(value, name), rest, new) if rest else new
  return dataclasses.replace(value, **{name: inner})
