"""Which batches devices can share, and who says what where they cannot."""

import dataclasses
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh

from bignas_jax import evaluate
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import restore
from bignas_jax.supernet import batch_norm
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.values import errors

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'run_0_1_0'


@given(st.integers(1, 48), st.integers(0, 50), st.integers(1, 6))
def test_batches_that_can_be_shared_are_those_whose_groups_stay_whole(
  images, group, devices
):
  """Written out: where each image lies, and whom it shares statistics with."""

  def whole() -> bool:
    if images % devices or (group and images % group):
      return False
    share = images // devices
    for first in range(0, images, group or images):
      members = range(first, first + (group or images))
      there = {image // share for image in members}
      inside = len(there) == 1
      if not inside and len(members) != len(there) * share:
        return False
    return True

  batches = [mesh_lib.Batch('batch_size', images, group)]
  assert mesh_lib.can_share(batches, devices) == whole()


@pytest.mark.parametrize(
  ('changes', 'field', 'words'),
  [
    ({'batch_size': 96, 'bn_group_size': 32}, 'bn_group_size', ['24', '96']),
    (
      {'bn_group_size': 16, 'calibration': {'images': 120, 'batch_size': 120}},
      'bn_group_size',
      ['divisor of calibration.batch_size 120'],
    ),
    (
      {'bn_group_size': 16, 'calibration': {'images': 96, 'batch_size': 96}},
      'bn_group_size',
      ['multiple of 24', 'calibration.batch_size 96'],
    ),
    ({'batch_size': 18}, 'batch_size', ['multiple of the 4 devices']),
    ({'eval_batch_size': 18}, 'eval_batch_size', ['of the 4 devices']),
    (
      {'calibration': {'images': 30, 'batch_size': 30}},
      'calibration.batch_size',
      ['of the 4 devices'],
    ),
  ],
)
def test_what_devices_cannot_share_is_refused_before_the_start(
  changes, field, words
):
  if 'calibration' in changes:
    changes['calibration'] = config_lib.Calibration(**changes['calibration'])
  config = tiny.config(space=tiny.QUICK, **changes)
  with pytest.raises(errors.UserError) as refused:
    config_lib.check(config)
    config_lib.setup(config)
  assert refused.value.field == field
  assert all(word in str(refused.value) for word in words), refused.value


def test_evaluation_asks_for_no_groups_of_images():
  """Its statistics are given; 100 images are no multiple of 32."""
  config = tiny.config(bn_group_size=8, eval_batch_size=100)
  config_lib.check(config)
  config_lib.setup(config)
  x, ones = jnp.ones((100, 2, 2, 4)), np.ones(4, np.float32)
  y, moments = batch_norm.batch_norm(
    x,
    {'scale': ones, 'bias': ones},
    {'mean': ones, 'var': ones},
    1e-3,
    batch_norm.Pooling(group_size=32),
  )
  np.testing.assert_array_equal(y, np.ones(x.shape))
  assert moments['mean'].shape == (1, 4)


@dataclasses.dataclass(frozen=True)
class _Device:
  """Of a slice that is not there."""

  id: int
  process_index: int


def test_rows_of_a_process_are_those_of_its_devices():
  """Hosts that take turns, as the devices of a slice may be ordered."""

  def mesh(*processes):
    devices = [_Device(i, process) for i, process in enumerate(processes)]
    return Mesh(np.array(devices).reshape(2, -1), ('outer', 'inner'))

  turns = mesh(0, 1, 1, 0)
  assert mesh_lib.rows(turns, 8, 0) == [0, 1, 6, 7]
  assert mesh_lib.rows(turns, 8, 1) == [2, 3, 4, 5]
  assert mesh_lib.rows(mesh(1, 1, 0, 0), 4, 0) == [2, 3]
  assert mesh_lib.rows(mesh_lib.create(), 8) == [*range(8)]


@pytest.fixture
def run(tmp_path):
  """Of a batch of 8; evaluated 200 images at a time, calibrated with 32."""
  return pathlib.Path(shutil.copytree(GOLDEN, tmp_path / 'run'))


def test_a_trained_run_takes_the_devices_that_can_share_its_batches(
  run, monkeypatch, capsys
):
  """Of three, two: 3 divides neither; what a step took does not matter."""
  three = jax.devices()[:3]
  monkeypatch.setattr(jax, 'devices', lambda: three)
  found = evaluate.main([f'--workdir={run}', '--arch=smallest'])
  told = capsys.readouterr().err
  assert found['images'] == 1000 and found['top1'] > 0
  assert [line for line in told.splitlines() if 'devices' in line] == [
    'using 2 of 3 devices: more cannot share calibration.batch_size 32 and '
    'eval_batch_size 200'
  ]
  # Of four, all.
  monkeypatch.undo()
  assert restore.load(run).model.mesh.size == 4
  assert 'devices' not in capsys.readouterr().err


def test_several_processes_take_all_devices_or_none(run, monkeypatch):
  config = run / 'config.json'
  fields = json.loads(config.read_text())
  fields['config']['eval_batch_size'] = 30
  config.write_text(json.dumps(fields))
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  with pytest.raises(errors.UserError, match='multiple of the 4') as refused:
    restore.load(run)
  assert refused.value.field == 'eval_batch_size'
