"""The recommended children as packages, exported and checked."""

from collections.abc import Callable, Container, Sequence
from typing import Any

from etils import epath

from bignas_jax.deploy import export
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import directory
from bignas_jax.selection import extraction
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.system import console, files, xla
from bignas_jax.values import errors

_FORMAT = 'onnx'
_IMAGES = 1000  # test images to compare on
_UNITS = {'latency_ms': 'ms'}


def make(
  workdir: epath.Path,
  entries: Sequence[dict[str, Any]],
  in_time: Callable[[], bool],
) -> list[str]:
  """Extracts and exports the child of each entry, in float32 and in int8.

  A child that several entries recommend is made once. Artifacts that are there
  are kept. If there is no time for an int8 artifact, or it cannot be made, the
  child is without it, and a line says why.

  Args:
    workdir: work directory of the run.
    entries: the entries of `search/recommended.json`.
    in_time: returns whether there is time for another int8 artifact.

  Returns:
    Names of the packages, one for each different child.

  Raises:
    UserError: a package cannot be written.
    Failed: a float32 artifact does not compute what its child computes.
  """
  space = config_lib.space(directory.load_config(workdir))
  names: dict[Any, str] = {}
  used = {entry['package'] for entry in entries}
  for entry in entries:
    arch = arch_lib.from_dict(space, entry['arch'])
    if arch not in names:
      name = names[arch] = _extracted(workdir, entry, used)
      exported = '/export/' in (entry['file'] or '')
      quantised = entry['int8_file'] or _quantised(workdir / name, in_time)
      if not exported and not quantised:
        _export(workdir / name, int8=False)
  return list(names.values())


def _extracted(
  workdir: epath.Path, entry: dict[str, Any], used: Container[str | None]
) -> str:
  """Returns the name of a child's package, and extracts it if there is none."""
  name = entry['package']
  if name is None:
    name = f'children/{called(entry)}'
    while name in used:  # another entry recommends the child in there
      name += '_new'
    extraction.extract(workdir, entry['child'], workdir / name)
  return name


def _quantised(place: epath.Path, in_time: Callable[[], bool]) -> bool:
  """Exports a child in float32 and int8; returns False if int8 is impossible.

  Then nothing is exported, and a line says why.
  """
  if not in_time():
    console.say(
      f'warning: {place} has no int8 file: no time is left for it; the same '
      'command makes it when it is given again'
    )
    return False
  try:
    _export(place, int8=True)
  except errors.Failed:
    raise  # the float32 artifact is wrong
  except Exception as error:  # ONNX Runtime's tools may raise anything
    reason = ' '.join(f'{type(error).__name__}: {error}'.split())
    console.say(f'warning: {place} has no int8 file: {reason}')
    return False
  return True


def _export(place: epath.Path, *, int8: bool) -> None:
  """Exports a child; raises Failed if its float32 artifact is wrong."""
  out = place / 'export'
  with xla.exact_products():
    made = export.export(place, [_FORMAT], out, int8=int8, images=_IMAGES)
  if not made['verified']:
    text = f'{place}: its artifact does not compute what the child computes'
    raise errors.Failed(text, files.finite(made))


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
