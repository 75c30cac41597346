"""python -m bignas_jax.export: a child package as artifacts for serving."""

from collections.abc import Sequence
from typing import Any

import jax

from bignas_jax import cli
from bignas_jax.deploy import export
from bignas_jax.values import errors, schema


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Exports; returns the receipt.

  Raises:
    Failed: an artifact does not compute what the child does.
  """
  parser = cli.parser(
    'export',
    'Writes a child package as artifacts for serving, after comparing each '
    'with the child, in its own runtime, on real images. Exits with 1, and '
    'writes nothing, if one differs.',
  )
  parser.add_argument(
    '--child', required=True, type=cli.path, help='a child package'
  )
  parser.add_argument(
    '--format',
    required=True,
    help=f'one or more of {",".join(export.FORMATS)}',
  )
  parser.add_argument(
    '--out', type=cli.path, help='a directory; CHILD/export if not given'
  )
  parser.add_argument(
    '--preprocess',
    action='store_true',
    help='take uint8 images, and normalise and resize them in the artifact',
  )
  parser.add_argument(
    '--int8',
    action='store_true',
    help='also write int8 artifacts, calibrated on training images '
    f'({", ".join(export.QUANTISED)})',
  )
  parser.add_argument(
    '--images',
    type=cli.number(schema.Natural),
    default=1000,
    help='test images to compare on (default: 1000)',
  )
  cli.add_data(parser)
  options = parser.parse_args(arguments)
  names = export.parse(options.format)
  # Artifacts are for other machines, and compared in float32 throughout.
  jax.config.update('jax_platforms', 'cpu')
  result = export.export(
    options.child,
    names,
    options.out or options.child / 'export',
    preprocess=options.preprocess,
    int8=options.int8,
    images=options.images,
    data=options.data,
  )
  if not result['verified']:
    wrong = [n for n, e in result['formats'].items() if not e['verified']]
    raise errors.Failed(
      f'{", ".join(wrong)}: not what the child computes; nothing was written',
      result,
    )
  return result


if __name__ == '__main__':
  cli.run(main)
