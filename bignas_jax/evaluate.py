"""python -m bignas_jax.evaluate: accuracy of a child."""

from collections.abc import Sequence
from typing import Any

from bignas_jax import cli
from bignas_jax.selection import accuracy
from bignas_jax.spaces import presets


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Evaluates; returns top-1 and top-5."""
  parser = cli.parser(
    'evaluate',
    'Top-1 and top-5 of a child package, or of a child inside its supernet.',
  )
  which = parser.add_mutually_exclusive_group(required=True)
  which.add_argument('--child', type=cli.path, help='a child package')
  which.add_argument('--workdir', type=cli.path, help='a trained run')
  parser.add_argument(
    '--arch',
    default='best',
    help=f'with --workdir: best, {presets.WORDS}',
  )
  parser.add_argument(
    '--split', default='test', help=f'one of {", ".join(accuracy.SPLITS)}'
  )
  cli.add_data(parser)
  options = parser.parse_args(arguments)
  if options.child is not None:
    return accuracy.evaluate_child(options.child, options.split, options.data)
  return accuracy.evaluate_in_supernet(
    options.workdir, options.arch, options.split, options.data
  )


if __name__ == '__main__':
  cli.run(main)
