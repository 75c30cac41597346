"""Values parsed from the text of command options and config overrides."""

import ast
import warnings
from typing import Any

from bignas_jax.values import annotations, errors, schema

# Errors of `literal_eval` for text that is no literal, or too large a one.
_NO_LITERAL = ValueError, SyntaxError, TypeError, MemoryError, RecursionError
_WORDS = {'true': True, 'false': False}


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
      found = _WORDS.get(text) if text in _WORDS else ast.literal_eval(text)
  except _NO_LITERAL:
    raise errors.UserError(
      field, text, annotations.describe(kind, text)
    ) from None
  return schema.convert(kind, found, field)
