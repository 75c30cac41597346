"""python -m bignas_jax.report: a run on one page."""

from collections.abc import Sequence
from typing import Any

from bignas_jax import cli
from bignas_jax.reporting import report
from bignas_jax.system import cluster


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Writes `report.html`; returns its path and the key results."""
  parser = cli.parser(
    'report',
    'Writes DIR/report.html from the files of a run: curves, accuracy against '
    'cost, calibration, children, config. One file, readable offline.',
  )
  parser.add_argument('--workdir', required=True, type=cli.path)
  parser.add_argument(
    '--latency_table',
    type=cli.path,
    metavar='FILE',
    help='of benchmark table: also show accuracy against latency',
  )
  options = parser.parse_args(arguments)
  cluster.refuse('report')
  return report.write(options.workdir, options.latency_table)


if __name__ == '__main__':
  cli.run(main)
