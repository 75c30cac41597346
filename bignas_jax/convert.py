"""python -m bignas_jax.convert: makes weights of another code base ours."""

import functools
from collections.abc import Sequence
from typing import Any

from absl import flags

from bignas_jax import cli
from bignas_jax.conversion import (
  converted_child,
  converted_run,
  published_files,
)
from bignas_jax.runs import config_file


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Converts a file of weights; returns where they are from and what is new."""
  given = cli.parse(
    'convert',
    'Makes a work directory, as that of a run that has ended, from a supernet '
    'that PyTorch code saved, or a child package from a single network. '
    'Nothing in the file is executed.',
    functools.partial(_define, arguments),
    arguments,
    config_file.parse,
  )
  file = given.config, given.checkpoint, given.layout
  if given.out is None:
    return converted_run.convert(*file, given.workdir, given.license)
  child = converted_child.convert(*file, given.out, given.license)
  return {'out': str(given.out)} | child.info


def _define(arguments: Sequence[str], values: flags.FlagValues) -> None:
  config_file.define(values, arguments)
  cli.path(values, 'checkpoint', 'what torch.save wrote', required=True)
  cli.text(
    values,
    'layout',
    'attentive_nas',
    f'one of {", ".join(published_files.LAYOUTS)}',
  )
  cli.path(values, 'workdir', "a supernet's run goes here")
  cli.path(values, 'out', "a single network's package goes here")
  cli.one_of(values, 'workdir', 'out', required=True)
  cli.text(values, 'license', '', "the weights' licence, to be kept with them")


if __name__ == '__main__':
  cli.run(main)
