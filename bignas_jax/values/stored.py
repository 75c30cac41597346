"""Values in files that another version of this package may have written.

A field that a file lacks gets its default, which means what versions without
the field did. A field that this version does not know is an error, because
ignoring it could silently change the meaning of the file.
"""

from typing import Any, TypeVar

import bignas_jax
from bignas_jax.values import errors, schema

T = TypeVar('T')


def convert(kind: type[T], value: Any, field: str, version: str) -> T:
  """Returns a typed value made from a JSON file's value.

  Args:
    kind: a dataclass.
    value: the value in the file.
    field: name of the value in a message.
    version: the version of this package that wrote the file.

  Raises:
    UserError: a field is unknown (names both versions), or is wrong in another
      way that `schema.convert` refuses.
  """
  for path, name, _ in schema.unknown(kind, value, field):
    raise errors.UserError(
      f'{path} {name}' if path.endswith(':') else f'{path}.{name}',
      f'a field that version {version} wrote',
      f'what this version, {bignas_jax.__version__}, knows',
    )
  return schema.convert(kind, value, field)


def check_format(content: dict[str, Any], newest: int, place: str) -> None:
  """Checks, before anything else in a file, that this version can read it.

  Args:
    content: the JSON object in the file; without `format`, it has format 1.
    newest: the newest format that this version knows.
    place: the file, as a message names it.

  Raises:
    UserError: this version cannot read the file; names both versions.
  """
  number: Any = schema.Natural
  number = schema.convert(number, content.get('format', 1), f'{place}: format')
  if number > newest:
    raise errors.UserError(
      f'{place}: format',
      f'{number}, of version {version_of(content)}',
      f'format {newest} at most, which this version, {bignas_jax.__version__}, '
      'reads',
    )


def version_of(content: dict[str, Any]) -> str:
  """Returns the version that wrote a file, or `unknown`.

  It is in the file's object `source` or, as in `config.json`, at the top level.
  """
  source = content.get('source')
  section = source if isinstance(source, dict) else content
  return str(section.get('version', 'unknown'))
