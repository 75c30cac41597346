"""python -m bignas_jax.cost: what an architecture costs, without weights."""

from collections.abc import Sequence
from typing import Any

from bignas_jax import cli
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import counting, presets, zoo
from bignas_jax.system import console


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Counts; returns multiply-adds, parameters and activations."""
  parser = cli.parser('cost', 'Multiply-adds and parameters of a child.')
  parser.add_argument(
    '--space', required=True, help=f'one of {", ".join(zoo.SPACES)}'
  )
  parser.add_argument('--arch', required=True, help=presets.WORDS)
  options = parser.parse_args(arguments)
  space = zoo.get(options.space)
  arch = presets.parse(space, options.arch)
  table = counting.rows(space, arch)
  for row in table:
    console.say(
      f'{row.name:16} {row.resolution:4} px {row.width:5} channels '
      f'{row.cost.macs:14,} MACs {row.cost.params:12,} parameters'
    )
  total = counting.total(table)
  return {
    'space': space.name,
    'arch': arch_lib.to_dict(arch),
    'macs': total.macs,
    'params': total.params,
    'activations': total.activations,
  }


if __name__ == '__main__':
  cli.run(main)
