"""python -m bignas_jax.search: finds children of a trained supernet."""

from collections.abc import Sequence
from typing import Any

from absl import flags

from bignas_jax import cli
from bignas_jax.costs import latency_tables, limits
from bignas_jax.runs import config, directory
from bignas_jax.selection import child_costs, search
from bignas_jax.strategies import table as table_lib
from bignas_jax.values import schema

_CHANGES = 'evaluations', 'seed', 'predictor', 'proposals'
_ENDS = {'max': 'at most so many', 'min': 'at least so many'}


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Searches a supernet; returns the best child."""
  given = cli.parse(
    'search',
    'Finds the most accurate child within the limits, on images held out '
    'from training. Goes on where an interrupted search stopped.',
    _define,
    arguments,
  )
  table = None
  if given.latency_table is not None:
    space = config.space(directory.load_config(given.workdir))
    table = latency_tables.load(given.latency_table, space)
  changes = {name: given[name].value for name in _CHANGES}
  if given.objectives is not None:
    changes['objectives'] = tuple(given.objectives.split(','))
  return search.search(
    given.workdir,
    given.strategy,
    limits.from_dict({bound: given[bound].value for bound in _bounds()}),
    {name: value for name, value in changes.items() if value is not None},
    table,
    given.data,
  )


def _bounds() -> list[str]:
  """Returns the names of the limits' flags, such as `max_macs`."""
  return [f'{end}_{name}' for name in child_costs.NAMES for end in _ENDS]


def _define(values: flags.FlagValues) -> None:
  cli.path(values, 'workdir', 'a trained run', required=True)
  strategies = ', '.join(table_lib.STRATEGIES)
  cli.text(values, 'strategy', 'coarse_to_fine', f'one of {strategies}')
  for bound in _bounds():
    end, _, name = bound.partition('_')
    text = f'{_ENDS[end]} {child_costs.NAMES[name]}'
    flags.DEFINE_float(bound, None, text, flag_values=values)
  instead = "in place of the config's"
  cli.number(values, schema.Natural, 'evaluations', None, instead)
  cli.number(values, schema.Seed, 'seed', None, instead)
  text = 'costs that nsga2 lowers, such as macs,params'
  cli.text(values, 'objectives', None, text)
  text = 'what predictor predicts with, trees or mlp'
  cli.text(values, 'predictor', None, text)
  text = 'children that predictor predicts, draws or evolution'
  cli.text(values, 'proposals', None, text)
  text = 'a file of benchmark table: what latencies are predicted with'
  cli.path(values, 'latency_table', text)
  cli.data(values)


if __name__ == '__main__':
  cli.run(main)
