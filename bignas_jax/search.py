"""python -m bignas_jax.search: finds children of a trained supernet."""

from collections.abc import Sequence
from typing import Any

from bignas_jax import cli, searching
from bignas_jax.selection import Limits


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Searches; returns the best child."""
  parser = cli.parser(
    'search',
    'Finds the most accurate child within the limits, on images held out '
    'from training. Goes on where an interrupted search stopped.',
  )
  parser.add_argument('--workdir', required=True, type=cli.path)
  parser.add_argument('--max_macs', type=float, help='multiply-adds')
  parser.add_argument('--max_params', type=float, help='parameters')
  parser.add_argument('--min_macs', type=float, help='multiply-adds')
  parser.add_argument(
    '--strategy',
    default=searching.STRATEGIES[0],
    help=f'one of {", ".join(searching.STRATEGIES)}',
  )
  options = parser.parse_args(arguments)
  limits = Limits(
    max_macs=options.max_macs,
    max_params=options.max_params,
    min_macs=options.min_macs,
  )
  return searching.search(options.workdir, options.strategy, limits)


if __name__ == '__main__':
  cli.run(main)
