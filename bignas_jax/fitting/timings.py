"""The latency of the recommended children, where it can be measured here."""

from typing import Any

from etils import epath

from bignas_jax.perf import child_latency, engines
from bignas_jax.selection import recommended
from bignas_jax.system import files

_ROUNDS = 31


def measure(workdir: epath.Path) -> None:
  """Times recommended children as the latency tables of this machine were.

  Children for other devices, or without a device, are not timed; nor are those
  that have been. The result lies beside a child, as that of `benchmark child
  --keep`, and is entered by `recommended.refresh`.

  Args:
    workdir: work directory of a run, whose recommended children were extracted.

  Raises:
    UserError: a package is damaged, or cannot be written to.
  """
  answers = files.read_json(workdir / 'search' / recommended.NAME)
  by_package: dict[str, list[dict[str, Any]]] = {}
  for entry in answers['recommended']:
    if entry['package'] is not None and _of_this_machine(entry):
      by_package.setdefault(entry['package'], []).append(entry)
  for name, entries in by_package.items():
    if any(entry['measured_ms'] is None for entry in entries):
      child_latency.child(
        workdir / name,
        batches=sorted({entry['batch'] for entry in entries}),
        names=sorted({entry['runtime'] for entry in entries}),
        rounds=_ROUNDS,
        keep=True,
      )


def _of_this_machine(entry: dict[str, Any]) -> bool:
  """Returns whether an entry's latency table was measured on this machine.

  A table that a compiler estimated has no statistic.
  """
  device, runtime = entry['device'], entry['runtime']
  runs_here = runtime in engines.RUNTIMES and entry['statistic'] is not None
  return runs_here and device == child_latency.device(runtime)
