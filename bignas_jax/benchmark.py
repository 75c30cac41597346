"""python -m bignas_jax.benchmark: measures steps, input, latency, service."""

import functools
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from bignas_jax import cli
from bignas_jax.claims import command
from bignas_jax.data import sources
from bignas_jax.perf import (
  child_latency,
  device,
  engines,
  input_rate,
  latency_table,
  path_time,
  scaling,
  soak,
  step_time,
)
from bignas_jax.runs import config_file, directory
from bignas_jax.selection import ranking
from bignas_jax.spaces import zoo
from bignas_jax.values import errors, schema


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Runs a benchmark; returns medians, rates and ratios."""
  what = arguments[0] if arguments else ''
  if what not in BENCHMARKS:
    if what in ('--help', '-help', '-h'):
      names = ', '.join(BENCHMARKS)
      print('usage: python -m bignas_jax.benchmark WHAT [--FLAG=VALUE ...]')
      print(f'\nMeasures; WHAT is one of {names}, each with its own --help.')
      sys.exit(0)
    raise errors.UserError('benchmark', what, errors.one_of(BENCHMARKS, what))
  return BENCHMARKS[what](arguments[1:])


def _step(arguments: Sequence[str]) -> dict[str, Any]:
  define = functools.partial(_define_one, space='mnist', resolution=32)
  words = 'Measures a sandwich step against static children.'
  given = cli.parse('benchmark step', words, define, arguments)
  return step_time.step(zoo.get(given.space), **_named(given, *_SIZES))


def _path(arguments: Sequence[str]) -> dict[str, Any]:
  def define(values: flags.FlagValues) -> None:
    _define_one(values, space='bn_nas', resolution=128)
    words = 'random paths that are timed, and compiled alone'
    cli.number(values, schema.Natural, 'paths', 3, words)
    kinds = ['rmsprop', 'sgd']
    words = 'optimizer of the steps; recipes of such spaces have sgd'
    flags.DEFINE_enum('optimizer', kinds[0], kinds, words, flag_values=values)

  words = 'Measures steps of one random child each against the child alone.'
  given = cli.parse('benchmark path', words, define, arguments)
  sizes = _named(given, *_SIZES, 'paths', 'optimizer')
  return path_time.path(zoo.get(given.space), **sizes)


def _scale(arguments: Sequence[str]) -> dict[str, Any]:
  def define(values: flags.FlagValues) -> None:
    _define_step(values)
    for name, default, words in (
      ('devices', '1', 'numbers of devices, such as 1,2,4'),
      ('batch', '8', 'images, such as 8,16'),
      ('resolution', '32', 'pixels, such as 24,32'),
    ):
      cli.number(values, schema.Natural, name, default, words, several=True)

  words = 'Measures steps by devices, batch and resolution.'
  given = cli.parse('benchmark scale', words, define, arguments)
  return scaling.scale(
    zoo.get(given.space),
    devices=given.devices,
    batches=given.batch,
    resolutions=given.resolution,
    **_named(given, 'dtype', 'rounds'),
  )


_SIZES = 'batch', 'resolution', 'dtype', 'rounds'


def _define_one(values: flags.FlagValues, space: str, resolution: int) -> None:
  """Defines the flags of a step of one size."""
  _define_step(values, space)
  cli.number(values, schema.Natural, 'batch', 8, 'images')
  cli.number(values, schema.Natural, 'resolution', resolution, 'pixels')


def _named(given: Any, *names: str) -> dict[str, Any]:
  """Returns flags by their names."""
  return {name: getattr(given, name) for name in names}


def _define_step(values: flags.FlagValues, space: str = 'mnist') -> None:
  cli.text(values, 'space', space, f'one of {", ".join(zoo.SPACES)}')
  words, types = 'of activations', ['float32', 'bfloat16']
  flags.DEFINE_enum('dtype', types[0], types, words, flag_values=values)
  cli.number(values, schema.Natural, 'rounds', 11, 'measurements')


def _input(arguments: Sequence[str]) -> dict[str, Any]:
  def define(values: flags.FlagValues) -> None:
    config_file.define(values, arguments)
    cli.text(values, 'directory', None, 'an image folder, in place of a config')
    cli.text(values, 'augment', None, f'one of {", ".join(sources.AUGMENTS)}')
    cli.number(values, schema.Natural, 'batch', 128, 'images')
    cli.number(values, schema.Natural, 'resolution', None, 'pixels')
    kinds = list(sources.WORKERS)
    words = 'what prepares images'
    flags.DEFINE_enum('worker', None, kinds, words, flag_values=values)
    words = 'numbers of workers, such as 1,2,4'
    cli.number(values, schema.Natural, 'workers', '1', words, several=True)
    cli.number(values, schema.Positive, 'seconds', 10.0, 'of each measurement')
    cli.number(values, schema.Positive, 'step_s', None, 'seconds of a step')
    words = 'how many images a second are wanted'
    cli.number(values, schema.Positive, 'images_per_s', None, words)
    cli.one_of(values, 'step_s', 'images_per_s')
    cli.boolean(values, 'tf_data', 'compare with tf.data')

  given = cli.parse(
    'benchmark input',
    'Measures how fast training images are prepared: those of --config, or of '
    'an image folder.',
    *(define, arguments),
    functools.partial(config_file.parse, required=False),
  )
  data, channels, resolution = input_rate.images(given.config, given.directory)
  data.augment = given.augment or data.augment
  data.worker = given.worker or data.worker
  rate = given.images_per_s
  return input_rate.measure(
    data,
    channels=channels,
    resolution=given.resolution or resolution,
    step_s=given.batch / rate if rate else given.step_s,
    **_named(given, 'batch', 'workers', 'seconds', 'tf_data'),
  )


def _child(arguments: Sequence[str]) -> dict[str, Any]:
  def define(values: flags.FlagValues) -> None:
    cli.child(values, required=True)
    words = 'images, such as 1,8'
    cli.number(values, schema.Natural, 'batch', '1', words, several=True)
    words = f'one or more of {",".join(engines.RUNTIMES)}'
    cli.text(values, 'runtime', 'jax', words)
    cli.number(values, schema.Natural, 'rounds', 31, 'visits to each')
    words = 'also write CHILD/latency.json, which the report shows'
    cli.boolean(values, 'keep', words)

  given = cli.parse(
    'benchmark child',
    'Measures how long a child package takes, as it is served: batch norms '
    'folded, all shapes static.',
    *(define, arguments),
  )
  return child_latency.child(
    given.child,
    batches=given.batch,
    names=given.runtime.split(','),
    **_named(given, 'rounds', 'keep'),
  )


def _table(arguments: Sequence[str]) -> dict[str, Any]:
  given = cli.parse(
    'benchmark table',
    'Builds a latency table of a space on this machine, and reports the error '
    'of its predictions. Parts that the file holds already are kept.',
    *(_define_table, arguments),
  )
  space = directory.named_space(given.space)
  return latency_table.table(
    space,
    given.out,
    resolutions=given.resolutions or list(space.resolution),
    **_named(given, 'batch', 'runtime', 'rounds', 'statistic', 'children'),
    **_named(given, 'fitted', 'seed', 'topology'),
  )


def _ranking(arguments: Sequence[str]) -> dict[str, Any]:
  def define(values: flags.FlagValues) -> None:
    cli.path(values, 'workdir', 'a trained supernet', required=True)
    words = 'random children, at least 3'
    cli.number(values, ranking.Count, 'children', 20, words)
    words = "steps that each child is trained alone; the supernet's if missing"
    cli.number(values, schema.Natural, 'steps', None, words)
    words = "the peak of the learning rate then; the supernet's if missing"
    cli.number(values, schema.Positive, 'rate', None, words)
    cli.number(values, schema.Seed, 'seed', 0, 'of the children')
    cli.data(values)

  given = cli.parse(
    'benchmark ranking',
    'Measures how well indicators rank random children of a supernet. Each '
    'child is trained alone, once; an interrupted command goes on where it '
    'stopped. Writes DIR/ranking.json, which the report shows.',
    *(define, arguments),
  )
  names = 'children', 'steps', 'rate', 'seed', 'data'
  return ranking.rank(given.workdir, **_named(given, *names))


def _define_table(values: flags.FlagValues) -> None:
  words = f"a run's directory, or one of {', '.join(zoo.SPACES)}"
  cli.text(values, 'space', None, words, required=True)
  words = 'pixels, such as 192,224; all of the space if missing'
  cli.number(values, schema.Natural, 'resolutions', None, words, several=True)
  cli.path(values, 'out', 'the file, JSON', required=True)
  cli.number(values, schema.Natural, 'batch', 1, 'images')
  cli.text(values, 'runtime', 'jax', f'one of {", ".join(engines.RUNTIMES)}')
  cli.number(values, schema.Natural, 'rounds', 31, 'visits to each')
  names = list(latency_table.STATISTICS)
  words = 'of the times of each: on a machine that does nothing else, or now'
  flags.DEFINE_enum('statistic', 'least', names, words, flag_values=values)
  cli.number(values, schema.Natural, 'children', 20, 'to report the error of')
  cli.number(values, schema.Natural, 'fitted', 16, 'others, to fit sums to')
  cli.number(values, schema.Seed, 'seed', 0, 'of all children')
  words = (
    'a TPU that is not there, such as v5e:2x2: its compiler estimates one of '
    'its devices'
  )
  cli.text(values, 'topology', None, words)


def _device(arguments: Sequence[str]) -> dict[str, Any]:
  def define(values: flags.FlagValues) -> None:
    words = f'all if missing; one or more of {", ".join(device.SECTIONS)}'
    cli.text(values, 'sections', '', words)
    words = 'the longest time for all sections'
    cli.number(values, schema.Positive, 'minutes', 8.0, words)
    words = 'JSON file that the results are also written to'
    cli.path(values, 'out', words, required=True, make=pathlib.Path)
    cli.boolean(values, 'here', 'measure in this process, without a limit')

  given = cli.parse(
    'benchmark device',
    'Measures what this machine can do: convolutions, training steps, '
    'evaluation; with PyTorch installed, the same steps there.',
    *(define, arguments),
  )
  chosen = given.sections.split(',') if given.sections else device.SECTIONS
  names, out = device.check(chosen), given.out
  if given.here:
    return device.measure_here(names, out)
  return device.measure(names, given.minutes, out)


def _serve(arguments: Sequence[str]) -> dict[str, Any]:
  def define(values: flags.FlagValues) -> None:
    cli.path(values, 'child', 'a child package', required=True)
    cli.number(values, schema.Natural, 'clients', 64, 'at the same time')
    words = 'measured, after a fifth of it to warm up'
    cli.number(values, schema.Positive, 'minutes', 10.0, words)
    words = 'of the service; less than --clients: then some are refused'
    cli.number(values, schema.Natural, 'max_queue', 48, words)
    cli.number(values, schema.Seed, 'seed', 0, 'of the requests')

  given = cli.parse(
    'benchmark serve',
    'Serves a child under load of good and bad requests. Status 1 if an answer '
    f'is not the right one, or if memory grows by {soak.MOST_GROWTH:.0%}.',
    *(define, arguments),
  )
  names = 'clients', 'minutes', 'max_queue', 'seed'
  return soak.soak(given.child, **_named(given, *names))


BENCHMARKS = {
  'device': _device,
  'step': _step,
  'path': _path,
  'scale': _scale,
  'input': _input,
  'child': _child,
  'table': _table,
  'ranking': _ranking,
  'claims': functools.partial(command.run, cli.parse),
  'serve': _serve,
}


if __name__ == '__main__':
  cli.run(main)
