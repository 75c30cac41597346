"""Functions of a user's own modules, which configs and flags name.

A name is `package.module:function`. Names also come from files that others
wrote, such as a `child.json`. So a function is called only if its annotations
are those that are asked for; a function that was not written for this is not.
"""

import inspect
import pkgutil
import re
import typing
from collections.abc import Callable
from typing import Any

from bignas_jax.values import errors

# What messages call such a name, and the regular expression of one.
FORM = 'PACKAGE.MODULE:FUNCTION'
PATTERN = r'[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*'


def is_name(text: object) -> bool:
  """Returns whether a text has the form `package.module:function`."""
  return isinstance(text, str) and bool(re.fullmatch(PATTERN, text))


def load(
  field: str, name: str, parameters: tuple[Any, ...], result: Any
) -> Callable[..., Any]:
  """Returns the function of a name after it has imported its module.

  Python looks for modules in the folder that a command is started in, and in
  those of PYTHONPATH.

  Args:
    field: the field or flag that holds the name, for messages.
    name: the name, such as `package.module:function`.
    parameters: the annotations that the function's parameters must have.
    result: the annotation that its result must have.

  Raises:
    UserError: the module cannot be imported, has no such function, or the
      function has other annotations.
  """
  module, _, _ = name.partition(':')
  try:
    function = pkgutil.resolve_name(name)
  except Exception as error:  # a module may raise anything
    reason = f'{type(error).__name__}: {error}'
    allowed = f'a function in a module that Python can import ({reason})'
    if isinstance(error, ModuleNotFoundError):
      allowed += f'; it looks for {module} in the folder that the command is'
      allowed += ' started in, and in those of PYTHONPATH'
    raise errors.UserError(field, name, allowed) from None
  if _annotations(function) != (parameters, result):
    of_parameters = ', '.join(map(_word, parameters))
    allowed = 'a function that is annotated '
    allowed += f'({of_parameters}) -> {_word(result)}'
    raise errors.UserError(field, name, allowed)
  return function


def _annotations(function: Any) -> tuple[tuple[Any, ...], Any] | None:
  """Returns the annotations of parameters and result; None: there are none."""
  if not inspect.isfunction(function):
    return None
  try:
    hints = typing.get_type_hints(function)
  except Exception:  # a text that names nothing
    return None
  names = inspect.signature(function).parameters
  parameters = tuple(hints.get(one, Any) for one in names)
  return parameters, hints.get('return', Any)


def _word(annotation: Any) -> str:
  """Returns an annotation as a person writes it, without modules."""
  text = inspect.formatannotation(annotation)
  return re.sub(r'\b(\w+\.)+(?=\w)', '', text).replace('NoneType', 'None')
