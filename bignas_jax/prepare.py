"""python -m bignas_jax.prepare: converts ImageNet to ArrayRecord files."""

import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags

from bignas_jax import cli
from bignas_jax.data import prepare_imagenet
from bignas_jax.values import errors, schema


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Converts ImageNet; returns the number of images of each split."""
  description = 'Writes ImageNet as ArrayRecord files, without TensorFlow.'
  given = cli.parse('prepare', description, _define, arguments)
  tars = [given.train, given.val, given.devkit]
  if given.tfrecords and not any(tars):
    images = prepare_imagenet.from_tfrecords(
      given.tfrecords, given.out, given.workers
    )
  elif all(tars) and not given.tfrecords:
    images = prepare_imagenet.from_tars(
      given.train, given.val, given.devkit, given.out
    )
  else:
    raise errors.UserError(
      '--tfrecords',
      given.tfrecords and str(given.tfrecords),
      'either this, or --train, --val and --devkit',
    )
  return {'directory': str(given.out), 'images': images}


def _define(values: flags.FlagValues) -> None:
  for name, words in (
    ('train', 'ILSVRC2012_img_train.tar'),
    ('val', 'ILSVRC2012_img_val.tar'),
    ('devkit', 'ILSVRC2012_devkit_t12.tar.gz'),
    ('tfrecords', "a directory of TFDS's TFRecord files, in place of these"),
  ):
    cli.path(values, name, words, make=pathlib.Path)
  words = 'a directory'
  cli.path(values, 'out', words, required=True, make=pathlib.Path)
  cli.number(values, schema.Natural, 'workers', 4, 'files at once')


if __name__ == '__main__':
  cli.run(main)
