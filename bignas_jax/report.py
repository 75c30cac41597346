"""python -m bignas_jax.report: writes a report of a run on one page."""

from collections.abc import Sequence
from typing import Any

from absl import flags

from bignas_jax import cli
from bignas_jax.reporting import report
from bignas_jax.selection import recommended
from bignas_jax.system import cluster


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Writes `report.html`; returns its path and the key results."""
  given = cli.parse(
    'report',
    'Writes DIR/report.html from the files of a run: curves, accuracy against '
    'cost, calibration, children, config. One file, readable offline.',
    _define,
    arguments,
  )
  cluster.refuse('report')
  recommended.refresh(given.workdir)
  return report.write(given.workdir, given.latency_table)


def _define(values: flags.FlagValues) -> None:
  cli.path(values, 'workdir', 'of the run', required=True)
  text = 'a file of benchmark table: also show accuracy against latency'
  cli.path(values, 'latency_table', text)


if __name__ == '__main__':
  cli.run(main)
