"""python -m bignas_jax.benchmark: what the machine makes of the code."""

from collections.abc import Sequence
from typing import Any

from bignas_jax import cli
from bignas_jax.data import sources
from bignas_jax.perf import (
  child_latency,
  engines,
  input_rate,
  latency_table,
  scaling,
  step_time,
)
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import overrides, warm_start
from bignas_jax.spaces import zoo
from bignas_jax.values import schema

_COUNT, _COUNTS = cli.number(schema.Natural), cli.numbers(schema.Natural)
_ABOVE_0 = cli.number(schema.Positive)


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Measures; returns medians, rates and ratios."""
  parser = cli.parser('benchmark', 'Measures; each has a --help of its own.')
  parser.add_argument(
    'what',
    choices=list(_BENCHMARKS),
    help='a sandwich step against static children; a step by devices, batch '
    'and resolution; preparing images; a child as it is served; a latency '
    'table',
  )
  what = parser.parse_args(arguments[:1]).what
  return _BENCHMARKS[what](arguments[1:])


def _step(arguments: Sequence[str]) -> dict[str, Any]:
  parser = _step_parser('step', 'Measures the elastic step.')
  parser.add_argument('--batch', type=_COUNT, default=8, help='images')
  parser.add_argument('--resolution', type=_COUNT, default=32, help='pixels')
  options = parser.parse_args(arguments)
  return step_time.step(
    zoo.get(options.space),
    batch=options.batch,
    resolution=options.resolution,
    dtype=options.dtype,
    rounds=options.rounds,
  )


def _scale(arguments: Sequence[str]) -> dict[str, Any]:
  parser = _step_parser('scale', 'Measures steps of several sizes.')
  for name, default, what in (
    ('--devices', '1', 'numbers of them, such as 1,2,4'),
    ('--batch', '8', 'images'),
    ('--resolution', '32', 'pixels'),
  ):
    parser.add_argument(name, type=_COUNTS, default=default, help=what)
  options = parser.parse_args(arguments)
  return scaling.scale(
    zoo.get(options.space),
    devices=options.devices,
    batches=options.batch,
    resolutions=options.resolution,
    dtype=options.dtype,
    rounds=options.rounds,
  )


def _step_parser(name: str, description: str) -> cli.Parser:
  parser = cli.parser(f'benchmark {name}', description)
  parser.add_argument(
    '--space', default='mnist', help=f'one of {", ".join(zoo.SPACES)}'
  )
  parser.add_argument(
    '--dtype', default='float32', choices=['float32', 'bfloat16']
  )
  parser.add_argument('--rounds', type=_COUNT, default=11, help='measurements')
  return parser


def _input(arguments: Sequence[str]) -> dict[str, Any]:
  parser = cli.parser(
    'benchmark input',
    'Measures how fast training images are prepared: those of --config, or of '
    'an image folder.',
  )
  parser.add_argument('--directory', help='an image folder, without --config')
  parser.add_argument('--augment', help=f'one of {", ".join(sources.AUGMENTS)}')
  parser.add_argument('--batch', type=_COUNT, default=128, help='images')
  parser.add_argument('--resolution', type=_COUNT, help='pixels')
  parser.add_argument('--worker', choices=sources.WORKERS)
  parser.add_argument(
    '--workers',
    type=_COUNTS,
    default='1',
    help='numbers of them, such as 1,2,4',
  )
  parser.add_argument(
    '--seconds', type=_ABOVE_0, default=10.0, help='to measure each for'
  )
  wanted = parser.add_mutually_exclusive_group()
  wanted.add_argument('--step_s', type=_ABOVE_0, help='seconds a step')
  wanted.add_argument('--images_per_s', type=_ABOVE_0, help='that are wanted')
  parser.add_argument(
    '--tf_data', action='store_true', help='compare with tf.data'
  )
  if any(a.split('=')[0] == '--config' for a in arguments):
    config, options = overrides.parse(parser, arguments)
    config = warm_start.resolve(config)
    data, channels = config.data, config_lib.space(config).channels
    resolution = config_lib.image_size(config)
  else:
    options = parser.parse_args(arguments)
    data = sources.Data(
      name='image_folder',
      directory=options.directory or '',
      held_out=0,
      augment='crop',
      mean=(0.5,) * 3,
      std=(0.25,) * 3,
    )
    channels, resolution = 3, 224
  data.augment = options.augment or data.augment
  data.worker = options.worker or data.worker
  step_s = options.step_s
  if options.images_per_s:
    step_s = options.batch / options.images_per_s
  return input_rate.measure(
    data,
    channels=channels,
    batch=options.batch,
    resolution=options.resolution or resolution,
    workers=options.workers,
    seconds=options.seconds,
    step_s=step_s,
    tf_data=options.tf_data,
  )


def _child(arguments: Sequence[str]) -> dict[str, Any]:
  parser = cli.parser(
    'benchmark child',
    'Measures how long a child package takes, as it is served: batch norms '
    'folded, all shapes static.',
  )
  parser.add_argument(
    '--child', required=True, type=cli.path, help='a child package'
  )
  parser.add_argument(
    '--batch', type=_COUNTS, default='1', help='images, such as 1,8'
  )
  parser.add_argument(
    '--runtime',
    default='jax',
    help=f'one or more of {",".join(engines.RUNTIMES)}',
  )
  parser.add_argument(
    '--rounds', type=_COUNT, default=31, help='visits to each'
  )
  parser.add_argument(
    '--keep',
    action='store_true',
    help='also write CHILD/latency.json, which the report shows',
  )
  options = parser.parse_args(arguments)
  return child_latency.child(
    options.child,
    batches=options.batch,
    names=options.runtime.split(','),
    rounds=options.rounds,
    keep=options.keep,
  )


def _table(arguments: Sequence[str]) -> dict[str, Any]:
  parser = cli.parser(
    'benchmark table',
    'Builds a latency table of a space on this machine, and reports the error '
    'of its predictions. Parts that the file holds already are kept.',
  )
  parser.add_argument(
    '--space', required=True, help=f'one of {", ".join(zoo.SPACES)}'
  )
  parser.add_argument(
    '--resolutions',
    type=_COUNTS,
    help='pixels, such as 192,224; all of the space if missing',
  )
  parser.add_argument(
    '--out', required=True, type=cli.path, help='the file, JSON'
  )
  parser.add_argument('--batch', type=_COUNT, default=1, help='images')
  parser.add_argument(
    '--runtime', default='jax', help=f'one of {", ".join(engines.RUNTIMES)}'
  )
  parser.add_argument(
    '--rounds', type=_COUNT, default=31, help='visits to each'
  )
  parser.add_argument(
    '--statistic',
    default='least',
    choices=list(latency_table.STATISTICS),
    help='of the times of each: on a machine that does nothing else, or now',
  )
  parser.add_argument(
    '--children', type=_COUNT, default=20, help='to report the error of'
  )
  parser.add_argument(
    '--fitted', type=_COUNT, default=16, help='other children, to fit sums to'
  )
  parser.add_argument(
    '--seed', type=cli.number(schema.Seed), default=0, help='of all children'
  )
  parser.add_argument(
    '--topology',
    help='a TPU that is not there, such as v5e:2x2: its compiler estimates '
    'one of its devices',
  )
  options = parser.parse_args(arguments)
  space = zoo.get(options.space)
  resolutions = options.resolutions or list(space.resolution)
  return latency_table.table(
    space,
    options.out,
    resolutions=resolutions,
    batch=options.batch,
    runtime=options.runtime,
    rounds=options.rounds,
    statistic=options.statistic,
    children=options.children,
    fitted=options.fitted,
    seed=options.seed,
    topology=options.topology,
  )


_BENCHMARKS = {
  'step': _step,
  'scale': _scale,
  'input': _input,
  'child': _child,
  'table': _table,
}


if __name__ == '__main__':
  cli.run(main)
