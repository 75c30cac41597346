"""python -m bignas_jax.search: finds children of a trained supernet."""

from collections.abc import Sequence
from typing import Any

from absl import flags

from bignas_jax import cli
from bignas_jax.costs import latency_tables
from bignas_jax.runs import config, directory
from bignas_jax.selection import child_costs, search, task
from bignas_jax.strategies import table as table_lib
from bignas_jax.values import functions, schema

_CHANGES = 'evaluations', 'seed', 'predictor', 'proposals'
_WORDS = """\
Finds the most accurate child within the limits, on images held out from
training. Goes on where an interrupted search stopped.

Limits and latency tables may be given several times. Then there is a search for
each combination of one table and one value of each limit; a limit that is given
once holds in all of them. For example, --latency_table=A --latency_table=B
--max_latency_ms=10 --max_latency_ms=20 --max_macs=1e6 makes four searches, each
of at most a million MACs. DIR/search/recommended.json lists the answers;
DIR/search/children.csv lists the best children of each size.
"""


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Searches a supernet; returns the best child, or one for each search."""
  given = cli.parse('search', _WORDS, _define, arguments)
  tables = []
  if given.latency_table:
    space = config.space(directory.load_config(given.workdir))
    tables = [latency_tables.load(one, space) for one in given.latency_table]
  changes = {name: given[name].value for name in _CHANGES}
  if given.objectives is not None:
    changes['objectives'] = tuple(given.objectives.split(','))
  changes = {k: value for k, value in changes.items() if value is not None}
  memory = child_costs.Memory(given.memory_batch, given.memory_precision)
  bounds = cli.bounds(given, child_costs.NAMES)
  requests = task.requests(bounds, tables, memory)
  workdir, strategy, data = given.workdir, given.strategy, given.data
  if len(requests) > 1:
    return search.recommend(workdir, requests, strategy, changes, data)
  (one,) = requests
  return search.search(
    workdir, strategy, one.limits, changes, one.table, data, memory
  )


def _define(values: flags.FlagValues) -> None:
  cli.path(values, 'workdir', 'a trained run', required=True)
  strategies = ', '.join((*table_lib.STRATEGIES, functions.FORM))
  cli.text(values, 'strategy', 'coarse_to_fine', f'one of {strategies}')
  cli.limits(values, child_costs.NAMES, child_costs.PRECISIONS)
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
  cli.path(values, 'latency_table', text, several=True)
  cli.data(values)


if __name__ == '__main__':
  cli.run(main)
