"""Config files, and overrides of any of their fields."""

import dataclasses
import os

import hypothesis
import hypothesis.strategies as st
import pytest
import tiny

from bignas_jax import cli, main
from bignas_jax.runs import config, overrides
from bignas_jax.values import annotations, errors, schema


def changed(*changes, **fields):
  pairs = [change.split('=', 1) for change in changes]
  return overrides.changed(tiny.config(**fields), pairs)


# Overrides.


def test_fields_of_a_frozen_space_can_be_overridden():
  before = tiny.config()
  found = changed(
    'space.classes=12',
    'space.stages[0].width=(8,24)',
    'space.stages[0].se.ratio=0.5',
    'rule.edges[1].weight=2',
    "layout.rules=(('ema', 'data'),)",
    'optimizer.momentum=0.8',
    'recompute=true',
  )
  config.check(found)
  stage = found.space.stages[0]
  assert (found.space.classes, stage.width, stage.se.ratio) == (
    12,
    (8, 24),
    0.5,
  )
  assert found.space.head_width == tiny.SPACE.head_width
  assert found.rule.edges[1].weight == 2.0
  assert found.rule.edges[1].teacher == 'biggest'
  assert found.layout.rules == (('ema', 'data'),)
  assert found.optimizer.momentum == 0.8 and found.recompute
  assert before == tiny.config()


def test_a_space_given_by_name_becomes_one_that_can_be_changed():
  found = changed('space.classes=11', 'seed=3', space='mnist')
  assert found.space == dataclasses.replace(
    config.space(tiny.config(space='mnist')), classes=11
  )
  again = changed('space=mnist', 'space.classes=11')
  assert again.space == found.space


def test_what_is_only_right_together_is_changed_together():
  found = changed('space.resolution=(16,)', 'space.train_resolution=(16,)')
  assert found.space.train_resolution == (16,)
  with pytest.raises(errors.UserError, match=r'^--config\.space\.train_res'):
    changed('space.resolution=(16,)')


def test_of_one_field_twice_the_last_counts():
  assert changed('steps=7', 'seed=1', 'steps=9').steps == 9
  found = changed('space.classes=11', 'space=mnist')
  assert found.space == 'mnist'


def test_nothing_can_become_something():
  stages = (dataclasses.replace(tiny.SPACE.stages[0], se=None),)
  space = dataclasses.replace(tiny.SPACE, stages=stages)
  found = changed("space.stages[0].se={'ratio': 0.5}", space=space)
  assert found.space.stages[0].se.ratio == 0.5
  assert changed('space.stages[0].se=None').space.stages[0].se is None


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    ('stepz=3', ['--config.stepz: got', 'did you mean steps?']),
    ('steps=3.0', ['--config.steps: got 3.0', 'a whole number >= 1']),
    ('steps.x=3', ['--config.steps.x', 'nothing inside of it']),
    ('rule={"dropout": 0}', ['--config.rule:', '--config.rule.FIELD=VALUE']),
    ('space.clases=3', ['--config.space.clases', 'did you mean classes?']),
    ('space.classes=0', ['--config.space.classes: got 0']),
    ('space.stages[1].width=(8,)', ['--config.space.stages[1]', '[0] to [0]']),
    ('space.stages.width=(8,)', ['--config.space.stages.width', '[0] to [0]']),
    ('space.stages[0].width=(8.5,)', ['stages[0].width[0]: got 8.5']),
    ('space.stages[0].width=(16,8)', ['stages[0].width: got', 'increasing']),
    ('schedule.peak=-1', ['--config.schedule.peak: got -1', '>= 0']),
    ('optimizer.name=adam', ['one of rmsprop, sgd']),
    ('search.evaluations=1e2', ['a whole number >= 1']),
    ('search.objectives=macs', ["like ('a', 'b')"]),
    ('data.std[0]=0', ['--config.data.std[0]: got 0', 'a number > 0']),
    ('=3', ['--config.: got', 'a field, such as']),
    ('a b=3', ['a field, such as']),
    ('steps[-1]=3', ['a field, such as']),
    ('space..classes=3', ['a field, such as']),
    ('', ['a field, such as']),
  ],
)
def test_a_wrong_override_is_named(change, words):
  path, _, text = change.partition('=')
  with pytest.raises(errors.UserError) as refused:
    overrides.changed(tiny.config(), [(path, text)])
  for word in words:
    assert word in str(refused.value)


def test_a_name_of_no_space_is_named():
  with pytest.raises(errors.UserError, match=r'^--config.space: .*mean mnist'):
    changed('space=mnits', 'space.classes=3')
  with pytest.raises(errors.UserError, match=r'^--config.space: got '):
    changed('space.classes=3', space='')


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


@hypothesis.settings(max_examples=400)
@hypothesis.given(
  st.lists(st.tuples(st.sampled_from(_PATHS), _TEXTS), min_size=1, max_size=3)
)
def test_any_text_for_any_field_is_a_right_value_or_one_line(changes):
  assert {'space.stages[0].se.ratio', 'rule.edges[2].weight'} < set(_PATHS)
  try:
    found = overrides.changed(tiny.config(), changes)
  except errors.UserError as error:
    assert str(error).startswith('--config.') and '\n' not in str(error)
  else:
    assert schema.check(found) == found


@hypothesis.given(st.text(max_size=12), st.text(max_size=3))
def test_any_text_in_place_of_a_path_is_one_line(path, text):
  try:
    overrides.changed(tiny.config(), [(path, text)])
  except errors.UserError as error:
    assert str(error).startswith('--config.') and '\n' not in str(error)


# Config files.


def _refused(path, capsys, *words):
  run = path.parent / 'run'
  assert cli.status(main.main, [f'--config={path}', f'--workdir={run}']) == 2
  captured = capsys.readouterr()
  assert captured.out == '' and captured.err.count('\n') == 1, captured
  for word in words:
    assert word in captured.err, captured.err
  assert not run.exists()


_MADE = 'import tiny\n\ndef get_config():\n  return tiny.config({})\n'


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('x = 1\ny = = 2\n', ['line 2: SyntaxError']),
    ('import nothing_of_this_name\n', ['line 1: ModuleNotFoundError']),
    ('def get_config():\n  return 1 / 0\n', ['line 2: ZeroDivisionError']),
    ('def get_config():\n  exit("no")\n', ['line 2: SystemExit: no']),
    ('def get_config(x):\n  pass\n', ['TypeError', "argument: 'x'"]),
    ('def get_config():\n  get_config()\n', ['line 2: RecursionError']),
    ('get_config = 3\n', ['get_config() returns a Config']),
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
  _refused(binary, capsys, 'binary.py', 'UTF-8')
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
  assert overrides.load(str(path)).seed == 7
  assert not (tmp_path / '__pycache__').exists()


def test_the_last_text_of_a_config_file_counts(tmp_path):
  """Also where two have one size and were written in one second."""
  path = tmp_path / 'mine.py'
  for seed in range(5):
    path.write_text(_MADE.format(f'seed={seed}'))
    assert overrides.load(str(path)).seed == seed
