"""python -m bignas_jax.main: trains a supernet."""

import pathlib
from collections.abc import Sequence
from typing import Any

from bignas_jax import cli, overrides, training
from bignas_jax.config import Config

_OVERRIDE = '--config.'


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Trains; returns the last evaluation."""
  config, workdir = parse(arguments)
  return training.train(config, workdir)


def parse(arguments: Sequence[str]) -> tuple[Config, pathlib.Path]:
  """The config with its overrides, and the work directory."""
  parser = cli.parser(
    'main',
    'Trains the supernet that a config describes. Resumes by itself if the '
    'work directory holds checkpoints of the same config. Exits with 75 if it '
    'was asked to stop and has saved.',
  )
  parser.add_argument(
    '--config', required=True, help='a Python file with get_config()'
  )
  parser.add_argument(
    '--workdir', required=True, type=pathlib.Path, help='the run goes here'
  )
  parser.add_argument(
    '--config.FIELD=VALUE',
    action='append',
    help='overrides a field, such as --config.optimizer.momentum=0.8',
  )
  changes = [a for a in arguments if a.startswith(_OVERRIDE)]
  options = parser.parse_args([a for a in arguments if a not in changes])
  config = overrides.load(options.config)
  for change in changes:
    path, given, text = change.removeprefix(_OVERRIDE).partition('=')
    if not given:
      parser.error(f'{change}: write {change}=VALUE')
    overrides.apply(config, path, text)
  return config, options.workdir


if __name__ == '__main__':
  cli.run(main)
