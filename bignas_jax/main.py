"""python -m bignas_jax.main: trains a supernet, or one network."""

import functools
from collections.abc import Sequence
from typing import Any

from absl import flags

from bignas_jax import cli
from bignas_jax.runs import config_file
from bignas_jax.training import loop


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Trains a supernet or one network; returns the last evaluation."""
  given = cli.parse(
    'main',
    'Trains the supernet, or the network, that a config describes. Resumes by '
    'itself if the work directory holds checkpoints of the same config. Exits '
    'with 75 if it was asked to stop and has saved.',
    functools.partial(_define, arguments),
    arguments,
    config_file.parse,
  )
  return loop.train(given.config, given.workdir)


def _define(arguments: Sequence[str], values: flags.FlagValues) -> None:
  config_file.define(values, arguments)
  cli.path(values, 'workdir', 'the run goes here', required=True)


if __name__ == '__main__':
  cli.run(main)
