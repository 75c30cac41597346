"""Values parsed from the text of flags and of config overrides."""

import ast
import re
import warnings
from collections.abc import Callable
from typing import Any

from absl import flags

from bignas_jax.values import annotations, errors, schema

# Errors of `literal_eval` for text that is no literal, or too large a one.
_NO_LITERAL = ValueError, SyntaxError, TypeError, MemoryError, RecursionError
_WORDS = {'true': True, 'false': False}
# What absl says of a required flag that is not given.
_MISSING = re.compile(r'flag --(\w+)=None: .* value other than None\.')
# What it says if not one of several flags is given.
_ONE_OF = re.compile(r'flags (.*): (Exactly|At most) one of \((.*)\) must .*')


class Parser(flags.ArgumentParser):
  """What absl reads flags of an annotated type with.

  Args:
    kind: the annotation, such as `schema.Natural`.
    several: whether the flag takes a list, such as `1,2,4`.
  """

  def __init__(self, kind: Any, several: bool = False):
    self._kind, self._several = kind, several

  def parse(self, argument: Any) -> Any:
    """Returns the value of a text; a flag's default is a value already.

    Raises:
      ValueError: the text is no such value; says what is allowed.
    """
    if not isinstance(argument, str):
      return argument
    try:
      if not self._several:
        return value(self._kind, argument, '')
      return [value(self._kind, token, '') for token in argument.split(',')]
    except errors.UserError as error:
      text = str(error).removeprefix(': ')
      also = ', or several: 1,2,4' if self._several else ''
      raise ValueError(text + also) from None

  def flag_type(self) -> str:
    """Returns what `--help` says of the type."""
    return annotations.describe(self._kind)


class PathParser(flags.ArgumentParser):
  """A parser of paths for absl.

  Args:
    name: name of the flag.
    make: takes text; a UserError of it gets the name of the flag.
  """

  def __init__(self, name: str, make: Callable[[str], Any]):
    self._name, self._make = name, make

  def parse(self, argument: str) -> Any:
    """Returns what is made of a text; raises UserError."""
    try:
      return self._make(argument)
    except errors.UserError as error:  # a ValueError, which absl wraps
      _, _, rest = str(error).partition(': ')
      raise errors.UserError.quoted(f'--{self._name}: {rest}') from None

  def flag_type(self) -> str:
    return 'a path'


def of_flag(command: str, error: flags.Error) -> errors.UserError:
  """Returns a user's error for what absl says of a flag."""
  if isinstance(error.__context__, errors.UserError):  # of `PathParser`
    return error.__context__
  text = ' '.join(str(error).split())
  missing = _MISSING.fullmatch(text)
  if missing is not None:
    name = f'--{missing[1]}'
    text = f'{name}: got nothing; allowed: {name}=VALUE, see {command} --help'
  several = _ONE_OF.fullmatch(text)
  if several is not None:
    names = ', '.join(f'--{name}' for name in several[3].split(', '))
    given = len(re.findall(r'\w+=(?!None\b)', several[1]))
    text = f'{names}: got {given} of them; allowed: {several[2].lower()} one'
  return errors.UserError.quoted(text)


def value(kind: Any, text: str, field: str) -> Any:
  """Returns a value of an annotated type, parsed from text.

  Args:
    kind: the annotation. If it allows text, the text is the value; if it does
      not, the text is a Python literal, or `true` or `false`.
    text: the text, such as `3` or `(1, 2)`.
    field: name of the value in a message.

  Raises:
    UserError: the text is no such value; names the field and what is allowed.
  """
  if annotations.is_text(kind):
    return schema.convert(kind, text, field)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # of odd escapes in strings
      literal = _WORDS.get(text) if text in _WORDS else ast.literal_eval(text)
  except _NO_LITERAL:
    raise errors.UserError(
      field, text, annotations.describe(kind, text)
    ) from None
  return schema.convert(kind, literal, field)
