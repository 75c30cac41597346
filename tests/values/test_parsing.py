"""Values of options and overrides from their text."""

from typing import Any, Literal

import hypothesis
import hypothesis.strategies as st
import pytest

from bignas_jax import cli
from bignas_jax.values import errors, parsing, schema


@pytest.mark.parametrize(
  ('kind', 'text', 'value'),
  [
    (schema.Natural, '3', 3),
    (float, '3', 3.0),
    (bool, 'True', True),
    (bool, 'false', False),
    (str, '3', '3'),
    (Literal['sum', 'mean'], 'mean', 'mean'),
    (float | None, 'None', None),
    (tuple[int, ...], '[1, 2]', (1, 2)),
    (tuple[tuple[str, str], ...], "(('a', 'b'),)", (('a', 'b'),)),
  ],
)
def test_text_becomes_a_typed_value(kind, text, value):
  found = parsing.value(kind, text, '--x')
  assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
  ('kind', 'text', 'allowed'),
  [
    (schema.Natural, '0', 'a whole number >= 1'),
    (schema.Natural, '2.5', 'a whole number >= 1'),
    (schema.Natural, 'true', 'a whole number >= 1'),
    (schema.Natural, '9' * 5000, 'a whole number >= 1'),
    (schema.AtLeastZero, 'nan', 'a number >= 0'),
    (schema.AtLeastZero, '1e999', 'a finite number'),
    (schema.AtLeastZero, '(', 'a number >= 0'),
    (float, '{[]}', 'a finite number'),
    (bool, '1', 'True or False'),
    (Literal['sum', 'mean'], 'meen', 'did you mean mean'),
    (tuple[int, ...], '{1, 2}', 'like (1, 2)'),
    (tuple[str, ...], 'macs', "like ('a', 'b')"),
  ],
)
def test_other_text_is_refused_with_what_is_allowed(kind, text, allowed):
  with pytest.raises(errors.UserError) as refused:
    parsing.value(kind, text, '--x')
  assert str(refused.value).startswith('--x: got')
  assert allowed in str(refused.value)


_KINDS: list[Any] = [
  *(schema.Natural, schema.Share, bool, str, Literal['a', 'b'], int | None),
  *(tuple[int, ...], tuple[tuple[str, str], ...]),
]


@hypothesis.given(st.sampled_from(_KINDS), st.text(max_size=12))
def test_any_text_is_a_value_or_one_line(kind, text):
  try:
    found = parsing.value(kind, text, '--x')
  except errors.UserError as error:
    assert '\n' not in str(error)
  else:
    assert schema.convert(kind, found) == found


def test_a_flags_number_is_one_line_and_status_2(capsys):
  def define(values):
    cli.number(values, schema.Natural, 'images', None, 'are tried')
    cli.number(values, schema.Natural, 'batch', '1', 'are', several=True)

  def command(arguments):
    given = cli.parse('x', 'Is tried.', define, arguments)
    return {'images': given.images, 'batch': given.batch}

  assert command(['--images=3', '--batch=1,8']) == {
    'images': 3,
    'batch': [1, 8],
  }
  assert command([]) == {'images': None, 'batch': [1]}
  for argument in ('--images=0', '--images=nan', '--batch=1,', '--batch=2.5'):
    assert cli.status(command, [argument]) == 2
    told = capsys.readouterr().err
    assert told.count('\n') == 1 and told.startswith(f'error: flag {argument}:')
    assert 'allowed: a whole number >= 1' in told
  assert cli.status(command, ['--imagse=3']) == 2
  assert 'Did you mean: images' in capsys.readouterr().err
  assert cli.status(command, ['3']) == 2
  assert 'only flags' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('arguments', 'line'),
  [
    ([], '--out: got nothing; allowed: --out=VALUE, see x --help'),
    (['--out='], "--out: got ''; allowed: a path"),
    (
      ['--out=a', '--in=s3://a'],
      "--in: got 's3://a'; allowed: a path, or gs://BUCKET/...",
    ),
    (
      ['--out=a', '--max_macs=1e9x'],
      "flag --max_macs=1e9x: got '1e9x'; allowed: a finite number",
    ),
  ],
)
def test_a_wrong_flag_is_named_once(arguments, line, capsys):
  def define(values):
    cli.path(values, 'out', 'goes here', required=True)
    cli.path(values, 'in', 'comes from here', several=True)
    cli.limits(values, {'macs': 'multiply-adds'}, ['float32'])

  def command(arguments):
    return {'out': str(cli.parse('x', 'Is tried.', define, arguments).out)}

  assert command(['--out=a', '--in=b', '--in=c']) == {'out': 'a'}
  assert cli.status(command, arguments) == 2
  assert capsys.readouterr().err == f'error: {line}\n'
