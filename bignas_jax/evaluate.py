"""python -m bignas_jax.evaluate: evaluates a child's accuracy."""

from collections.abc import Sequence
from typing import Any

from absl import flags

from bignas_jax import cli
from bignas_jax.selection import accuracy
from bignas_jax.spaces import presets


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Returns top-1 and top-5 of a child."""
  given = cli.parse(
    'evaluate',
    'Top-1 and top-5 of a child package, or of a child inside its supernet.',
    _define,
    arguments,
  )
  if given.child is not None:
    return accuracy.evaluate_child(given.child, given.split, given.data)
  return accuracy.evaluate_in_supernet(
    given.workdir, given.arch, given.split, given.data
  )


def _define(values: flags.FlagValues) -> None:
  cli.child(values)
  cli.path(values, 'workdir', 'a trained run, in place of a child')
  cli.one_of(values, 'child', 'workdir', required=True)
  words = f'best, recommended:N, table:N, {presets.WORDS}'
  cli.text(values, 'arch', 'best', f'with --workdir: {words}')
  splits = ', '.join(accuracy.SPLITS)
  cli.text(values, 'split', 'test', f'one of {splits}')
  cli.data(values)


if __name__ == '__main__':
  cli.run(main)
