"""The recommended children as packages, exported and checked."""

from collections.abc import Container, Sequence
from typing import Any

from etils import epath

from bignas_jax.deploy import export
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import directory
from bignas_jax.selection import extraction
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.system import files, xla
from bignas_jax.values import errors

_FORMAT = 'onnx'
_IMAGES = 1000  # test images to compare on
_UNITS = {'latency_ms': 'ms'}


def make(workdir: epath.Path, entries: Sequence[dict[str, Any]]) -> list[str]:
  """Extracts and exports the child of each entry that has no artifact yet.

  A child that several entries recommend is made once.

  Args:
    workdir: work directory of the run.
    entries: the entries of `search/recommended.json`.

  Returns:
    Names of the packages, one for each different child.

  Raises:
    UserError: a package cannot be written.
    Failed: an artifact does not compute what its child computes.
  """
  space = config_lib.space(directory.load_config(workdir))
  names: dict[Any, str] = {}
  used = {entry['package'] for entry in entries}
  for entry in entries:
    arch = arch_lib.from_dict(space, entry['arch'])
    if arch not in names:
      names[arch] = _made(entry) or _make(workdir, entry, used)
  return list(names.values())


def _made(entry: dict[str, Any]) -> str | None:
  """Returns the package of an entry whose child is exported already."""
  file = entry['file'] or ''
  return entry['package'] if '/export/' in file else None


def _make(
  workdir: epath.Path, entry: dict[str, Any], used: Container[str | None]
) -> str:
  """Extracts and exports a child; returns the name of its package."""
  name = entry['package']
  if name is None:
    name = f'children/{called(entry)}'
    while name in used:  # another entry recommends the child in there
      name += '_new'
  place = workdir / name
  if entry['package'] is None:
    extraction.extract(workdir, entry['child'], place)
  with xla.exact_products():
    made = export.export(place, [_FORMAT], place / 'export', images=_IMAGES)
  if not made['verified']:
    text = f'{place}: its artifact does not compute what the child computes'
    raise errors.Failed(text, files.finite(made))
  return name


def called(entry: dict[str, Any]) -> str:
  """Returns a name that says what limits a child keeps, such as `max_2ms`.

  It begins with the number of the entry, so that names differ.
  """
  words = [
    f'{end}_{_short(value)}{_UNITS.get(name, "_" + name)}'
    for end, name, value in (
      (*field.split('_', 1), value) for field, value in entry['limits'].items()
    )
  ]
  number = entry['child'].rpartition(':')[2]
  return '_'.join([number, *words])


def _short(value: float) -> str:
  """Returns a number as `3e6` rather than `3e+06`."""
  digits, exponent, power = f'{value:g}'.partition('e')
  return digits + exponent + (str(int(power)) if power else '')
