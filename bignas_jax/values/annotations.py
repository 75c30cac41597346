"""Annotations of fields: their kinds, choices and ranges, also in words."""

import dataclasses
import functools
import types
import typing
from typing import Annotated, Any, Literal

from msgspec import Meta

from bignas_jax.values import errors

Step = str | int  # to a field, or to an entry of a tuple

# Arrays on devices hold steps in 32 bits, and seeds in as many without a sign.
INT32, UINT32 = 2**31 - 1, 2**32 - 1
FINITE = 'a finite number'
_NAMES = {
  int: 'a whole number',
  float: FINITE,
  bool: 'True or False',
  str: 'text',
  type(None): 'None',
}


def range_and_type(kind: Any) -> tuple[Meta | None, Any]:
  """Returns an annotation's range, or None, and its type."""
  if typing.get_origin(kind) is not Annotated:
    return None, kind
  kind, *more = typing.get_args(kind)
  return next((one for one in more if isinstance(one, Meta)), None), kind


def alternatives(kind: Any) -> tuple[Any, ...]:
  """Returns the members of a union, or the type itself if it is no union."""
  _, kind = range_and_type(kind)
  union = typing.get_origin(kind) in (typing.Union, types.UnionType)
  return typing.get_args(kind) if union else (kind,)


def has_fields(kind: Any) -> bool:
  """Returns whether an annotation is a dataclass."""
  return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def is_tuple(kind: Any) -> bool:
  """Returns whether an annotation is a tuple."""
  return typing.get_origin(range_and_type(kind)[1]) is tuple


def is_text(kind: Any) -> bool:
  """Returns whether text may be a value of an annotation.

  A choice of names (a Literal with a str in it) counts as text.
  """
  for one in alternatives(kind):
    choices = typing.get_args(one) if typing.get_origin(one) is Literal else ()
    if one is str or any(isinstance(choice, str) for choice in choices):
      return True
  return False


@functools.cache
def fields(kind: type) -> dict[str, Any]:
  """Returns the annotations of a dataclass's fields, by name."""
  hints = typing.get_type_hints(kind, include_extras=True)
  return {one.name: hints[one.name] for one in dataclasses.fields(kind)}


def inner(kind: Any, step: Step) -> Any:
  """Returns the annotation of a field, of a tuple's entry or a dict's value.

  If the outer annotation says nothing about it, the result is Any.
  """
  for one in alternatives(kind):
    arguments = typing.get_args(range_and_type(one)[1])
    if isinstance(step, str) and has_fields(one):
      return fields(one).get(step, Any)
    if isinstance(step, str) and typing.get_origin(one) is dict:
      return arguments[1]
    if isinstance(step, int) and is_tuple(one):
      return arguments[0] if arguments[-1] is Ellipsis else arguments[step]
  return Any


def describe(kind: Any, value: Any = None) -> str:
  """Returns in words what an annotation allows.

  Args:
    kind: the annotation.
    value: a value that is not allowed; if `kind` is a choice, the text names
      the choice that was probably meant.
  """
  meta, kind = range_and_type(kind)
  if meta is not None and meta.description:
    return errors.one_of(meta.description.split(', '), value)
  arguments, origin = typing.get_args(kind), typing.get_origin(kind)
  if origin is Literal:
    return errors.one_of(arguments, value)
  if origin is dict:
    return f'a JSON object, each value {describe(arguments[1])}'
  if origin is tuple:
    return _tuple(arguments)
  if len(alternatives(kind)) > 1:
    return ' or '.join(describe(one) for one in arguments)
  if kind in (int, float) and meta is not None:
    return _range('whole number' if kind is int else 'number', meta, value)
  if has_fields(kind):
    return errors.article(kind.__name__)
  return _NAMES.get(kind, 'a value that only a config file can give')


def _tuple(arguments: tuple[Any, ...]) -> str:
  each = describe(arguments[0])
  if arguments[-1] is not Ellipsis:
    return f'{len(arguments)} values, each {each}'
  example = {int: ', like (1, 2)', float: ', like (0.1, 0.2)'}
  example[str] = ", like ('a', 'b')"
  plain = range_and_type(arguments[0])[1]
  return f'a tuple, each entry {each}{example.get(plain, "")}'


def _range(noun: str, meta: Meta, value: Any) -> str:
  """Returns a range in words, such as `a whole number >= 1`.

  A range with two ends reads like `0 <= number < 1`. A highest value that is
  only the limit of 32 bits is named only if the value exceeds it.
  """
  low = meta.ge if meta.ge is not None else meta.gt
  high = meta.le if meta.le is not None else meta.lt
  within = not isinstance(value, int) or high is None or value <= high
  if high is None or (high in (INT32, UINT32) and within):
    sign = '>=' if meta.ge is not None else '>'
    return f'a {noun} {sign} {low:.10g}'
  below = '<=' if meta.ge is not None else '<'
  above = '<=' if meta.le is not None else '<'
  return f'{low:.10g} {below} {noun} {above} {high:.10g}'
