"""python -m bignas_jax.search: finds children of a trained supernet."""

from collections.abc import Sequence
from typing import Any

from bignas_jax import cli
from bignas_jax.runs import config, directory
from bignas_jax.selection import child_costs, search
from bignas_jax.spaces import latency_tables, limits
from bignas_jax.strategies import table as table_lib
from bignas_jax.values import schema

_CHANGES = 'evaluations', 'seed', 'objectives'
_ENDS = {'max': 'at most so many', 'min': 'at least so many'}


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Searches; returns the best child."""
  parser = cli.parser(
    'search',
    'Finds the most accurate child within the limits, on images held out '
    'from training. Goes on where an interrupted search stopped.',
  )
  parser.add_argument('--workdir', required=True, type=cli.path)
  parser.add_argument(
    '--strategy',
    default='coarse_to_fine',
    help=f'one of {", ".join(table_lib.STRATEGIES)}',
  )
  bounds = [f'{end}_{name}' for name in child_costs.NAMES for end in _ENDS]
  for bound in bounds:
    end, _, name = bound.partition('_')
    what = f'{_ENDS[end]} {child_costs.NAMES[name]}'
    parser.add_argument(f'--{bound}', type=float, metavar='X', help=what)
  instead = "in place of the config's"
  for name, kind in (('evaluations', schema.Natural), ('seed', schema.Seed)):
    number = cli.number(kind)
    parser.add_argument(f'--{name}', type=number, metavar='N', help=instead)
  parser.add_argument(
    '--objectives',
    type=lambda text: tuple(text.split(',')),
    help='costs that nsga2 lowers, such as macs,params',
  )
  parser.add_argument(
    '--latency_table',
    type=cli.path,
    metavar='FILE',
    help='of benchmark table: what latencies are predicted with',
  )
  cli.add_data(parser)
  options = parser.parse_args(arguments)
  table = None
  if options.latency_table is not None:
    space = config.space(directory.load_config(options.workdir))
    table = latency_tables.load(options.latency_table, space)
  given = vars(options)
  return search.search(
    options.workdir,
    options.strategy,
    limits.from_dict({bound: given[bound] for bound in bounds}),
    {name: given[name] for name in _CHANGES if given[name] is not None},
    table,
    options.data,
  )


if __name__ == '__main__':
  cli.run(main)
