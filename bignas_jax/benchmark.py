"""python -m bignas_jax.benchmark: what the machine makes of the code."""

from collections.abc import Sequence
from typing import Any

from bignas_jax import benchmarking, cli, spaces


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Measures; returns medians and ratios."""
  parser = cli.parser('benchmark', 'Measures the elastic step.')
  parser.add_argument(
    'what', choices=['step'], help='a sandwich step against static children'
  )
  parser.add_argument(
    '--space', default='mnist', help=f'one of {", ".join(spaces.SPACES)}'
  )
  parser.add_argument('--batch', type=int, default=8, help='images')
  parser.add_argument('--resolution', type=int, default=32, help='pixels')
  parser.add_argument(
    '--dtype', default='float32', choices=['float32', 'bfloat16']
  )
  parser.add_argument('--rounds', type=int, default=11, help='measurements')
  options = parser.parse_args(arguments)
  return benchmarking.step(
    spaces.get(options.space),
    batch=options.batch,
    resolution=options.resolution,
    dtype=options.dtype,
    rounds=options.rounds,
  )


if __name__ == '__main__':
  cli.run(main)
