"""`benchmark input`: rates of the pipeline that training uses."""

import importlib.util
import json
import time
import types
from typing import Any

import cv2
import numpy as np
import pytest

from bignas_jax import benchmark, cli
from bignas_jax.perf import input_rate

SHORT = ['--batch=4', '--seconds=0.3']


@pytest.fixture
def folder(tmp_path):
  rng = np.random.RandomState(0)
  for split in ('train', 'test'):
    for number in range(12):
      path = tmp_path / split / f'c{number % 2}' / f'{number}.jpg'
      path.parent.mkdir(parents=True, exist_ok=True)
      image = rng.randint(0, 256, (40, 50, 3), np.uint8)
      path.write_bytes(cv2.imencode('.jpg', image)[1].tobytes())
  return tmp_path


def run(capsys, *arguments: str) -> dict:
  assert cli.status(benchmark.main, ['input', *arguments, *SHORT]) == 0
  return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_folder_is_measured_by_workers(folder, capsys):
  result = run(
    capsys,
    f'--directory={folder}',
    '--workers=1,2',
    '--resolution=16',
    '--images_per_s=100',
    '--augment=randaugment',
  )
  assert result['images'] == 12 and result['resolution'] == 16
  assert result['augment'] == 'randaugment'
  assert result['step_s'] == 0.04 and result['wanted_images_per_s'] == 100
  assert [r['workers'] for r in result['runs']] == [1, 2]
  for found in result['runs']:
    assert found['worker'] == 'thread'
    assert found['images_per_s'] > 0
    # Two threads do not use more than two cores.
    assert found['images_per_cpu_s'] > found['images_per_s'] / 2.5
    assert 0 <= found['waiting'] < 0.9
  assert result['cores_wanted'] > 0


def test_a_config_says_what_to_read(capsys):
  result = run(
    capsys, '--config=configs/mnist.py', '--config.data.augment=none'
  )
  assert result['source'] == 'mnist5k' and result['augment'] == 'none'
  assert result['images'] == 3500 and result['resolution'] == 32


def test_waiting_is_the_part_of_a_step_that_input_takes():
  """Batches that take 30 ms: all of a step of nothing, half of one of 30."""

  def slow():
    while True:
      yield time.sleep(0.03)

  made: Any = types.SimpleNamespace(prepared=slow)
  assert input_rate._waiting(made, 1e-3, 0.1) > 0.9
  assert 0.4 < input_rate._waiting(made, 0.03, 0.3) < 0.6


def test_without_tensorflow_the_comparison_is_left_out(
  folder, capsys, monkeypatch
):
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    'find_spec',
    lambda name, *rest: None if name == 'tensorflow' else find(name, *rest),
  )
  result = run(capsys, f'--directory={folder}', '--tf_data')
  assert result['tf_data'] == {'skipped': 'TensorFlow is not installed'}


@pytest.mark.parametrize(
  ('arguments', 'text'),
  [
    (['--workers=0'], '--workers'),
    (['--workers=some'], '--workers'),
    (['--augment=none at all'], 'data.augment'),
    (['--directory=/nowhere'], 'data.directory'),
  ],
)
def test_mistakes_are_one_line(folder, capsys, arguments, text):
  arguments = ['input', f'--directory={folder}', *arguments]
  assert cli.status(benchmark.main, arguments) == 2
  error = capsys.readouterr().err.strip()
  assert text in error and '\n' not in error
