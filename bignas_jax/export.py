"""python -m bignas_jax.export: exports a child package as serving artifacts."""

from collections.abc import Sequence
from typing import Any

import jax
from absl import flags

from bignas_jax import cli
from bignas_jax.deploy import export
from bignas_jax.values import errors, schema


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Exports a child package; returns the manifest.

  Raises:
    Failed: an artifact's outputs differ from the child's.
  """
  given = cli.parse(
    'export',
    'Writes a child package as artifacts for serving, after comparing each '
    'with the child, in its own runtime, on real images. Exits with 1, and '
    'writes nothing, if one differs.',
    _define,
    arguments,
  )
  names = export.parse(given.format)
  # Artifacts are for other machines, and compared in float32 throughout.
  jax.config.update('jax_platforms', 'cpu')
  result = export.export(
    given.child,
    names,
    given.out or given.child / 'export',
    preprocess=given.preprocess,
    int8=given.int8,
    float16=given.float16,
    images=given.images,
    data=given.data,
  )
  if not result['verified']:
    wrong = [n for n, e in result['formats'].items() if not e['verified']]
    raise errors.Failed(
      f'{", ".join(wrong)}: not what the child computes; nothing was written',
      result,
    )
  return result


def _define(values: flags.FlagValues) -> None:
  cli.child(values, required=True)
  text = f'one or more of {",".join(export.FORMATS)}'
  cli.text(values, 'format', None, text, required=True)
  cli.path(values, 'out', 'a directory; CHILD/export if not given')
  text = 'take uint8 images, and normalise and resize them in the artifact'
  cli.boolean(values, 'preprocess', text)
  formats = ', '.join(export.REDUCED['int8'])
  text = f'also write int8 artifacts ({formats}), calibrated on training images'
  cli.boolean(values, 'int8', text)
  formats = ', '.join(export.REDUCED['float16'])
  text = f'also write artifacts with weights in float16 ({formats})'
  cli.boolean(values, 'float16', text)
  text = 'test images to compare on'
  cli.number(values, schema.Natural, 'images', 1000, text)
  cli.data(values)


if __name__ == '__main__':
  cli.run(main)
