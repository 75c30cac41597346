"""A run: resumed equals uninterrupted, and its directory keeps its promises."""

import json
import signal

import chex
import jax
import pytest
import tiny

from bignas_jax.runs import checkpoints as checkpoints_lib
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import metrics
from bignas_jax.supernet import evaluation
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.system import stopping
from bignas_jax.training import loop, states
from bignas_jax.values import errors

pytestmark = pytest.mark.usefixtures('compiled_once')


def _config(**changes):
  return tiny.config(space=tiny.QUICK_TWO, **changes)


def _state(workdir, config):
  checkpoints = checkpoints_lib.Checkpoints(workdir)
  setup = config_lib.setup(config)
  try:
    return jax.device_get(states.restore_or_init(setup, checkpoints)[0])
  finally:
    checkpoints.close()


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """Six steps without a break."""
  workdir = tmp_path_factory.mktemp('whole')
  result = loop.train(_config(), workdir)
  return workdir, result


class _StopsAfter(stopping.StopRequest):
  """As if a signal had come during step `after`."""

  def __init__(self, after: int):
    self._left = after + 1  # it is asked once before the first step

  def due(self) -> bool:
    self._left -= 1
    return self._left <= 0


@pytest.mark.parametrize('after', [pytest.param(1, marks=pytest.mark.slow), 5])
def test_a_stopped_run_ends_as_an_uninterrupted_one(
  whole, tmp_path, monkeypatch, after
):
  with monkeypatch.context() as patch:
    patch.setattr(stopping, 'StopRequest', lambda: _StopsAfter(after))
    with pytest.raises(errors.Preempted, match=f'saved step {after} of 6'):
      loop.train(_config(), tmp_path)
  again = _config()
  again.data.workers, again.data.prefetch = 3, 1
  result = loop.train(again, tmp_path)
  _assert_same_run(whole, tmp_path, result)


@pytest.mark.parametrize('every', [2, 3])
def test_a_signal_during_an_evaluation_stops_it(tmp_path, monkeypatch, every):
  """Its step is saved, if it was not, and evaluated when the run goes on."""
  score = evaluation.Evaluator.score

  def signalled(self, params, arch):
    signal.raise_signal(signal.SIGTERM)
    return score(self, params, arch)

  config = tiny.config(
    space=tiny.QUICK,
    policy='alone',
    eval_every=3,
    checkpoint_every=every,
  )
  with monkeypatch.context() as patch:
    patch.setattr(evaluation.Evaluator, 'score', signalled)
    for _ in range(2):
      with pytest.raises(errors.Preempted, match='to be evaluated'):
        loop.train(config, tmp_path)
      assert checkpoints_lib.Checkpoints(tmp_path).latest() == 3
  loop.train(config, tmp_path)
  evaluated = [
    line['step']
    for line in metrics.read(tmp_path)
    if 'eval/biggest/top1' in line
  ]
  assert evaluated == [3, 6]


def test_a_killed_run_ends_as_an_uninterrupted_one(
  whole, tmp_path, monkeypatch
):
  class Killed(Exception):
    pass

  put, calls = mesh_lib.put, []

  def dies(mesh, tree, spec):
    if isinstance(tree, dict) and len(tree.get('label', ())) == 16:
      calls.append(1)
      if len(calls) == 4:  # step 3; the last checkpoint is that of step 2
        raise Killed
    return put(mesh, tree, spec)

  with monkeypatch.context() as patch:
    patch.setattr(mesh_lib, 'put', dies)
    with pytest.raises(Killed):
      loop.train(_config(), tmp_path)
  result = loop.train(_config(), tmp_path)
  _assert_same_run(whole, tmp_path, result)


def _assert_same_run(whole, workdir, result):
  wanted, wanted_result = whole
  chex.assert_trees_all_equal(
    _state(wanted, _config()), _state(workdir, _config())
  )
  assert result | {'workdir': ''} == wanted_result | {'workdir': ''}
  assert tiny.numbers(workdir) == tiny.numbers(wanted)


def test_metrics_have_the_promised_names(whole):
  workdir, result = whole
  lines = metrics.read(workdir)
  assert [line['step'] for line in lines] == [1, 2, 3, 4, 5, 6, 6]
  for role in ('biggest', 'smallest', 'random'):
    assert f'train/loss_{role}' in lines[0]
  assert {'lr', 'images_per_s'} <= set(lines[0])
  assert lines[-1]['eval/biggest/top1'] == result['eval/biggest/top1']
  assert list(workdir.glob('events.out.*'))
  info = json.loads((workdir / 'config.json').read_text())
  assert info['seed'] == 0 and info['version']
  steps = {int(path.name) for path in (workdir / 'checkpoints').iterdir()}
  assert steps == {2, 4, 6}


def test_a_finished_run_is_evaluated_again(whole):
  workdir, result = whole
  assert loop.train(_config(), workdir) == result


def test_another_config_is_refused_by_field(whole):
  workdir, _ = whole
  before = sorted(workdir.rglob('*'))
  changed = _config(seed=1, batch_size=32)
  with pytest.raises(errors.UserError) as refused:
    loop.train(changed, workdir)
  assert 'batch_size (16 there, 32 here)' in str(refused.value)
  assert 'seed (0 there, 1 here)' in str(refused.value)
  assert sorted(workdir.rglob('*')) == before


def test_a_second_run_in_the_same_directory_is_refused(whole):
  from bignas_jax.runs import directory

  other = pytest.raises(errors.UserError, match='no other run')
  with directory.lock(whole[0]), other:
    loop.train(_config(), whole[0])


def test_only_parameters_are_read_for_use(whole):
  workdir, _ = whole
  state = _state(workdir, _config())
  like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), state)
  mesh = mesh_lib.create()
  like = mesh_lib.described(mesh, like.params, mesh_lib.REPLICATED)
  step, params = checkpoints_lib.restore_params(workdir, like, 'params')
  assert step == 6
  chex.assert_trees_all_equal(jax.device_get(params), state.params)


def test_averaged_parameters_are_kept_and_used(tmp_path):
  from bignas_jax.runs import restore

  config = tiny.config(space=tiny.QUICK, ema_decay=0.5, steps=2, eval_every=2)
  loop.train(config, tmp_path)
  state = _state(tmp_path, config)
  run = restore.load(tmp_path)
  chex.assert_trees_all_equal(jax.device_get(run.params), state.ema)
  kernels = state.ema['stem']['conv'], state.params['stem']['conv']
  assert (kernels[0]['kernel'] != kernels[1]['kernel']).any()


def test_bfloat16_keeps_float32_parameters(tmp_path):
  config = tiny.config(
    space=tiny.QUICK, dtype='bfloat16', steps=2, eval_every=2
  )
  loop.train(config, tmp_path)
  dtypes = {leaf.dtype for leaf in jax.tree.leaves(_state(tmp_path, config))}
  assert {str(d) for d in dtypes} == {'float32', 'int32'}
  losses = [m['train/loss_biggest'] for m in metrics.read(tmp_path)[:2]]
  assert all(loss is not None and loss < 10 for loss in losses)
