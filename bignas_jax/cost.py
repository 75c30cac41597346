"""python -m bignas_jax.cost: counts a child's costs, without weights."""

from collections.abc import Sequence
from typing import Any

from absl import flags

from bignas_jax import cli
from bignas_jax.costs import counting
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import presets, zoo
from bignas_jax.system import console


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Returns a child's multiply-adds, parameters and activations."""
  description = 'Multiply-adds and parameters of a child.'
  given = cli.parse('cost', description, _define, arguments)
  space = zoo.get(given.space)
  arch = presets.parse(space, given.arch)
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


def _define(values: flags.FlagValues) -> None:
  spaces = ', '.join(zoo.SPACES)
  cli.text(values, 'space', None, f'one of {spaces}', required=True)
  cli.text(values, 'arch', None, presets.WORDS, required=True)


if __name__ == '__main__':
  cli.run(main)
