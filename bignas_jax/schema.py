"""Types, choices and ranges of what people and files say, checked in one place.

A dataclass says what its fields may be in their annotations, such as
`Annotated[int, Meta(ge=1)]` or `Literal['sum', 'mean']`. Everything that comes
from a config file, an override, an option or a JSON file goes through
`convert` or `check`.
"""

import dataclasses
import functools
import math
import re
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from bignas_jax import errors

T = TypeVar('T')
Step = str | int  # to a field, or to an entry of a tuple

# Arrays on devices hold steps in 32 bits, and seeds in as many without a sign.
INT32, _UINT32 = 2**31 - 1, 2**32 - 1
Natural = Annotated[int, Meta(ge=1, le=INT32)]
Whole = Annotated[int, Meta(ge=0, le=INT32)]
Seed = Annotated[int, Meta(ge=0, le=_UINT32)]
Share = Annotated[float, Meta(ge=0, lt=1)]
Positive = Annotated[float, Meta(gt=0)]
AtLeastZero = Annotated[float, Meta(ge=0)]
PositiveShare = Annotated[float, Meta(gt=0, le=1)]

_STEP = re.compile(r'\.(\w+)|\[(\d+)\]')  # of msgspec's paths: `$.a.b[0]`
_PLAIN = (str, int, float, type(None))  # what is in dicts and lists
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
    field: what the value is called in a message; '' for the outermost. Of a
      file: its path and a colon.

  Raises:
    UserError: a field is missing or unknown, of another type, out of its
      range, not one of its choices, or not finite. It names the field.
  """
  try:
    return _convert(kind, value, field)
  except RecursionError:
    raise errors.UserError(field, 'lists in lists in ...', 'few') from None


def _convert(kind: type[T], value: Any, field: str) -> T:
  for path, name, names in unknown_fields(kind, value, field):
    allowed = errors.one_of(names, name)
    raise errors.UserError(_joined(path, name), 'a field', allowed)
  try:
    found = msgspec.convert(value, kind, strict=True)
  except msgspec.ValidationError as error:
    path, inner, wrong = _followed(kind, value, field, _steps(str(error)))
    if isinstance(error.__cause__, errors.UserError):
      raise _within(path, error.__cause__) from None
    missing = _MISSING.search(str(error))
    if missing is None:
      raise errors.UserError(path, wrong, describe(inner, wrong)) from None
    path, allowed = (
      _joined(path, missing[1]),
      describe(_inner(inner, missing[1])),
    )
    raise errors.UserError(path, 'nothing', allowed) from None
  for steps, leaf in _leaves(value):
    infinite = isinstance(leaf, float) and not math.isfinite(leaf)
    if infinite or not isinstance(leaf, _PLAIN):  # msgspec takes sets, too
      path, inner, _ = _followed(kind, value, field, steps)
      allowed = _NAMES[float] if infinite else describe(inner)
      raise errors.UserError(path, leaf, allowed)
  return found


def part(kind: type[T], value: dict[str, Any], field: str) -> T:
  """Returns those of a JSON object's fields that a dataclass has, typed.

  Args:
    kind: a dataclass; what else the object has is left alone.
    value: the JSON object.
    field: see `convert`.

  Raises:
    UserError: as `convert` does.
  """
  known = {k: inner for k, inner in value.items() if k in fields(kind)}
  return convert(kind, known, field)


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

  NumPy's numbers and arrays become Python's.
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
  listed = getattr(value, 'tolist', None)
  return listed() if callable(listed) else value


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
    some = ' of at least one' if meta is not None and meta.min_length else ''
    return f'a tuple{some}, each entry {inner}, like (1, 2)'
  if _is_union(kind):
    return ' or '.join(describe(one) for one in arguments)
  if kind in (int, float) and meta is not None:
    return _range('whole number' if kind is int else 'number', meta, value)
  if _has_fields(kind):
    return errors.article(kind.__name__)
  return _NAMES.get(kind, 'a value that only a config file can give')


def _range(noun: str, meta: Meta, value: Any) -> str:
  """Returns such as `a whole number >= 1` or `0 <= number < 1`.

  What 32 bits hold is said of a number that is larger.
  """
  low = meta.ge if meta.ge is not None else meta.gt
  high = meta.le if meta.le is not None else meta.lt
  within = not isinstance(value, int) or high is None or value <= high
  if high is None or (high in (INT32, _UINT32) and within):
    sign = '>=' if meta.ge is not None else '>'
    return f'a {noun} {sign} {low:.10g}'
  below = '<=' if meta.ge is not None else '<'
  above = '<=' if meta.le is not None else '<'
  return f'{low:.10g} {below} {noun} {above} {high:.10g}'


def _steps(message: str) -> list[Step]:
  """Returns where msgspec's complaint is about: `$.a.b[0]` at its end."""
  _, _, place = message.partition('`$')
  found = _STEP.findall(place)
  return [name or int(index) for name, index in found]


def _followed(
  kind: Any, value: Any, field: str, steps: Sequence[Step]
) -> tuple[str, Any, Any]:
  """Returns the path, the annotation and the value inside of another."""
  for step in steps:
    kind, value = _inner(kind, step), value[step]
    field = (
      _joined(field, step) if isinstance(step, str) else f'{field}[{step}]'
    )
  return field, kind, value


def _joined(field: str, name: str) -> str:
  """Returns the path of a field inside another, or in a file."""
  if not field:
    return name
  return f'{field} {name}' if field.endswith(':') else f'{field}.{name}'


def _within(path: str, error: errors.UserError) -> errors.UserError:
  """Returns what a dataclass says of itself, with the place where it is."""
  if not path or error.field.startswith(path):
    return error
  return errors.UserError.quoted(f'{path.rstrip(":")}: {error}')


def _inner(kind: Any, step: Step) -> Any:
  """Returns the annotation of a field, or of a tuple's entry."""
  _, kind = _meta(kind)
  if _is_union(kind):
    fits = _has_fields if isinstance(step, str) else _is_tuple
    kind = next(one for one in typing.get_args(kind) if fits(one))
  if isinstance(step, str):
    return fields(kind)[step] if _has_fields(kind) else Any
  arguments = typing.get_args(kind) or (Any, ...)
  return arguments[0] if arguments[-1] is Ellipsis else arguments[step]


@functools.cache
def fields(kind: type) -> dict[str, Any]:
  """Returns the annotations of a dataclass's fields, by name."""
  hints = typing.get_type_hints(kind, include_extras=True)
  return {one.name: hints[one.name] for one in dataclasses.fields(kind)}


def unknown_fields(
  kind: Any, value: Any, field: str = ''
) -> Iterator[tuple[str, str, list[str]]]:
  """Yields (path, name, known names) of each field that no dataclass has."""
  _, kind = _meta(kind)
  if _is_union(kind):
    fits = _has_fields if isinstance(value, dict) else _is_tuple
    kind = next((one for one in typing.get_args(kind) if fits(one)), None)
  if _has_fields(kind) and isinstance(value, dict):
    known = fields(kind)
    for name, inner in value.items():
      if name not in known:
        yield field, name, list(known)
      else:
        path = _joined(field, name)
        yield from unknown_fields(known[name], inner, path)
  elif _is_tuple(kind) and isinstance(value, list | tuple):
    arguments = typing.get_args(kind)
    for i, inner in enumerate(value):
      yield from unknown_fields(arguments[0], inner, f'{field}[{i}]')


def _leaves(
  value: Any, place: tuple[Step, ...] = ()
) -> Iterator[tuple[tuple[Step, ...], Any]]:
  """Yields place and value of what is in dicts and lists."""
  if isinstance(value, dict):
    for name, inner in value.items():
      yield from _leaves(inner, (*place, name))
  elif isinstance(value, list | tuple):
    for i, inner in enumerate(value):
      yield from _leaves(inner, (*place, i))
  else:
    yield place, value


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
