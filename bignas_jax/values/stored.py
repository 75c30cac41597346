"""Values of files that another version of this package may have written.

A field that a file lacks has its default, which means what versions did that
did not know the field. A field that this version does not know is refused: what
it says would be left out without a word.
"""

from typing import Any, TypeVar

import bignas_jax
from bignas_jax.values import errors, schema

T = TypeVar('T')


def convert(kind: type[T], value: Any, field: str, version: str) -> T:
  """Returns a typed value.

  Args:
    kind: a dataclass.
    value: of a JSON file.
    field: what it is called in a message.
    version: of this package, which wrote the file.

  Raises:
    UserError: a field is unknown; names both versions. Or as
      `schema.convert` does.
  """
  for path, name, _ in schema.unknown(kind, value, field):
    raise errors.UserError(
      f'{path} {name}' if path.endswith(':') else f'{path}.{name}',
      f'a field that version {version} wrote',
      f'what this version, {bignas_jax.__version__}, knows',
    )
  return schema.convert(kind, value, field)


def check_format(found: dict[str, Any], known: int, place: str) -> None:
  """Checks that this version can read a file, before anything else in it.

  Args:
    found: the JSON object in the file; without `format`, it is of format 1.
    known: the highest format that is known.
    place: the file.

  Raises:
    UserError: it cannot; names both versions.
  """
  number: Any = schema.Natural
  number = schema.convert(number, found.get('format', 1), f'{place}: format')
  if number > known:
    raise errors.UserError(
      f'{place}: format',
      f'{number}, of version {version_of(found)}',
      f'format {known} at most, which this version, {bignas_jax.__version__}, '
      'reads',
    )


def version_of(found: dict[str, Any]) -> str:
  """The version that wrote a file, in words; `config.json` has it outside."""
  source = found.get('source')
  where = source if isinstance(source, dict) else found
  return str(where.get('version', 'unknown'))
