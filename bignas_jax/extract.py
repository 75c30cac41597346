"""python -m bignas_jax.extract: writes a child of a supernet as a package."""

from collections.abc import Sequence
from typing import Any

from bignas_jax import cli
from bignas_jax.selection import extraction
from bignas_jax.spaces import presets


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Extracts; returns what `child.json` says."""
  parser = cli.parser(
    'extract',
    'Writes a child package, after checking that the child on its own '
    'computes what the supernet computes.',
  )
  parser.add_argument('--workdir', required=True, type=cli.path)
  parser.add_argument('--arch', default='best', help=f'best, {presets.WORDS}')
  parser.add_argument('--out', required=True, type=cli.path)
  parser.add_argument(
    '--fold',
    action='store_true',
    help='fold batch norms into the kernels before them',
  )
  cli.add_data(parser)
  options = parser.parse_args(arguments)
  child = extraction.extract(
    options.workdir,
    options.arch,
    options.out,
    fold=options.fold,
    data=options.data,
  )
  return {'out': str(options.out)} | child.info


if __name__ == '__main__':
  cli.run(main)
