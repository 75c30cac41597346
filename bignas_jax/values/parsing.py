"""Values from text: of a command's options and of a config's overrides."""

import ast
import warnings
from typing import Any

from bignas_jax.values import annotations, errors, schema

# What text is that is no literal, or too much of one.
_NO_LITERAL = ValueError, SyntaxError, TypeError, MemoryError, RecursionError
_WORDS = {'true': True, 'false': False}


def value(kind: Any, text: str, field: str) -> Any:
  """Returns a value of an annotated type from its text.

  Args:
    kind: the annotation. Where it allows text, the text is the value; where it
      does not, it is a literal of Python, or `true` or `false`.
    text: such as `3` or `(1, 2)`.
    field: what the value is called in a message.

  Raises:
    UserError: it is no such value; names the field and what is allowed.
  """
  if annotations.is_text(kind):
    return schema.convert(kind, text, field)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # of odd escapes in strings
      found = _WORDS.get(text) if text in _WORDS else ast.literal_eval(text)
  except _NO_LITERAL:
    raise errors.UserError(
      field, text, annotations.describe(kind, text)
    ) from None
  return schema.convert(kind, found, field)
