"""What a config's fields may be: one check, before anything is written."""

import dataclasses
import math
import typing

import numpy as np
import pytest
import tiny

from bignas_jax.runs import config as config_lib
from bignas_jax.selection import task
from bignas_jax.strategies.problem import Search
from bignas_jax.training import loop
from bignas_jax.values import annotations, errors, structs

WRONG = [
  ('steps', 11.25, 'a whole number >= 1'),
  ('steps', True, 'a whole number >= 1'),
  ('steps', 2**31, '<= 2147483647'),
  ('batch_size', '16', 'a whole number >= 1'),
  ('eval_every', 3.75, 'a whole number >= 1'),
  ('checkpoint_every', None, 'a whole number >= 1'),
  ('keep_checkpoints', 0, 'a whole number >= 1'),
  ('seed', -1, 'a whole number >= 0'),
  ('seed', 2**32, '<= 4294967295'),
  ('dtype', 'float16', 'one of bfloat16, float32'),
  ('policy', 'alon', 'did you mean alone'),
  ('recompute', 1, 'True or False'),
  ('ema_decay', math.nan, '0 <= number < 1'),
  ('random_children', 10**6, '<= 1000'),
  ('arch', 3, 'text'),
  ('space', 3, 'text or a Space'),
  ('rule', None, 'a Rule'),
  ('schedule.peak', -1, 'a number >= 0'),
  ('schedule.peak', math.inf, 'a finite number'),
  ('schedule.decay_steps', 0, 'a number > 0'),
  ('schedule.decay_rate', 5, '0 < number <= 1'),
  ('schedule.warmup_steps', 2.5, 'a whole number >= 0'),
  ('schedule.floor', 1.5, '0 <= number <= 1'),
  ('schedule.name', 'stairs', 'one of cosine, exponential, linear'),
  ('optimizer.momentum', 2, '0 <= number < 1'),
  ('optimizer.epsilon', -1e-3, 'a number >= 0'),
  ('optimizer.epsilon', 0, 'a number > 0, for rmsprop'),
  ('rule.weight_decay', -1, 'a number >= 0'),
  ('rule.aggregate', 'max', 'one of mean, sum'),
  ('rule.edges', ('label',), 'an Edge'),
  ('recovery.window', 0.5, 'a whole number >= 1'),
  ('calibration.images', '64', 'a whole number >= 1'),
  ('search.evaluations', 6.5, 'a whole number >= 1'),
  ('search.mutation', 0, '0 < number <= 1'),
  ('search.kernel_presets', 5, '1 <= whole number <= 4'),
  ('search.objectives', {'macs'}, 'a tuple, each entry text'),
  ('profile.at', (0,), 'a whole number >= 1'),
  ('profile.at', 3, 'a tuple'),
  ('layout.sizes', (-2,), 'a whole number >= -1'),
  ('layout.sizes', (0,), 'one of which may be -1'),
  ('layout.rules', (('a', 'b', 'c'),), '2 values, each text'),
  ('data.name', 'mnist', 'did you mean mnist5k'),
  ('data.held_out', 0.1, 'a whole number >= 0'),
  ('data.mean', ('0.13',), 'a finite number'),
  ('data.workers', 1.0, '0 <= whole number <= 1000'),
]


def _changed(field, value):
  """A tiny config with one field changed."""
  config = tiny.config()
  *outer, last = field.split('.')
  setattr(
    structs.get(config, '.'.join(outer)) if outer else config, last, value
  )
  return config


@pytest.mark.parametrize(('field', 'value', 'allowed'), WRONG)
def test_a_wrong_field_is_named_and_nothing_written(
  tmp_path, field, value, allowed
):
  with pytest.raises(errors.UserError) as refused:
    loop.train(_changed(field, value), tmp_path / 'run')
  line = str(refused.value)
  assert line.startswith(field) and allowed in line and '\n' not in line
  assert not (tmp_path / 'run').exists()


def test_a_number_too_long_to_be_written_is_refused_like_any_other():
  with pytest.raises(errors.UserError, match='an int that cannot be shown'):
    config_lib.check(tiny.config(steps=10**5000))


def test_what_goes_on_has_the_types_of_its_fields():
  config = tiny.config(
    steps=np.int64(6),
    seed=np.uint32(2**32 - 1),
    ema_decay=np.float32(0.5),
    data=dataclasses.replace(tiny.config().data, mean=np.array([0.125])),
    profile={'at': [2]},
  )
  config.schedule.decay_steps = 3
  found = config_lib.check(config)
  assert dataclasses.asdict(found) == dataclasses.asdict(
    tiny.config(
      steps=6,
      seed=2**32 - 1,
      ema_decay=0.5,
      data=dataclasses.replace(tiny.config().data, mean=(0.125,)),
      profile=config_lib.Profile(at=(2,)),
    )
  )
  assert {type(v) for v in (found.steps, found.seed)} == {int}
  assert type(found.schedule.decay_steps) is float
  assert type(found.data.mean) is tuple and type(found.data.mean[0]) is float


def test_every_number_of_a_config_has_a_range():
  """So that a new field is not forgotten."""

  def without_range(kind, path):
    if dataclasses.is_dataclass(kind):
      for name, inner in annotations.fields(kind).items():
        yield from without_range(inner, f'{path}.{name}')
    elif typing.get_origin(kind) not in (typing.Annotated, typing.Literal):
      for inner in typing.get_args(kind):
        yield from without_range(inner, path)
    if kind in (int, float):
      yield path

  found = set(without_range(config_lib.Config, 'config'))
  # A space checks itself; a mean may be any number.
  assert {p for p in found if '.space' not in p} == {'config.data.mean'}


@pytest.mark.parametrize('name', ['Config', 'Search', 'Calibration'])
def test_a_field_that_is_not_there_cannot_be_set(name):
  config = {
    'Config': tiny.config(),
    'Search': tiny.config().search,
    'Calibration': tiny.config().calibration,
  }[name]
  with pytest.raises(AttributeError, match='stesp'):
    config.stesp = 3


def test_a_file_in_place_of_the_work_directory(tmp_path):
  path = tmp_path / 'run'
  path.write_text('mine')
  for workdir in (path, path / 'inside'):
    with pytest.raises(errors.UserError, match='workdir'):
      loop.train(tiny.config(), workdir)
  assert path.read_text() == 'mine'


def test_settings_of_a_search_are_checked_as_the_configs_are():
  changes = {'evaluations': 3, 'objectives': ['macs', 'params']}
  found = task.changed(Search(), changes)
  assert found.objectives == ('macs', 'params')
  for name, value in (('evaluations', 2.5), ('seed', None), ('evals', 3)):
    with pytest.raises(errors.UserError, match=f'^search.{name}'):
      task.changed(Search(), {name: value})
