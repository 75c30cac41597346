"""python -m bignas_jax.prepare: ImageNet into ArrayRecord files."""

import pathlib
from collections.abc import Sequence
from typing import Any

from bignas_jax import cli
from bignas_jax.data import prepare_imagenet
from bignas_jax.values import errors, schema


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Converts; returns how many images there are of each split."""
  parser = cli.parser(
    'prepare', 'Writes ImageNet as ArrayRecord files, without TensorFlow.'
  )
  path = pathlib.Path
  parser.add_argument('--train', type=path, help='ILSVRC2012_img_train.tar')
  parser.add_argument('--val', type=path, help='ILSVRC2012_img_val.tar')
  parser.add_argument(
    '--devkit', type=path, help='ILSVRC2012_devkit_t12.tar.gz'
  )
  parser.add_argument(
    '--tfrecords', type=path, help="or a directory of TFDS's TFRecord files"
  )
  parser.add_argument('--out', type=path, required=True, help='a directory')
  workers = cli.number(schema.Natural)
  parser.add_argument(
    '--workers', type=workers, default=4, help='files at once'
  )
  options = parser.parse_args(arguments)
  if options.workers < 1:
    raise errors.UserError('--workers', options.workers, 'a number >= 1')
  tars = [options.train, options.val, options.devkit]
  if options.tfrecords and not any(tars):
    images = prepare_imagenet.from_tfrecords(
      options.tfrecords, options.out, options.workers
    )
  elif all(tars) and not options.tfrecords:
    images = prepare_imagenet.from_tars(
      options.train, options.val, options.devkit, options.out
    )
  else:
    raise errors.UserError(
      '--tfrecords',
      options.tfrecords and str(options.tfrecords),
      'either this, or --train, --val and --devkit',
    )
  return {'directory': str(options.out), 'images': images}


if __name__ == '__main__':
  cli.run(main)
