"""Damage is noticed, trouble is gone round, and resuming changes neither."""

import dataclasses
import json
import math
import os
import pathlib
import random
import shutil
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax._src import compilation_cache

from bignas_jax import (
  backend,
  checkpoint,
  cli,
  cluster,
  config,
  errors,
  files,
  metrics,
  programs,
  receipts,
  recovery,
  rollbacks,
  training,
)
from bignas_jax.divergence import Diverged, Watch
from bignas_jax.rollbacks import Rollback

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope='module', autouse=True)
def programs_are_compiled_once():
  """All configs below have the same programs; tracing them takes seconds."""
  compile_all, evaluator, made = programs.compile_all, training.evaluator, {}

  def compiled(listed):
    return made.get('step') or made.setdefault('step', compile_all(listed))

  def evaluates(*arguments):
    return made.get('eval') or made.setdefault('eval', evaluator(*arguments))

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(programs, 'compile_all', compiled)
    patch.setattr(training, 'evaluator', evaluates)
    yield


# Damage: checkpoints.


def _tree(step):
  return {'params': {'weight': step + jnp.arange(3000.0)}, 'step': step}


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """Three checkpoints of a small tree."""
  workdir = tmp_path_factory.mktemp('saved')
  checkpoints = checkpoint.Checkpoints(workdir)
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
  checkpoints = checkpoint.Checkpoints(workdir)
  step = checkpoints.latest()
  like = jax.eval_shape(lambda: _tree(0))
  tree = None if step is None else checkpoints.restore(step, like)
  checkpoints.close()
  return step, tree


def _params(workdir):
  """What searching would use."""
  like = jax.eval_shape(lambda: _tree(0)['params'])
  return checkpoint.restore_params(workdir, like, 'params')


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
  'missing receipt': lambda d: (d / receipts.NAME).unlink(),
  'empty receipt': lambda d: (d / receipts.NAME).write_text(''),
  'other receipt': lambda d: (d / receipts.NAME).write_text('[1, 2]'),
  'damaged receipt': lambda d: _flip(d / receipts.NAME),
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
  unreceipted = {receipts.NAME, '_CHECKPOINT_METADATA', 'commit_success.txt'}
  seen = 0
  for path in sorted(p for p in directory.rglob('*') if p.is_file()):
    whole = path.read_bytes()
    if not whole:
      continue
    _flip(path, rng.random())
    noticed = receipts.damage(directory)
    if path.parent != directory or path.name not in unreceipted:
      assert noticed, path
    seen += bool(noticed)
    path.write_bytes(whole)
  assert seen >= 5
  assert receipts.damage(directory) is None
  # What no receipt covers, nothing reads.
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
  checkpoints = checkpoint.Checkpoints(copy, keep=2)
  assert checkpoints.latest() == 3
  checkpoints.save(4, _tree(4))
  checkpoints.close()
  left = {path.name for path in (copy / 'checkpoints').iterdir()}
  assert left == {'3', '4'}


def test_notes_are_saved_with_the_state(saved):
  checkpoints = checkpoint.Checkpoints(saved)
  assert checkpoints.notes(2) == {'lucky': 2}
  checkpoints.close()


def test_signals_do_not_push_out_scheduled_checkpoints(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path, keep=2, every=10)
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
  checkpoints = checkpoint.Checkpoints(tmp_path)
  notes = {'rollbacks': rollbacks.to_json(went)}
  checkpoints.save(1, _tree(1), notes)
  checkpoints.close()
  for content in None, '[', '{}', '[{"at": 1}]':
    if content is not None:
      (tmp_path / rollbacks.NAME).write_text(content)
    with pytest.raises(errors.UserError, match=rollbacks.NAME):
      checkpoint.Checkpoints(tmp_path)
  rollbacks.write(tmp_path, went)
  assert _restored(tmp_path)[0] == 1


@pytest.mark.parametrize('content', ['[]', '"x"', '{}', '{"config": 1}', '{'])
def test_a_damaged_config_is_the_users_to_mend(tmp_path, content):
  (tmp_path / 'config.json').write_text(content)
  with pytest.raises(errors.UserError, match=r'config\.json: got'):
    training.train(tiny.config(), tmp_path)


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
    backend.keep_programs(tmp_path)
    assert jax.config.values[name] == str(tmp_path)
  finally:
    jax.config.update(name, before)
  assert {path.name[0] for path in tmp_path.iterdir()} == {'a', 'd'}


# Trouble.


def _look(watch, values, start=0):
  for step, top1 in enumerate(values, start + 1):
    watch.look(step, [('biggest', 1.0)], True, top1)


RISING = list(np.linspace(0.1, 0.8, 40))


def test_a_collapse_is_noticed_within_a_window():
  watch = Watch(0.1, window=10, remains=0.2)
  _look(watch, RISING)
  with pytest.raises(Diverged, match='collapsed: training top-1 0') as seen:
    _look(watch, [0.1] * 10, 40)
  assert 45 < seen.value.step <= 50
  assert seen.value.late == 10


def test_what_is_no_collapse():
  watch = Watch(0.1, window=10, remains=0.2)
  _look(watch, [0.1] * 50)  # has not learned yet
  _look(watch, [*RISING, *([0.35] * 20)])  # worse, but not at chance
  _look(watch, [*([0.8] * 10), *([0.0] * 5), *([0.8] * 10)])  # bad batches
  off = Watch(0.1, window=10, remains=0.0)
  _look(off, [*RISING, *([0.1] * 50)])


@pytest.mark.parametrize('cut', [3, 25, 44])
def test_a_resumed_watch_sees_what_an_unbroken_one_sees(cut):
  values = RISING + [0.1] * 10
  whole, first = (Watch(0.1, 10, 0.2) for _ in range(2))
  with pytest.raises(Diverged) as seen:
    _look(whole, values)
  _look(first, values[:cut])
  memory = json.loads(json.dumps(first.memory()))
  with pytest.raises(Diverged) as again:
    _look(Watch(0.1, 10, 0.2, memory), values[cut:], cut)
  assert again.value.args == seen.value.args


@pytest.mark.parametrize('loss', [math.nan, math.inf])
def test_numbers_that_are_not_finite(loss):
  watch = Watch(0.1, window=10, remains=0.2)
  with pytest.raises(Diverged, match=r'loss of a child \(random\) is'):
    watch.look(7, [('biggest', 1.0), ('random', loss)], True, 0.5)
  with pytest.raises(Diverged, match='state is not finite'):
    watch.look(7, [('biggest', 1.0)], False, 0.5)


def test_draws_go_on_after_what_was_skipped():
  went = []
  assert [rollbacks.draw(went, s) for s in range(4)] == [0, 1, 2, 3]
  went.append(Rollback(at=7, to=5, draw=7, reason=''))  # 5 and 6 skipped
  assert [rollbacks.draw(went, s) for s in (4, 5, 6)] == [4, 7, 8]
  went.append(Rollback(at=6, to=5, draw=8, reason=''))  # 7 too
  assert [rollbacks.draw(went, s) for s in (4, 5, 6)] == [4, 8, 9]
  went.append(Rollback(at=12, to=10, draw=15, reason=''))
  assert [rollbacks.draw(went, s) for s in (9, 10, 11)] == [12, 15, 16]
  went.append(Rollback(at=11, to=5, draw=16, reason=''))  # further back
  assert [rollbacks.draw(went, s) for s in (4, 5, 10)] == [4, 16, 21]
  assert [rollbacks.ends(went, s) for s in (0, 5, 10)] == [5, 10, None]


@pytest.mark.parametrize(
  ('step', 'late', 'to'),
  [
    (11, 0, 10),
    (10, 0, 0),  # step 10 itself is wrong
    (45, 0, 40),
    (45, 5, 30),  # it may have begun by 40
    (45, 30, 20),  # the oldest that is kept
    (3, 30, 0),
  ],
)
def test_where_a_run_goes_back_to(step, late, to):
  assert recovery.target(Diverged(step, '', late), every=10, keep=3) == to


# Trouble, in training.


def _poisoned(monkeypatch, draws, poison):
  """Every step that trains on one of these draws gets other parameters."""
  policy, step, now = config.policy, programs.step, [0]

  def noting(config_):
    inner = policy(config_)

    def call(space, seed, draw):
      now[0] = draw
      return inner(space, seed, draw)

    return call

  def poisoned(setup, compiled, state, batch, children):
    if now[0] in draws:
      state = state._replace(params=jax.tree.map(poison, state.params))
    return step(setup, compiled, state, batch, children)

  monkeypatch.setattr(config, 'policy', noting)
  monkeypatch.setattr(programs, 'step', poisoned)


def _nan(leaf):
  return leaf * float('nan')


def _config(**changes):
  stage = dataclasses.replace(
    tiny.SPACE.stages[0], depth=(1,), kernel_size=(3,), se=None
  )
  space = dataclasses.replace(
    tiny.SPACE, resolution=(8,), train_resolution=(8,), stages=(stage,)
  )
  return tiny.config(space=space, **{'steps': 8, 'eval_every': 8} | changes)


def _end(config_, workdir):
  """(state, logged lines without times) of a finished run."""
  training.train(config_, workdir)
  setup, checkpoints = config.setup(config_), checkpoint.Checkpoints(workdir)
  state = jax.device_get(training.restore_or_init(setup, checkpoints))
  checkpoints.close()
  lines = [
    {name: v for name, v in line.items() if name != 'images_per_s'}
    for line in metrics.read(workdir)
  ]
  return state, lines


class _StopsAfter(cluster.StopRequest):
  """As if a signal had come during step `after` of this process."""

  def __init__(self, after):
    self._left = after + 1

  def due(self):
    self._left -= 1
    return self._left <= 0


def test_a_run_goes_round_what_made_it_diverge(tmp_path, monkeypatch):
  """Unbroken, stopped anywhere, or told beforehand: the same run."""
  with monkeypatch.context() as patch:
    _poisoned(patch, (4, 5), _nan)
    unbroken = _end(_config(), tmp_path / 'unbroken')
    went = rollbacks.read(tmp_path / 'unbroken')
    assert [(one.at, one.to, one.draw) for one in went] == [
      (5, 4, 5),
      (5, 4, 6),
    ]
    assert 'is nan' in went[0].reason
    for after in 3, 5:  # before trouble, and in the midst of it
      workdir = tmp_path / f'stopped{after}'
      with patch.context() as stops:
        stops.setattr(cluster, 'StopRequest', lambda n=after: _StopsAfter(n))
        with pytest.raises(cli.Preempted):
          training.train(_config(), workdir)
      chex.assert_trees_all_equal(_end(_config(), workdir), unbroken)
      assert rollbacks.read(workdir) == went
  told = tmp_path / 'told'
  told.mkdir()
  rollbacks.write(told, went)
  chex.assert_trees_all_equal(_end(_config(), told), unbroken)


def test_a_collapsed_run_goes_back(tmp_path, monkeypatch, capsys):
  """With finite numbers all the way."""
  _poisoned(monkeypatch, (60,), lambda leaf: 0 * leaf)
  config_ = _config(
    steps=80,
    eval_every=80,
    checkpoint_every=20,
    recovery=config.Recovery(window=10, remains=0.5),
  )
  _, lines = _end(config_, tmp_path)
  (one,) = rollbacks.read(tmp_path)
  assert one.to == 40 and 60 < one.at <= 71
  assert 'has collapsed' in one.reason
  assert f'{one.reason} at step {one.at}; going back' in capsys.readouterr().err
  assert lines[-1]['eval/biggest/top1'] > 0.3


def test_a_run_that_keeps_diverging_gives_up(tmp_path, monkeypatch):
  config_ = _config(recovery=config.Recovery(tries=2))
  with monkeypatch.context() as patch:
    _poisoned(patch, range(5, 100), _nan)
    with pytest.raises(cli.Failed, match='diverged 3 times after step 4') as no:
      training.train(config_, tmp_path)
  assert 'schedule.peak' in str(no.value)
  assert no.value.result['step'] == 4
  assert len(no.value.result['rollbacks']) == 3
  steps = {int(p.name) for p in (tmp_path / 'checkpoints').iterdir()}
  assert max(steps) == 4
  before = sorted(tmp_path.rglob('*'))
  with pytest.raises(cli.Failed, match='diverged 3 times'):  # at once
    training.train(config_, tmp_path)
  assert sorted(tmp_path.rglob('*')) == before


@pytest.mark.parametrize('every', [4, 8])  # in the midst, and the last
def test_an_evaluation_that_was_cut_short_is_made_up_for(
  tmp_path, monkeypatch, every
):
  config_ = _config(eval_every=every)
  whole = _end(config_, tmp_path / 'whole')

  class Killed(Exception):
    pass

  def dies(*_):
    raise Killed

  with monkeypatch.context() as patch:
    patch.setattr(training._Run, 'evaluate', dies)
    with pytest.raises(Killed):
      training.train(config_, tmp_path / 'cut')
  chex.assert_trees_all_equal(_end(config_, tmp_path / 'cut'), whole)


# A full disk.

_FULL = """
import sys
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
import pathlib
import test_recovery
from bignas_jax import cli, training
sys.exit(cli.status(
  lambda _: training.train(test_recovery._config(), pathlib.Path(sys.argv[1])),
  [],
))
"""


def test_a_full_disk_ends_the_run_with_one_line(tmp_path):
  """No file can grow beyond a size that arrays of a later save need."""
  state = jax.jit(programs.init_state(config.setup(_config())))()
  checkpoints = checkpoint.Checkpoints(tmp_path / 'room')
  checkpoints.save(2, state)
  checkpoints.close()
  size = _biggest(tmp_path / 'room' / 'checkpoints' / '2').stat().st_size
  path = os.pathsep.join([str(ROOT), str(ROOT / 'tests')])
  ended = subprocess.run(
    [sys.executable, '-c', _FULL, tmp_path / 'run', str(size - 1)],
    env=os.environ | {'PYTHONPATH': path},
    capture_output=True,
    text=True,
  )
  assert ended.returncode == 1, ended.stderr
  assert 'Traceback' not in ended.stderr
  (line,) = [x for x in ended.stderr.splitlines() if x.startswith('error: ')]
  assert 'no room for checkpoint 2' in line and 'File too large' in line
  assert 'make room and start again' in line


def test_only_a_full_disk_is_one():
  assert files.no_room(OSError(28, 'No space left on device'))
  assert files.no_room(ValueError("... [os_error_code='28']"))
  assert not files.no_room(OSError(13, 'Permission denied'))
  assert not files.no_room(ValueError("... [os_error_code='13']"))
  assert not files.no_room(ValueError('shapes differ'))
