"""Types, choices and ranges of what people and files say, checked in one place.

A dataclass says what its fields may be in their annotations, such as
`Annotated[int, Meta(ge=1)]` or `Literal['sum', 'mean']`. Everything that comes
from a config file, an override, an option or a JSON file goes through
`convert` or `check`.
"""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from bignas_jax import errors

T = TypeVar('T')

_INT32 = 2**31 - 1  # arrays on devices hold steps and seeds in 32 bits
Natural = Annotated[int, Meta(ge=1, le=_INT32)]
Whole = Annotated[int, Meta(ge=0, le=_INT32)]
Share = Annotated[float, Meta(ge=0, lt=1)]
Positive = Annotated[float, Meta(gt=0)]
AtLeastZero = Annotated[float, Meta(ge=0)]
PositiveShare = Annotated[float, Meta(gt=0, le=1)]

_STEP = re.compile(r'\.(\w+)|\[(\d+)\]')  # of msgspec's paths: `$.a.b[0]`
_MISSING = re.compile(r'missing required field `(\w+)`')
_NAMES = {
  int: 'a whole number',
  float: 'a finite number',
  bool: 'True or False',
  str: 'text',
  type(None): 'None',
}


def convert(kind: type[T], value: Any, field: str = '') -> T:
  """Returns a typed value made of plain ones: dicts, lists, numbers, text.

  Args:
    kind: a dataclass, or any other annotation that msgspec knows.
    value: of a JSON file, or of `plain`.
    field: what the value is called in a message; '' for the outermost.

  Raises:
    UserError: a field is missing or unknown, of another type, out of its
      range, not one of its choices, or not finite. It names the field.
  """
  for path, name, names in _unknown_fields(kind, value, field):
    allowed = errors.one_of(names, name)
    raise errors.UserError(f'{path}.{name}'.strip('.'), 'a field', allowed)
  try:
    found = msgspec.convert(value, kind, strict=True)
  except msgspec.ValidationError as error:
    if isinstance(error.__cause__, errors.UserError):
      raise error.__cause__ from None  # of a dataclass's own check
    raise _refusal(kind, value, field, str(error)) from None
  for path, number in _numbers(plain(found), field):
    if not math.isfinite(number):
      raise errors.UserError(path, number, _NAMES[float])
  return found


def check(value: T, field: str = '') -> T:
  """Checks a dataclass, and returns it with its fields in their types.

  Args:
    value: whose fields may hold anything, such as a list in place of a tuple.
    field: what the dataclass is called in a message.

  Raises:
    UserError: as `convert` does.
  """
  return convert(type(value), plain(value), field)


def plain(value: Any) -> Any:
  """Returns dicts, lists, numbers and text in place of dataclasses and tuples.

  NumPy's numbers become Python's.
  """
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    return {
      field.name: plain(getattr(value, field.name))
      for field in dataclasses.fields(value)
    }
  if isinstance(value, dict):
    return {name: plain(inner) for name, inner in value.items()}
  if isinstance(value, list | tuple):
    return [plain(inner) for inner in value]
  item = getattr(value, 'item', None)
  if getattr(value, 'shape', None) == () and callable(item):
    return item()
  return value


def describe(kind: Any, value: Any = None) -> str:
  """Returns in words what an annotation allows.

  Args:
    kind: the annotation.
    value: a wrong one; of choices, the one that was probably meant is named.
  """
  meta, kind = _meta(kind)
  arguments = typing.get_args(kind)
  if typing.get_origin(kind) is typing.Literal:
    return errors.one_of(arguments, value)
  if typing.get_origin(kind) is tuple:
    inner = describe(arguments[0])
    if arguments[-1] is not Ellipsis:
      return f'{len(arguments)} values, each {inner}'
    return f'a tuple, each entry {inner}, like (1, 2)'
  if _is_union(kind):
    return ' or '.join(describe(one) for one in arguments)
  if kind in (int, float) and meta is not None:
    return _range('whole number' if kind is int else 'number', meta)
  if isinstance(kind, type) and dataclasses.is_dataclass(kind):
    return f'a {kind.__name__}'
  return _NAMES.get(kind, 'a value that only a config file can give')


def _range(noun: str, meta: Meta) -> str:
  """Returns such as `a whole number >= 1` or `0 <= number < 1`."""
  low = meta.ge if meta.ge is not None else meta.gt
  high = meta.le if meta.le is not None else meta.lt
  if high is None or high == _INT32:
    sign = '>=' if meta.ge is not None else '>'
    return f'a {noun} {sign} {low:g}'
  below = '<=' if meta.ge is not None else '<'
  above = '<=' if meta.le is not None else '<'
  return f'{low:g} {below} {noun} {above} {high:g}'


def _refusal(
  kind: Any, value: Any, field: str, message: str
) -> errors.UserError:
  """Returns msgspec's complaint in our words."""
  _, _, place = message.partition('`$')
  for name, index in _STEP.findall(place):
    kind = _inner(kind, name, int(index or 0))
    value = value[name] if name else value[int(index)]
    field = f'{field}.{name}'.strip('.') if name else f'{field}[{index}]'
  missing = _MISSING.search(message)
  if missing:
    name = missing[1]
    allowed = describe(_inner(kind, name, 0))
    return errors.UserError(f'{field}.{name}'.strip('.'), 'nothing', allowed)
  return errors.UserError(field, value, describe(kind, value))


def _inner(kind: Any, name: str, index: int) -> Any:
  """Returns the annotation of a field, or of a tuple's entry."""
  _, kind = _meta(kind)
  if _is_union(kind):
    fits = _has_fields if name else _is_tuple
    kind = next(one for one in typing.get_args(kind) if fits(one))
  if name:
    return typing.get_type_hints(kind, include_extras=True)[name]
  arguments = typing.get_args(kind)
  return arguments[0] if arguments[-1] is Ellipsis else arguments[index]


def _unknown_fields(
  kind: Any, value: Any, field: str
) -> Iterator[tuple[str, str, list[str]]]:
  """Yields (path, name, known names) of each field that no dataclass has."""
  _, kind = _meta(kind)
  if _is_union(kind):
    fits = _has_fields if isinstance(value, dict) else _is_tuple
    kind = next((one for one in typing.get_args(kind) if fits(one)), None)
  if _has_fields(kind) and isinstance(value, dict):
    hints = typing.get_type_hints(kind, include_extras=True)
    known = [one.name for one in dataclasses.fields(kind)]
    for name, inner in value.items():
      if name not in known:
        yield field, name, known
      else:
        path = f'{field}.{name}'.strip('.')
        yield from _unknown_fields(hints[name], inner, path)
  elif _is_tuple(kind) and isinstance(value, list | tuple):
    arguments = typing.get_args(kind)
    for i, inner in enumerate(value):
      yield from _unknown_fields(arguments[0], inner, f'{field}[{i}]')


def _numbers(value: Any, field: str) -> Iterator[tuple[str, float]]:
  """Yields the path and the value of each float in plain values."""
  if isinstance(value, dict):
    for name, inner in value.items():
      yield from _numbers(inner, f'{field}.{name}'.strip('.'))
  elif isinstance(value, list):
    for i, inner in enumerate(value):
      yield from _numbers(inner, f'{field}[{i}]')
  elif isinstance(value, float):
    yield field, value


def _meta(kind: Any) -> tuple[Meta | None, Any]:
  """Returns an annotation's range, if it has one, and its type."""
  if typing.get_origin(kind) is not Annotated:
    return None, kind
  kind, *more = typing.get_args(kind)
  return next((one for one in more if isinstance(one, Meta)), None), kind


def _is_union(kind: Any) -> bool:
  return typing.get_origin(kind) in (typing.Union, types.UnionType)


def _has_fields(kind: Any) -> bool:
  return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _is_tuple(kind: Any) -> bool:
  return typing.get_origin(_meta(kind)[1]) is tuple
