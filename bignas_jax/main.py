"""python -m bignas_jax.main: trains a supernet, or one network."""

from collections.abc import Sequence
from typing import Any

from bignas_jax import cli
from bignas_jax.runs import overrides
from bignas_jax.training import loop


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Trains; returns the last evaluation."""
  parser = cli.parser(
    'main',
    'Trains the supernet, or the network, that a config describes. Resumes by '
    'itself if the work directory holds checkpoints of the same config. Exits '
    'with 75 if it was asked to stop and has saved.',
  )
  parser.add_argument(
    '--workdir', required=True, type=cli.path, help='the run goes here'
  )
  config, options = overrides.parse(parser, arguments)
  return loop.train(config, options.workdir)


if __name__ == '__main__':
  cli.run(main)
