"""From images and a time to chosen children: the phases, one after another.

Each phase leaves its result in the work directory. An interrupted command finds
it there and goes on with the next phase; training goes on by itself.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from etils import epath

from bignas_jax.data import sources
from bignas_jax.fitting import (
  budget,
  config_text,
  packages,
  recipe,
  rules,
  timings,
  trial,
  wishes,
)
from bignas_jax.fitting import record as record_lib
from bignas_jax.fitting import survey as survey_lib
from bignas_jax.fitting.record import Clock
from bignas_jax.fitting.rules import Choice, Length
from bignas_jax.fitting.trial import Measured
from bignas_jax.fitting.wishes import Wishes
from bignas_jax.perf import engines
from bignas_jax.reporting import recommendations, report
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import config_file
from bignas_jax.runs.config import Config
from bignas_jax.selection import recommended, search, task
from bignas_jax.selection.task import Request
from bignas_jax.system import cluster, console, files, locks, process, xla
from bignas_jax.training import loop, recovery

_STRATEGY = 'predictor'
_DRAFT = Length(steps=1000, epochs=0.0, late_s=0.0, why='')
_FEWEST_STEPS = 20
# So much of the wanted epochs must be possible, or a smaller space is taken.
_ENOUGH = 0.4


class Asked(NamedTuple):
  """What a person asked for.

  Attributes:
    images: a folder, or `tfds:NAME`.
    minutes: time for everything.
    wishes: devices and limits of the children.
  """

  images: str
  minutes: float
  wishes: Wishes


def fit(
  asked: Asked,
  workdir: epath.Path,
  now: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
  """Makes the right child for each device and limit, or goes on with it.

  Args:
    asked: images, time, devices and limits.
    workdir: work directory, new or begun by the same command.
    now: clock in seconds.

  Returns:
    The directory, the config's file, the report, the minutes of each phase, and
    the recommended children.

  Raises:
    UserError: no network can be trained on the images; or the directory is not
      one that `fit` began for them.
    Preempted: the command was asked to stop; started again, it goes on.
    Failed: the disk is full, or training has diverged too often.
  """
  cluster.refuse('fit')
  engines.check(['onnx'])
  wishes.check(asked.wishes)
  asked = asked._replace(images=_absolute(asked.images))
  record = record_lib.read(workdir, asked.images, asked.minutes)
  began = now()
  if record is None:
    survey = survey_lib.look(asked.images)
    record = record_lib.new(asked.images, asked.minutes, survey)
  record_lib.writable(workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  allowed = 'a directory that no other fit is using'
  with (
    recovery.full_disk_as_failed(workdir, 'to go on'),
    locks.hold(workdir / '.fit.lock', '--workdir', allowed),
  ):
    xla.keep_programs(workdir / 'compiled')
    return _phases(asked, workdir, Clock(workdir, record, now, began))


def _absolute(images: str) -> str:
  """Returns the images' path from the root, so that it is the same later."""
  if not images or images.startswith(survey_lib.TFDS):
    return images
  data = survey_lib.opened(images)
  return sources.placed(data, images).directory


def _phases(asked: Asked, workdir: epath.Path, clock: Clock) -> dict[str, Any]:
  """Runs the phases that are left, and returns the result."""
  _say('The images', survey_lib.sentences(clock.record.survey))
  config = _config(asked, workdir, clock)
  space = config_lib.space(config)
  tables = wishes.load(asked.wishes, space, workdir)
  if asked.wishes.measures_here:
    with clock.phase('table'):
      tables = [wishes.measure(space, workdir, asked.minutes)]
  requests = wishes.requests(asked.wishes, space, tables)
  task.checked_all(space, _STRATEGY, config.search, requests)  # before training
  with clock.phase('train'):
    trained = loop.train(config, workdir)
  with clock.phase('search'):
    answers = _searched(workdir, clock, requests)
  with clock.phase('children'):
    in_time = functools.partial(_in_time, clock)
    packages.make(workdir, answers['recommended'], in_time)
    recommended.refresh(workdir)
    timings.measure(workdir)
    recommended.refresh(workdir)
  with clock.phase('report'):
    page = report.write(workdir)['report']
  return _result(workdir, clock, page, trained)


def _config(asked: Asked, workdir: epath.Path, clock: Clock) -> Config:
  """Returns the config in the directory, after choosing it if there is none."""
  path = workdir / record_lib.CONFIG
  if not path.is_file():
    config, why = _chosen(asked, workdir, clock)
    title = f'A supernet of {asked.images}, for --minutes={asked.minutes:g}.'
    files.write_text(path, config_text.write(config, title, why))
    title = f'Wrote {path}. In a copy of it, these can be changed'
    _say(title, recipe.values(config))
  else:
    console.say(f'going on with {path}')
  return config_file.load(str(path))


def _chosen(
  asked: Asked, workdir: epath.Path, clock: Clock
) -> tuple[Config, list[str]]:
  """Returns a config that can be trained in the time, and why it was chosen."""
  survey = clock.record.survey
  choice, measured = _measured_choice(asked, clock)
  clock.note(size=rules.SIZES.index(choice.size), measured=measured)
  if asked.wishes.measures_here:
    with clock.phase('table'):
      wishes.measure(choice.space, workdir, asked.minutes)
  length = _length(asked, clock, choice, measured)
  if length.late_s:
    console.say(rules.too_short(length, asked.minutes))
  config = recipe.config(survey, choice, length)
  why = recipe.reasons(config, length)
  _say('The training', why)
  return config, [*choice.why, *why]


def _measured_choice(asked: Asked, clock: Clock) -> tuple[Choice, Measured]:
  """Returns the largest choice that is fast enough, and what it takes.

  The choice of an interrupted command is kept, since its latency table is of
  that space.
  """
  survey, size = clock.record.survey, clock.record.size
  smaller_than = rules.SIZES[size - 1] if size else None
  while True:
    choice = rules.choose(
      survey,
      asked.minutes,
      cores=process.cores(),
      devices=jax.device_count(),
      accelerated=jax.devices()[0].platform != 'cpu',
      smaller_than=smaller_than,
    )
    _say('The choice', choice.why)
    kept = clock.record.measured
    if kept is not None and rules.SIZES.index(choice.size) == size:
      return choice, kept
    with clock.phase('measure'):
      measured = trial.measure(
        recipe.config(survey, choice, _DRAFT),
        budget.for_measuring(asked.minutes),
        clock.now,
      )
    console.say(
      f'a step takes {measured.step_s:.2g} s, the evaluation of a child '
      f'{measured.child_s:.2g} s'
    )
    wanted = rules.below(rules.EPOCHS, survey.train)
    length = _length(asked, clock, choice, measured)
    last = choice.size is rules.SIZES[-1]
    # Another trial takes as long again.
    time_left = clock.left_s() > 4 * measured.compile_s
    enough = not length.late_s and length.epochs >= _ENOUGH * wanted
    if last or enough or not time_left:
      return choice, measured
    console.say('this space is too slow for the time: a smaller one is tried')
    smaller_than = choice.size


def _length(
  asked: Asked, clock: Clock, choice: Choice, measured: Measured
) -> Length:
  """Returns how long a run can train in the time that is left."""
  seconds = budget.for_training(
    clock.left_s(), asked.minutes, measured, asked.wishes.count
  )
  images = clock.record.survey.train - choice.held_out
  size = choice.batch_size
  step_s = measured.step_s
  return rules.length(images, size, seconds, step_s, _FEWEST_STEPS)


def _searched(
  workdir: epath.Path, clock: Clock, requests: Sequence[Request]
) -> dict[str, Any]:
  """Searches, and then with more evaluations as long as there is time.

  How much time searches share is known after them only. A command that has
  ended once does not search longer when it is given again.
  """
  measured, ended = clock.record.measured, 'report' in clock.record.spent_s
  assert measured is not None, 'a config is written after it'
  number = _evaluations(clock, len(requests))
  while True:
    began, changes = clock.now(), {'evaluations': number}
    answers = search.recommend(workdir, requests, _STRATEGY, changes)
    each_s = measured.child_s
    fresh = answers['evaluated'] - answers['looked_up']
    if fresh >= number:  # else the time of an evaluation is hardly in it
      each_s = (clock.now() - began) / (number * len(requests))
    spare = clock.left_s() - budget.for_children(measured, len(requests))
    more = budget.more_evaluations(number, spare, each_s, len(requests))
    if ended or more == number:
      return answers
    number = more
    clock.note(evaluations=number)
    console.say(f'there is time for {number} evaluations in each search')


def _evaluations(clock: Clock, requests: int) -> int:
  """Returns how many children a search evaluates, the same after a stop."""
  if clock.record.evaluations is None:
    measured = clock.record.measured
    assert measured is not None, 'a config is written after it'
    minutes = clock.record.minutes
    number = budget.evaluations(clock.left_s(), minutes, measured, requests)
    clock.note(evaluations=number)
  assert clock.record.evaluations is not None
  return clock.record.evaluations


def _in_time(clock: Clock) -> bool:
  """Returns whether there is time for the int8 file of another child.

  A command that has ended once, and is given again, takes the time it needs.
  """
  measured = clock.record.measured
  assert measured is not None, 'a config is written after it'
  ended = 'report' in clock.record.spent_s
  return ended or clock.left_s() >= budget.for_int8(measured)


def _result(
  workdir: epath.Path, clock: Clock, page: str, trained: dict[str, Any]
) -> dict[str, Any]:
  """Returns the result of the command."""
  spent = {k: round(v / 60, 2) for k, v in clock.record.spent_s.items()}
  answers = files.read_json(workdir / 'search' / recommended.NAME)
  entries = recommendations.read(workdir / 'search')
  console.say('The recommended children:\n' + recommendations.table(entries))
  return {
    **trained,
    'config': str(workdir / record_lib.CONFIG),
    'report': page,
    'minutes': spent | {'all': round(sum(spent.values()), 2)},
    'recommended': answers['recommended'],
  }


def _say(title: str, sentences: list[str] | tuple[str, ...]) -> None:
  """Prints sentences for a person under a title."""
  console.say('\n'.join([f'{title}:', *(f'  {line}' for line in sentences)]))
