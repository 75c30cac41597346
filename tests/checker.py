"""What jaxtyping's hook checks shapes in signatures with (pyproject.toml)."""

import typing
from collections.abc import Callable
from typing import Any

import beartype
import jaxtyping

# A whole number is a float, too, as everywhere else.
_check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))


def checked(function: Callable) -> Callable:
  """Has a function's arguments and results checked, if it has a shape.

  Not so dataclasses' `__init__`: beartype draws random entries of tuples, which
  Hypothesis does not allow where it builds rules and edges.
  """
  hints = function.__annotations__.values()
  return _check(function) if any(map(_has_shape, hints)) else function


def _has_shape(hint: Any) -> bool:
  if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
    return True
  return any(map(_has_shape, typing.get_args(hint)))
