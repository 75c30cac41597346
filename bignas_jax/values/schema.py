"""Checks of the types, choices and ranges of all values from outside.

A dataclass says in its annotations what its fields may be, such as
`Annotated[int, Meta(ge=1)]` or `Literal['sum', 'mean']`. Every value from a
config file, an override, an option or a JSON file goes through `convert` or
`check`.
"""

import dataclasses
import math
import re
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from bignas_jax.values import annotations, errors
from bignas_jax.values.annotations import INT32, UINT32, Step

T = TypeVar('T')

Natural = Annotated[int, Meta(ge=1, le=INT32)]
AtLeastTwo = Annotated[int, Meta(ge=2, le=INT32)]
Whole = Annotated[int, Meta(ge=0, le=INT32)]
Few = Annotated[int, Meta(ge=0, le=1000)]  # threads, or what takes time
Seed = Annotated[int, Meta(ge=0, le=UINT32)]
Share = Annotated[float, Meta(ge=0, lt=1)]
Positive = Annotated[float, Meta(gt=0)]
AtLeastZero = Annotated[float, Meta(ge=0)]
PositiveShare = Annotated[float, Meta(gt=0, le=1)]

# A step in msgspec's paths: `$.a.b[0]`, or `$.a[...]` for some dict value.
_STEP = re.compile(r'\.(\w+)|\[(\d+|\.\.\.)\]')
_MISSING = re.compile(r'missing required field `(\w+)`')
_PLAIN = (str, int, float, type(None))  # what is in dicts and lists


def convert(
  kind: type[T], value: Any, field: str = '', *, others: bool = False
) -> T:
  """Returns a typed value made from dicts, lists, numbers and text.

  Args:
    kind: a dataclass, or any other annotation that msgspec knows.
    value: a value of a JSON file, or one that `plain` returned.
    field: name of the value in a message: '' for the outermost value, or a
      file's path and a colon.
    others: whether to leave out, at any depth, fields that no dataclass has; if
      False, they are errors.

  Raises:
    UserError: a field is missing or unknown, has a wrong type, is out of its
      range, is none of its choices, or is not finite; names the field.
  """
  try:
    return _convert(kind, value, field, others)
  except RecursionError:
    raise errors.UserError(field, 'lists in lists in ...', 'few') from None


def _convert(kind: type[T], value: Any, field: str, others: bool) -> T:
  for path, name, names in () if others else unknown(kind, value, field):
    allowed = errors.one_of(names, name)
    raise errors.UserError(_joined(path, name), 'a field', allowed)
  try:
    typed = msgspec.convert(value, kind, strict=True)
  except msgspec.ValidationError as error:
    raise _refusal(kind, value, field, error) from None
  content = plain(typed) if others else value
  for steps, leaf in _leaves(content):
    infinite = isinstance(leaf, float) and not math.isfinite(leaf)
    if infinite or not isinstance(leaf, _PLAIN):  # msgspec takes sets, too
      path, inner, _ = _followed(kind, content, field, steps)
      allowed = annotations.FINITE if infinite else annotations.describe(inner)
      raise errors.UserError(path, leaf, allowed)
  return typed


def check(value: T, field: str = '') -> T:
  """Checks a dataclass and returns it with its fields in their types.

  Args:
    value: a dataclass whose fields may hold anything, such as a list in place
      of a tuple.
    field: name of the dataclass in a message.

  Raises:
    UserError: a field is wrong in a way that `convert` refuses.
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


def unknown(
  kind: Any, value: Any, field: str = ''
) -> Iterator[tuple[str, str, list[str]]]:
  """Yields (path, name, known names) of each field that no dataclass has."""
  for one in annotations.alternatives(kind):
    if annotations.has_fields(one) and isinstance(value, dict):
      fields = annotations.fields(one)
      for name, inner in value.items():
        if name in fields:
          yield from unknown(fields[name], inner, _joined(field, name))
        else:
          yield field, name, list(fields)
    elif typing.get_origin(one) is dict and isinstance(value, dict):
      for name, inner in value.items():
        kind = annotations.inner(one, name)
        yield from unknown(kind, inner, _joined(field, name))
    elif annotations.is_tuple(one) and isinstance(value, list | tuple):
      kind = annotations.inner(one, 0)
      for i, inner in enumerate(value):
        yield from unknown(kind, inner, f'{field}[{i}]')


def _refusal(
  kind: Any, value: Any, field: str, error: msgspec.ValidationError
) -> errors.UserError:
  """Returns a UserError for msgspec's error, in this package's words."""
  _, _, place = str(error).partition('`$')
  matches = _STEP.findall(place)
  steps = [name or (None if i == '...' else int(i)) for name, i in matches]
  path, inner, wrong = _followed(kind, value, field, steps)
  if isinstance(error.__cause__, errors.UserError):  # a dataclass's own check
    return _within(path, error.__cause__)
  missing = _MISSING.search(str(error))
  if missing is not None:
    path, inner = (
      _joined(path, missing[1]),
      annotations.inner(inner, missing[1]),
    )
    wrong = 'nothing'
  return errors.UserError(path, wrong, annotations.describe(inner, wrong))


def _followed(
  kind: Any, value: Any, field: str, steps: Sequence[Step | None]
) -> tuple[str, Any, Any]:
  """Returns the path, the annotation and the value that steps lead to.

  A step of None leads to the first value of a dict that does not fit.
  """
  for step in steps:
    if step is None:
      inner = annotations.inner(kind, '')
      step = next(k for k, v in value.items() if not _fits(inner, v))
    if isinstance(value, (set, frozenset)):
      break  # its entries have no places
    kind, value = annotations.inner(kind, step), value[step]
    if isinstance(step, str):
      field = _joined(field, step)
    else:
      field = f'{field}[{step}]'
  return field, kind, value


def _fits(kind: Any, value: Any) -> bool:
  try:
    msgspec.convert(value, kind, strict=True)
  except msgspec.ValidationError:
    return False
  return True


def _joined(field: str, name: str) -> str:
  """Returns the path of a field inside another one, or in a file."""
  if not field:
    return name
  return f'{field} {name}' if field.endswith(':') else f'{field}.{name}'


def _within(path: str, error: errors.UserError) -> errors.UserError:
  """Returns a dataclass's own error with the dataclass's place added."""
  if not path:
    return error
  name = error.field.partition('.')[0]  # such as `space` of `space.width`
  if re.search(rf'(^|[. ]){re.escape(name)}$', path):
    return errors.UserError.quoted(path.removesuffix(name) + str(error))
  return errors.UserError.quoted(f'{path.rstrip(":")}: {error}')


def _leaves(
  value: Any, place: tuple[Step, ...] = ()
) -> Iterator[tuple[tuple[Step, ...], Any]]:
  """Yields place and value of everything in nested dicts and lists."""
  if isinstance(value, dict):
    for name, inner in value.items():
      yield from _leaves(inner, (*place, name))
  elif isinstance(value, list | tuple):
    for i, inner in enumerate(value):
      yield from _leaves(inner, (*place, i))
  else:
    yield place, value
