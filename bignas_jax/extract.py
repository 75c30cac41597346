"""python -m bignas_jax.extract: writes a child of a supernet as a package."""

from collections.abc import Sequence
from typing import Any

from absl import flags

from bignas_jax import cli
from bignas_jax.selection import extraction
from bignas_jax.spaces import presets


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Writes a child package; returns the contents of `child.json`."""
  given = cli.parse(
    'extract',
    'Writes a child package, after checking that the child on its own '
    'computes what the supernet computes.',
    _define,
    arguments,
  )
  child = extraction.extract(
    *(given.workdir, given.arch, given.out),
    fold=given.fold,
    data=given.data,
    license_=given.license,
  )
  return {'out': str(given.out)} | child.info


def _define(values: flags.FlagValues) -> None:
  cli.path(values, 'workdir', 'a trained run', required=True)
  listed = 'recommended:N or table:N (of search/), '
  cli.text(values, 'arch', 'best', f'best, {listed}{presets.WORDS}')
  cli.path(values, 'out', 'the package goes here', required=True)
  cli.boolean(values, 'fold', 'fold batch norms into the kernels before them')
  text = "the package's licence, in its card and child.json"
  cli.text(values, 'license', '', text)
  cli.data(values)


if __name__ == '__main__':
  cli.run(main)
