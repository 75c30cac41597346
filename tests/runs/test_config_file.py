"""Config files, and overrides of any of their fields."""

import dataclasses
import os

import hypothesis
import hypothesis.strategies as st
import pytest
import tiny
from absl import flags

from bignas_jax import cli, main
from bignas_jax.runs import config_file
from bignas_jax.values import annotations, errors, schema

_MADE = 'import tiny\n\ndef get_config():\n  return tiny.config({})\n'


@pytest.fixture(scope='module')
def file(tmp_path_factory):
  """A config file of the tiny space."""
  path = tmp_path_factory.mktemp('configs') / 'mine.py'
  path.write_text(_MADE.format(''))
  return path


def changed(file, *overrides):
  return config_file.load(str(file), *(f'--config.{o}' for o in overrides))


# Overrides.


def test_fields_of_every_kind_can_be_overridden(file):
  found = changed(
    *(file, 'space=mnist', 'classes=12', 'rule.dropout=0', 'recompute'),
    *('optimizer.momentum=0.8', 'policy=alone', 'data.mean=(0.5,)'),
    *("layout.rules=(('ema', 'data'),)", 'schedule.decay_steps=7.5'),
    *("search.objectives=('macs', 'params')", 'profile.at=(3, 5)'),
  )
  assert (found.space, found.classes, found.recompute) == ('mnist', 12, True)
  assert (found.rule.dropout, type(found.rule.dropout)) == (0.0, float)
  assert (found.optimizer.momentum, found.policy) == (0.8, 'alone')
  assert found.data.mean == (0.5,) and found.layout.rules == (('ema', 'data'),)
  assert found.search.objectives == ('macs', 'params')
  assert found.profile.at == (3, 5) and found.schedule.decay_steps == 7.5
  assert changed(file) == tiny.config()


def test_of_one_field_twice_the_last_counts(file):
  assert changed(file, 'steps=7', 'seed=1', 'steps=9').steps == 9


def test_a_value_may_follow_as_an_argument_of_its_own(file):
  values = flags.FlagValues()
  arguments = ['--config', str(file), '--config.steps', '7']
  config_file.define(values, arguments)
  assert config_file.parse(values, arguments) == []
  assert values.config.steps == 7


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    ('stepz=3', ['--config.stepz: got', 'did you mean steps?']),
    ('steps=3.0', ['--config.steps=3.0', 'a whole number >= 1']),
    ('steps.x=3', ['--config.steps.x', '--config.steps=VALUE']),
    ('rule={"dropout": 0}', ['--config.rule=', '.FIELD=VALUE']),
    ('rule.droput=0', ['--config.rule.droput', 'did you mean dropout?']),
    ('rule.edges[0].weight=2', ['--config.rule.edges=VALUE', 'as a whole']),
    ('space.stages[0].width=(8,)', ['--config.space=VALUE', 'as a whole']),
    ('schedule.peak=-1', ['--config.schedule.peak=-1', '>= 0']),
    ('optimizer.name=adam', ['one of rmsprop, sgd']),
    ('policy=alon', ['did you mean alone?']),
    ('recompute=maybe', ['--config.recompute=maybe', 'Non-boolean']),
    ('search.evaluations=1e2', ['a whole number >= 1']),
    ('search.objectives=macs', ["like ('a', 'b')"]),
    ('data.std[0]=0', ['--config.data.std=VALUE', 'as a whole']),
    ('data.std=(0,)', ['--config.data.std=(0,)', 'a number > 0']),
    ('=3', ['--config.: got', 'a field, such as']),
    ('a b=3', ['a field, such as']),
    ('steps[-1]=3', ['--config.steps=VALUE']),
    ('data..std=3', ['a field, such as']),
    ('steps', ['Missing value for flag --config.steps']),
  ],
)
def test_a_wrong_override_is_named(file, capsys, change, words):
  _refused(file, capsys, *words, overrides=[f'--config.{change}'])


def test_an_override_follows_its_config(file, capsys):
  arguments = ['--config.steps=3', f'--config={file}', '--workdir=x']
  assert cli.status(main.main, arguments) == 2
  assert 'before a value for --config' in capsys.readouterr().err


def _paths(value, path=''):
  """All paths that lead to something in a config."""
  if dataclasses.is_dataclass(value):
    for name in annotations.fields(type(value)):
      yield f'{path}.{name}'.strip('.')
      yield from _paths(getattr(value, name), f'{path}.{name}'.strip('.'))
  elif isinstance(value, tuple):
    for i, inner in enumerate(value):
      yield f'{path}[{i}]'
      yield from _paths(inner, f'{path}[{i}]')


_PATHS = list(_paths(tiny.config()))
_TEXTS = st.one_of(
  st.text(max_size=8),
  st.integers().map(str),
  st.floats().map(str),
  st.booleans().map(str),
  st.lists(st.integers(0, 40)).map(str),
  st.sampled_from(['None', '{}', '()', "'a'", '1e999', '-1', '0', '(8,)']),
)


@hypothesis.settings(max_examples=300)
@hypothesis.given(
  changes=st.lists(
    st.tuples(st.sampled_from(_PATHS), _TEXTS), min_size=1, max_size=3
  )
)
def test_any_text_for_any_field_is_a_right_value_or_one_line(file, changes):
  assert {'space.stages[0].se.ratio', 'rule.edges[2].weight'} < set(_PATHS)
  overrides = [f'{path}={text}' for path, text in changes]
  try:
    found = changed(file, *overrides)
  except (errors.UserError, flags.Error) as error:
    assert '--config.' in str(error)
  else:
    assert schema.check(found) == found


@hypothesis.given(path=st.text(max_size=12), text=st.text(max_size=3))
def test_any_text_in_place_of_a_path_is_one_line(file, path, text):
  try:
    found = changed(file, f'{path}={text}')
  except (errors.UserError, flags.Error) as error:
    assert 'config' in str(error)
  else:
    assert schema.check(found) == found


# Config files.


def _refused(path, capsys, *words, overrides=()):
  run = path.parent / 'run'
  arguments = [f'--config={path}', f'--workdir={run}', *overrides]
  assert cli.status(main.main, arguments) == 2
  captured = capsys.readouterr()
  assert captured.out == '' and captured.err.count('\n') == 1, captured
  for word in words:
    assert word in captured.err, captured.err
  assert not run.exists()


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('x = 1\ny = = 2\n', ['line 2: SyntaxError']),
    ('import nothing_of_this_name\n', ['line 1: ModuleNotFoundError']),
    ('def get_config():\n  return 1 / 0\n', ['line 2: ZeroDivisionError']),
    ('def get_config():\n  exit("no")\n', ['line 2: SystemExit: no']),
    ('def get_config(x):\n  pass\n', ['TypeError', "argument: 'x'"]),
    ('def get_config():\n  get_config()\n', ['line 2: RecursionError']),
    ('get_config = 3\n', ["TypeError: 'int' object is not callable"]),
    ('def get_config():\n  return 3\n', ['get_config() returns a Config']),
    ('raise ValueError("a\\nb")\n', ['line 1: ValueError: a']),
    ('raise ValueError("x" * 10**6)\n', ['line 1: ValueError: xxx']),
    (_MADE.format('stepz=3'), ['line 4: TypeError', 'stepz']),
    (_MADE.format('').replace('return', 'c ='), ['returns a Config']),
    (
      _MADE.format('').replace('return', 'c =') + '  c.stepz = 3\n',
      ['line 5: AttributeError', 'stepz'],
    ),
    (
      'from bignas_jax.spaces.space import Stage, Space\n\n'
      'SPACE = Space(name="x", resolution=(0,), stem_width=(8,), stages=(),\n'
      '  head_width=(8,))\n',
      ['line 3: space.resolution: got (0,)'],
    ),
  ],
)
def test_a_mistake_in_a_config_file_says_where_it_is(
  tmp_path, capsys, text, words
):
  path = tmp_path / 'mine.py'
  path.write_text(text)
  _refused(path, capsys, '--config: got', 'mine.py', *words)


def test_an_error_in_what_a_config_file_calls_says_the_files_line(
  tmp_path, capsys
):
  path = tmp_path / 'mine.py'
  path.write_text('import json\n\nA = json.loads("{")\n')
  _refused(path, capsys, 'line 3: json.decoder.JSONDecodeError')


def test_a_config_file_that_is_none(tmp_path, capsys):
  directory = tmp_path / 'mine.py'
  directory.mkdir()
  _refused(directory, capsys, 'mine.py', 'get_config')
  binary = tmp_path / 'binary.py'
  binary.write_bytes(b'\xff\xfe\x00')
  _refused(binary, capsys, 'binary.py', 'null bytes')
  binary.write_bytes(b'\x00')
  _refused(binary, capsys, 'binary.py', 'null bytes')


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
def test_a_config_file_that_may_not_be_read(tmp_path, capsys):
  path = tmp_path / 'mine.py'
  path.write_text(_MADE)
  path.chmod(0)
  _refused(path, capsys, 'mine.py', 'Permission denied')


def test_a_config_file_may_begin_with_a_byte_order_mark(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text('\ufeff' + _MADE.format('seed=7'), encoding='utf-8')
  assert config_file.load(str(path)).seed == 7
  assert not (tmp_path / '__pycache__').exists()


def test_what_follows_a_colon_is_given_to_the_file(tmp_path, capsys):
  path = tmp_path / 'mine.py'
  text = 'def get_config(a=""):\n  return tiny.config(seed=len(a))\n'
  path.write_text('import tiny\n' + text)
  assert config_file.load(f'{path}:four').seed == 4
  assert config_file.load(f'{path}:').seed == config_file.load(str(path)).seed
  path.write_text(_MADE.format(''))
  argument = path.with_name('mine.py:four')
  _refused(argument, capsys, '--config: got', 'get_config() takes 0')


def test_the_last_text_of_a_config_file_counts(tmp_path):
  """Also where two have one size and were written in one second."""
  path = tmp_path / 'mine.py'
  for seed in range(5):
    path.write_text(_MADE.format(f'seed={seed}'))
    assert config_file.load(str(path)).seed == seed
