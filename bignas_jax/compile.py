"""python -m bignas_jax.compile: a run compiled for a pod that is not there."""

from collections.abc import Sequence
from typing import Any

import jax
from etils import epath

from bignas_jax import cli
from bignas_jax.perf import plan
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import overrides, warm_start
from bignas_jax.system import files, storage
from bignas_jax.values import errors


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Compiles; returns memory and estimated times.

  Raises:
    Failed: a program does not fit the memory of the topology's cores.
  """
  parser = cli.parser(
    'compile',
    'Compiles every program of a run for a TPU topology, on any machine with '
    'libtpu (see the README). Exits with 1 if one does not fit.',
  )
  parser.add_argument(
    '--topology', required=True, help='such as v3:8x8, v5e:4x4 or v5p:2x2x1'
  )
  parser.add_argument(
    '--out', type=cli.path, help='a file for the result, JSON'
  )
  config, options = overrides.parse(parser, arguments)
  config = warm_start.resolve(config)
  config = config_lib.check(config)
  if options.out is not None:
    _check_out(options.out)
  jax.config.update('jax_platforms', 'cpu')
  result = plan.plan(config, options.topology)
  if options.out is not None:
    if not storage.in_bucket(options.out):
      options.out.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(options.out, result)
  if not result['fits']:
    raise errors.Failed(
      f'a batch of {config.batch_size} does not fit {options.topology}; '
      f'the largest that would: {result["largest_batch_size"]}',
      result,
    )
  return result


def _check_out(path: epath.Path) -> None:
  """Raises UserError: nothing can be written there, or it is not ours."""
  files.check_file(path, '--out')
  if path.exists() and not {'topology', 'programs'} <= {*files.read_json(path)}:
    allowed = 'a new file, or an older result of this command'
    raise errors.UserError('--out', str(path), allowed)


if __name__ == '__main__':
  cli.run(main)
