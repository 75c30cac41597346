"""`benchmark step` and `benchmark scale`: what they report is what ran."""

import dataclasses

import jax
import pytest
import tiny

from bignas_jax import benchmark, cli
from bignas_jax.methods import loss_graph
from bignas_jax.perf import path_time, scaling, step_time
from bignas_jax.policies import sandwich
from bignas_jax.values import errors


def test_a_step_and_its_children():
  result = step_time.step(
    tiny.QUICK, batch=4, resolution=8, dtype='float32', rounds=1
  )
  assert result['programs'] == 4 and result['retraces'] == 0
  roles = [child['role'] for child in result['children']]
  assert roles == ['biggest', 'smallest', 'random', 'random']
  static = sum(child['static_s'] for child in result['children'])
  assert result['static_sum_s'] == pytest.approx(static)
  for ratio, whole in (
    ('ratio', 'static_sum_s'),
    ('ratio_to_masked', 'masked_s'),
  ):
    assert result[ratio] == result['elastic_s'] / result[whole] > 0
  counted = result['compiler']
  others = {'random 2', 'random 3', 'update'}
  assert set(counted) == {'biggest', 'smallest', *others}
  for key in ('flops', 'bytes'):
    assert counted['biggest'][key] > counted['smallest'][key] > 0


def test_the_compiler_counts_steps_of_static_children_only():
  setup = step_time.describe(tiny.QUICK, 4, 'float32', jax.devices()[:1])
  own = dataclasses.replace(
    setup,
    policy=sandwich.alone(tiny.QUICK),
    rule=loss_graph.alone(setup.rule, 'biggest'),
  )
  counted = scaling.measure(own, 1)['compiler']
  assert set(counted) == {'biggest', 'update'}
  assert counted['biggest']['flops'] > counted['update']['flops'] > 0


def test_a_path_and_its_child_alone():
  """One program a resolution, the start and the update serve all paths."""
  space = dataclasses.replace(
    tiny.QUICK,
    stages=(
      dataclasses.replace(
        tiny.QUICK.stages[0], kernel_size=(3, 5), separate_weights=True
      ),
    ),
    per_block=True,
  )
  result = path_time.path(
    space,
    batch=4,
    resolution=8,
    dtype='float32',
    rounds=1,
    paths=1,
    steps=200,
  )
  assert result['programs'] == 3 and result['retraces'] == 0
  (path,) = result['paths']
  assert path['ratio'] == path['elastic_s'] / path['static_s']
  assert result['ratio'] == pytest.approx(path['ratio'])
  assert result['gradient']['elastic_s'] > 0


def scale(**changes):
  sizes = {'devices': [1], 'batches': [4], 'resolutions': [8]} | changes
  return scaling.scale(tiny.QUICK, **sizes, dtype='float32', rounds=1)


def test_each_combination_is_a_row():
  rows = scale(devices=[1, 2], batches=[64])['rows']
  found = [(r['devices'], r['batch'], r['resolution']) for r in rows]
  assert found == [(1, 64, 8), (2, 64, 8)]
  for row in rows:
    assert row['images_per_s'] == row['batch'] / row['step_s']
    assert row['compile_s'] > 0
    assert 'compiler' not in row  # random children have loops
  whole, halved = (row['peak_bytes'] for row in rows)
  assert halved < whole


@pytest.mark.parametrize(
  ('changes', 'text'),
  [
    ({'devices': [64]}, r'--devices: got 64; allowed: at most'),
    ({'devices': [2], 'batches': [5]}, r'--batch: got 5; .* multiple of 2'),
  ],
)
def test_what_the_machine_has_not(changes, text):
  with pytest.raises(errors.UserError, match=text):
    scale(**changes)


def test_benchmarks_are_named(capsys):
  assert cli.status(benchmark.main, ['steps']) == 2
  err = capsys.readouterr().err
  first, rest = 'child, claims, device, input', 'ranking, scale, serve, step'
  assert f'one of {first}, path, {rest}, table (did you mean step?)' in err
  with pytest.raises(SystemExit) as end:
    benchmark.main(['--help'])
  assert end.value.code == 0
  first, rest = 'device, step, path, scale, input', 'ranking, claims, serve'
  assert f'one of {first}, child, table, {rest}' in capsys.readouterr().out


def test_numbers_are_numbers(capsys):
  assert cli.status(benchmark.main, ['scale', '--batch=8,x']) == 2
  assert "--batch=8,x: got 'x'" in capsys.readouterr().err
