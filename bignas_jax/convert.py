"""python -m bignas_jax.convert: makes a run of another code base's supernet."""

import functools
from collections.abc import Sequence
from typing import Any

from absl import flags

from bignas_jax import cli
from bignas_jax.conversion import converted_run
from bignas_jax.runs import config_file


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Converts a file of weights; returns where they are from and what is new."""
  given = cli.parse(
    'convert',
    'Makes a work directory, as that of a run that has ended, from a supernet '
    'that PyTorch code saved. Nothing in the file is executed.',
    functools.partial(_define, arguments),
    arguments,
    config_file.parse,
  )
  return converted_run.convert(
    given.config, given.checkpoint, given.layout, given.workdir, given.license
  )


def _define(arguments: Sequence[str], values: flags.FlagValues) -> None:
  config_file.define(values, arguments)
  cli.path(values, 'checkpoint', 'what torch.save wrote', required=True)
  cli.text(
    values,
    'layout',
    'attentive_nas',
    f'one of {", ".join(converted_run.LAYOUTS)}',
  )
  cli.path(values, 'workdir', 'the run goes here', required=True)
  cli.text(values, 'license', '', "the weights' licence, to be kept with them")


if __name__ == '__main__':
  cli.run(main)
