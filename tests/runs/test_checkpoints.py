"""Checkpoints: damage is noticed, and a full disk leaves them intact."""

import pathlib
import random
import shutil
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import pytest
import tiny
from jax._src import compilation_cache

from bignas_jax.methods import step as step_lib
from bignas_jax.runs import checkpoints as checkpoints_lib
from bignas_jax.runs import config, rollbacks
from bignas_jax.runs.rollbacks import Rollback
from bignas_jax.system import digests, files, xla
from bignas_jax.training import loop
from bignas_jax.values import errors

ROOT = pathlib.Path(__file__).parents[2]


def _tree(step):
  weight = step + jnp.arange(3000.0)
  return {'params': {'weight': weight}, 'step': jnp.int32(step)}


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """Three checkpoints of a small tree."""
  workdir = tmp_path_factory.mktemp('saved')
  checkpoints = checkpoints_lib.Checkpoints(workdir)
  for step in 1, 2, 3:
    checkpoints.save(step, _tree(step), {'lucky': step})
  checkpoints.close()
  return workdir


@pytest.fixture
def copy(saved, tmp_path):
  shutil.copytree(saved, tmp_path / 'run')
  return tmp_path / 'run'


def _restored(workdir):
  """What training would go on from: (step, tree)."""
  checkpoints = checkpoints_lib.Checkpoints(workdir)
  step = checkpoints.latest()
  like = jax.eval_shape(lambda: _tree(0))
  tree = None if step is None else checkpoints.restore(step, like)
  checkpoints.close()
  return step, tree


def _params(workdir):
  """What searching would use."""
  like = jax.eval_shape(lambda: _tree(0)['params'])
  return checkpoints_lib.restore_params(workdir, like, 'params')


def _biggest(directory):
  paths = [path for path in directory.rglob('*') if path.is_file()]
  return max(paths, key=lambda path: path.stat().st_size)


def _flip(path, where=0.5):
  content = bytearray(path.read_bytes())
  content[int(where * len(content))] ^= 1
  path.write_bytes(content)


def _truncate(directory):
  path = _biggest(directory)
  path.write_bytes(path.read_bytes()[:-100])


def _empty(directory):
  shutil.rmtree(directory)
  directory.mkdir()


DAMAGE = {
  'truncated array': _truncate,
  'flipped bit': lambda d: _flip(_biggest(d)),
  'missing array': lambda d: _biggest(d).unlink(),
  'missing metadata': lambda d: (d / 'default' / '_METADATA').unlink(),
  'garbage': lambda d: (d / 'default' / '_METADATA').write_bytes(b'\0\xff{'),
  'no contents': lambda d: shutil.rmtree(d / 'default'),
  'empty directory': _empty,
  'missing manifest': lambda d: (d / digests.NAME).unlink(),
  'empty manifest': lambda d: (d / digests.NAME).write_text(''),
  'other manifest': lambda d: (d / digests.NAME).write_text('[1, 2]'),
  'damaged manifest': lambda d: _flip(d / digests.NAME),
}


@pytest.mark.parametrize('kind', DAMAGE)
def test_of_a_damaged_checkpoint_the_one_before_is_taken(copy, kind, capsys):
  DAMAGE[kind](copy / 'checkpoints' / '3')
  before = sorted(copy.rglob('*'))
  step, params = _params(copy)
  assert step == 2
  chex.assert_trees_all_equal(params, _tree(2)['params'])
  assert sorted(copy.rglob('*')) == before  # only read
  step, tree = _restored(copy)
  assert step == 2
  chex.assert_trees_all_equal(tree, jax.tree.map(jnp.asarray, _tree(2)))
  assert (copy / 'damaged' / '3').is_dir()
  assert 'warning: checkpoint 3 is damaged: ' in capsys.readouterr().err


def test_every_damage_is_passed_over_together(copy):
  DAMAGE['truncated array'](copy / 'checkpoints' / '3')
  DAMAGE['missing metadata'](copy / 'checkpoints' / '2')
  assert _restored(copy)[0] == 1
  _empty(copy / 'checkpoints' / '1')
  assert _restored(copy) == (None, None)
  with pytest.raises(errors.UserError, match='a complete checkpoint'):
    _params(copy)


def test_a_bit_flipped_in_any_file_is_noticed_or_harmless(copy):
  """Orbax alone restores some of these as other numbers."""
  directory, rng = copy / 'checkpoints' / '3', random.Random(0)
  unlisted = {digests.NAME, '_CHECKPOINT_METADATA', 'commit_success.txt'}
  seen = 0
  for path in sorted(p for p in directory.rglob('*') if p.is_file()):
    whole = path.read_bytes()
    if not whole:
      continue
    _flip(path, rng.random())
    noticed = digests.damage(directory)
    if path.parent != directory or path.name not in unlisted:
      assert noticed, path
    seen += bool(noticed)
    path.write_bytes(whole)
  assert seen >= 5
  assert digests.damage(directory) is None
  # What no manifest covers, nothing reads.
  (directory / '_CHECKPOINT_METADATA').write_bytes(b'\0')
  assert _restored(copy)[0] == 3


def test_what_was_left_half_done_is_removed(copy):
  directory = copy / 'checkpoints'
  (directory / '4.orbax-checkpoint-tmp' / 'default').mkdir(parents=True)
  (directory / '1.removed').mkdir()
  assert _restored(copy)[0] == 3
  assert {path.name for path in directory.iterdir()} == {'1', '2', '3'}


def test_old_checkpoints_that_are_half_removed_are_in_nobodys_way(copy):
  _empty(copy / 'checkpoints' / '1')
  checkpoints = checkpoints_lib.Checkpoints(copy, keep=2)
  assert checkpoints.latest() == 3
  checkpoints.save(4, _tree(4))
  checkpoints.close()
  left = {path.name for path in (copy / 'checkpoints').iterdir()}
  assert left == {'3', '4'}


def test_notes_are_saved_with_the_state(saved):
  checkpoints = checkpoints_lib.Checkpoints(saved)
  assert checkpoints.notes(2) == {'lucky': 2}
  checkpoints.close()


def test_signals_do_not_push_out_scheduled_checkpoints(tmp_path):
  checkpoints = checkpoints_lib.Checkpoints(tmp_path, keep=2, every=10)
  for step in 10, 20, 23, 27, 30, 31:
    checkpoints.save(step, _tree(step))
  checkpoints.close()
  left = {p.name for p in (tmp_path / 'checkpoints').iterdir()}
  assert left == {'20', '30', '31'}


def test_checkpoints_that_were_taken_back_do_not_count(copy):
  rollbacks.write(copy, [Rollback(3, 2, 3, 'a test')])
  assert _params(copy)[0] == 2
  assert _restored(copy)[0] == 2
  assert not (copy / 'checkpoints' / '3').exists()


def test_a_list_of_rollbacks_that_lost_some_is_refused(tmp_path):
  went = [Rollback(3, 0, 3, 'a test')]
  checkpoints = checkpoints_lib.Checkpoints(tmp_path)
  notes = {'rollbacks': rollbacks.to_json(went)}
  checkpoints.save(1, _tree(1), notes)
  checkpoints.close()
  for content in None, '[', '{}', '[{"at": 1}]':
    if content is not None:
      (tmp_path / rollbacks.NAME).write_text(content)
    with pytest.raises(errors.UserError, match=rollbacks.NAME):
      checkpoints_lib.Checkpoints(tmp_path)
  rollbacks.write(tmp_path, went)
  assert _restored(tmp_path)[0] == 1


@pytest.mark.parametrize('content', ['[]', '"x"', '{}', '{"config": 1}', '{'])
def test_a_damaged_config_is_the_users_to_mend(tmp_path, content):
  (tmp_path / 'config.json').write_text(content)
  with pytest.raises(errors.UserError, match=r'config\.json: '):
    loop.train(tiny.config(), tmp_path)


def test_programs_that_a_kill_tore_are_dropped(tmp_path):
  """Otherwise JAX leaves them there, and compiles them every time."""
  entry = compilation_cache.compress_executable(bytes(range(256)) * 9)
  found = {'a': entry, 'b': entry[:-1], 'c': b'', 'd': b'other', 'e': b'x0'}
  for name, content in found.items():
    (tmp_path / f'{name}-cache').write_bytes(content)
  name = 'jax_compilation_cache_dir'
  before = jax.config.values[name]
  jax.config.update(name, None)
  try:
    xla.keep_programs(tmp_path)
    assert jax.config.values[name] == str(tmp_path)
  finally:
    jax.config.update(name, before)
  assert {path.name[0] for path in tmp_path.glob('*-cache')} == {'a', 'd'}


_FULL = """
import sys
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
import pathlib
import tiny
from bignas_jax import cli
from bignas_jax.training import loop as training
config = tiny.config(space=tiny.QUICK, policy='alone')
train = lambda _: training.train(config, pathlib.Path(sys.argv[1]))
sys.exit(cli.status(train, []))
"""


def test_a_full_disk_ends_the_run_with_one_line(tmp_path):
  """No file can grow to what the biggest one of a checkpoint needs."""
  state = jax.jit(
    step_lib.init_state(config.setup(tiny.config(space=tiny.QUICK)))
  )()
  checkpoints = checkpoints_lib.Checkpoints(tmp_path / 'room')
  checkpoints.save(2, state)
  checkpoints.close()
  size = _biggest(tmp_path / 'room' / 'checkpoints' / '2').stat().st_size
  ended = subprocess.run(
    [sys.executable, '-c', _FULL, tmp_path / 'run', str(size // 2)],
    env=tiny.environment(),
    capture_output=True,
    text=True,
  )
  assert ended.returncode == 1, ended.stderr
  assert 'Traceback' not in ended.stderr, ended.stderr
  (line,) = [x for x in ended.stderr.splitlines() if x.startswith('error: ')]
  assert 'no room for checkpoint 2' in line and 'File too large' in line
  assert 'make room and start again' in line


def test_only_a_full_disk_is_one():
  assert files.no_room(OSError(28, 'No space left on device'))
  assert files.no_room(ValueError("... [os_error_code='28']"))
  assert not files.no_room(OSError(13, 'Permission denied'))
  assert not files.no_room(ValueError("... [os_error_code='13']"))
  assert not files.no_room(ValueError('shapes differ'))
