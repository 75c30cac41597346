"""python -m bignas_jax.cost: counts the costs of children, without weights."""

from collections.abc import Sequence
from typing import Any

from absl import flags

from bignas_jax import cli
from bignas_jax.costs import cost_buckets, counting
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import presets, zoo
from bignas_jax.spaces.space import Space
from bignas_jax.system import console
from bignas_jax.values import schema


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Returns the costs of a child, or how those of uniform children spread."""
  description = (
    'Multiply-adds and parameters of a child; or the buckets of multiply-adds '
    'that the children of a space fall into.'
  )
  given = cli.parse('cost', description, _define, arguments)
  space = zoo.get(given.space)
  if given.bucket_macs is not None:
    return _buckets(space, given.bucket_macs)
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


def _buckets(space: Space, width: int) -> dict[str, Any]:
  """Returns the shares of uniform children by multiply-adds.

  It is the table that the policies `best_up` and `worst_up` draw costs from.
  """
  rows = []
  for number, bucket in cost_buckets.build(space, width).buckets.items():
    first, end = number * width, (number + 1) * width
    console.say(f'{first:14,} to {end:14,} MACs {bucket.share:8.2%}')
    arch = arch_lib.to_dict(bucket.child)
    rows.append({'from': first, 'to': end, 'share': bucket.share, 'arch': arch})
  return {
    'space': space.name,
    'samples': cost_buckets.SAMPLES,
    'bucket_macs': width,
    'buckets': rows,
  }


def _define(values: flags.FlagValues) -> None:
  spaces = ', '.join(zoo.SPACES)
  cli.text(values, 'space', None, f'one of {spaces}', required=True)
  cli.text(values, 'arch', None, presets.WORDS)
  words = (
    'instead of a child: how uniform children spread, in buckets this wide'
  )
  cli.number(values, schema.Natural, 'bucket_macs', None, words)
  cli.one_of(values, 'arch', 'bucket_macs', required=True)


if __name__ == '__main__':
  cli.run(main)
