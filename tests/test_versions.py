"""A run of version 0.1.0 goes on, and is read, for ever (`golden`)."""

import json
import pathlib
import shutil

import pytest
import tiny
from etils import epath

from bignas_jax import errors, training, workdir
from bignas_jax.config import Calibration

GOLDEN = pathlib.Path(__file__).parent / 'golden/run_0_1_0'


def _config(**changes):
  return tiny.config(
    space=tiny.QUICK,
    steps=4,
    batch_size=8,
    eval_every=4,
    log_every=2,
    checkpoint_every=2,
    keep_checkpoints=1,
    calibration=Calibration(images=32, batch_size=32),
    **changes,
  )


@pytest.fixture
def run(tmp_path):
  return epath.Path(shutil.copytree(GOLDEN, tmp_path / 'run'))


def test_a_run_of_0_1_0_goes_on(run):
  """Fields that came later have the values that it had without them."""
  result = training.train(_config(), run)
  assert result['step'] == 4 and result['eval/biggest/top1'] > 0


def test_another_config_is_still_another_one(run):
  with pytest.raises(errors.UserError, match=r'differs in seed \(0 there, 1'):
    workdir.claim(run, _config(seed=1))


def test_a_field_that_nobody_knows_is_one_line(run):
  path = run / 'config.json'
  text = json.loads(path.read_text())
  text['config']['warp'] = 9
  path.write_text(json.dumps(text))
  with pytest.raises(errors.UserError, match='warp') as caught:
    workdir.claim(run, _config())
  assert '\n' not in str(caught.value)
