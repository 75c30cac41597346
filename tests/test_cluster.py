"""Several processes of one run: the same parameters, and one set of files."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import chex
import jax
import pytest
import tiny

from bignas_jax import checkpoint, config, training

ROOT = pathlib.Path(__file__).parents[1]
STEPS = 20

_CONFIG = """
import test_cluster


def get_config():
  return test_cluster.run_config()
"""


def run_config():
  space = dataclasses.replace(
    tiny.SPACE, resolution=(8,), train_resolution=(8,)
  )
  return tiny.config(
    space=space, steps=STEPS, eval_every=STEPS, checkpoint_every=STEPS
  )


def train(directory, processes, devices):
  """Runs the launcher; the metrics and the parameters."""
  file, workdir = directory / 'config.py', directory / 'run'
  file.write_text(_CONFIG)
  command = [
    *('launch/local_pod.sh', str(processes), str(devices), '--'),
    *(sys.executable, '-m', 'bignas_jax.main'),
    *(f'--config={file}', f'--workdir={workdir}'),
  ]
  path = os.pathsep.join([str(ROOT), str(ROOT / 'tests')])
  done = subprocess.run(
    command,
    cwd=ROOT,
    env=os.environ | {'PYTHONPATH': path},
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stderr
  assert f'on {processes * devices} cpu device(s)' in done.stderr
  # Gloo greets on stdout.
  result = json.loads(done.stdout.splitlines()[-1])
  lines = [
    json.loads(line)
    for line in (workdir / 'metrics.jsonl').read_text().splitlines()
  ]
  assert [line['step'] for line in lines] == [*range(1, STEPS + 1), STEPS]
  checkpoints = checkpoint.Checkpoints(workdir)
  state = training.restore_or_init(config.setup(run_config()), checkpoints)
  checkpoints.close()
  assert int(state.step) == STEPS
  return result, jax.device_get(state.params)


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  return train(tmp_path_factory.mktemp('alone'), 1, 1)


@pytest.mark.parametrize(('processes', 'devices'), [(1, 4), (2, 2)])
def test_processes_and_devices_train_what_one_does(
  alone, tmp_path, processes, devices
):
  result, params = train(tmp_path, processes, devices)
  expected, expected_params = alone
  assert result | {'workdir': ''} == pytest.approx(expected | {'workdir': ''})
  chex.assert_trees_all_close(params, expected_params, rtol=1e-5, atol=1e-6)
