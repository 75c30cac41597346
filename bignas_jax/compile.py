"""python -m bignas_jax.compile: compiles a run for a TPU topology."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags
from etils import epath

from bignas_jax import cli
from bignas_jax.estimates import plan
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import config_file, warm_start
from bignas_jax.system import files, storage
from bignas_jax.values import errors


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Compiles a run's programs; returns memory and estimated times.

  Raises:
    Failed: a program does not fit the memory of the topology's cores.
  """
  given = cli.parse(
    'compile',
    'Compiles every program of a run for a TPU topology, on any machine with '
    'the extra `tpu`. Exits with 1 if one does not fit.',
    functools.partial(_define, arguments),
    arguments,
    config_file.parse,
  )
  config = config_lib.check(warm_start.resolve(given.config))
  if given.out is not None:
    _check_out(given.out)
  jax.config.update('jax_platforms', 'cpu')
  result = plan.plan(config, given.topology)
  if given.out is not None:
    if not storage.in_bucket(given.out):
      given.out.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(given.out, result)
  if not result['fits']:
    raise errors.Failed(
      f'a batch of {config.batch_size} does not fit {given.topology}; '
      f'the largest that would: {result["largest_batch_size"]}',
      result,
    )
  return result


def _define(arguments: Sequence[str], values: flags.FlagValues) -> None:
  config_file.define(values, arguments)
  text = 'such as v3:8x8, v5e:4x4 or v5p:2x2x1'
  cli.text(values, 'topology', None, text, required=True)
  cli.path(values, 'out', 'a file for the result, JSON')


def _check_out(path: epath.Path) -> None:
  """Raises UserError unless the path can take this command's result."""
  files.check_file(path, '--out')
  if path.exists() and not {'topology', 'programs'} <= {*files.read_json(path)}:
    allowed = 'a new file, or an older result of this command'
    raise errors.UserError('--out', str(path), allowed)


if __name__ == '__main__':
  cli.run(main)
