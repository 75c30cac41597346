"""A run that diverges is rolled back, and resuming it changes nothing."""

import dataclasses
import itertools
import json
import math
import pathlib

import chex
import jax
import numpy as np
import pytest
import tiny
from etils import epath

from bignas_jax.methods import programs
from bignas_jax.runs import checkpoints as checkpoints_lib
from bignas_jax.runs import config, restore, rollbacks
from bignas_jax.runs.rollbacks import Rollback
from bignas_jax.system import files, stopping
from bignas_jax.training import loop, recovery, states
from bignas_jax.training.divergence import Detector, Diverged
from bignas_jax.values import errors
from configs import alpha_net

ROOT = pathlib.Path(__file__).parents[2]


pytestmark = pytest.mark.usefixtures('compiled_once')


# Trouble.


def _look(detector, values, start=0):
  for step, top1 in enumerate(values, start + 1):
    detector.look(step, [('biggest', 1.0, 1.0)], top1)


RISING = list(np.linspace(0.1, 0.8, 40))


def test_a_collapse_is_noticed_within_a_window():
  detector = Detector(0.1, window=10, remains=0.2)
  _look(detector, RISING)
  with pytest.raises(Diverged, match='collapsed: training top-1 0') as seen:
    _look(detector, [0.1] * 10, 40)
  assert 45 < seen.value.step <= 50
  assert seen.value.late == 10


def test_a_collapse_names_the_child_that_shows_it():
  detector = Detector(0.1, window=10, remains=0.2)
  _look(detector, RISING)
  with pytest.raises(Diverged, match='the random child has collapsed'):
    for step in range(41, 51):
      detector.look(step, [('random', 1.0, 1.0)], 0.1, 'random')


def test_what_is_no_collapse():
  detector = Detector(0.1, window=10, remains=0.2)
  _look(detector, [0.1] * 50)  # has not learned yet
  _look(detector, [*RISING, *([0.35] * 20)])  # worse, but not at chance
  _look(detector, [*([0.8] * 10), *([0.0] * 5), *([0.8] * 10)])  # bad batches
  off = Detector(0.1, window=10, remains=0.0)
  _look(off, [*RISING, *([0.1] * 50)])


@pytest.mark.parametrize('cut', [3, 25, 44])
def test_a_resumed_watch_sees_what_an_unbroken_one_sees(cut):
  values = RISING + [0.1] * 10
  whole, first = (Detector(0.1, 10, 0.2) for _ in range(2))
  with pytest.raises(Diverged) as seen:
    _look(whole, values)
  _look(first, values[:cut])
  memory = json.loads(json.dumps(first.memory()))
  with pytest.raises(Diverged) as again:
    _look(Detector(0.1, 10, 0.2, memory), values[cut:], cut)
  assert again.value.args == seen.value.args


@pytest.mark.parametrize('number', [math.nan, math.inf])
def test_numbers_that_are_not_finite(number):
  detector = Detector(0.1, window=10, remains=0.2)
  fine = ('biggest', 1.0, 1.0)
  with pytest.raises(Diverged, match=r'loss of a child \(random\) is'):
    detector.look(7, [fine, ('random', number, 1.0)], 0.5)
  with pytest.raises(Diverged, match=r'gradient of a child \(random\) is'):
    detector.look(7, [fine, ('random', 1.0, number)], 0.5)
  with pytest.raises(Diverged, match='norm of the parameters is'):
    detector.look(7, [fine], 0.5, weight_norm=number)


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
  following = itertools.islice(rollbacks.draws(went, 3), 4)
  assert list(following) == [rollbacks.draw(went, s) for s in (3, 4, 5, 6)]


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

  def noting(*given):
    inner = policy(*given)

    def sample(state, seed, draw, score):
      now[0] = draw
      return inner.sample(state, seed, draw, score)

    return inner._replace(sample=sample)

  def poisoned(setup, compiled, state, batch, children, norms):
    if now[0] in draws:
      state = state._replace(params=jax.tree.map(poison, state.params))
    return step(setup, compiled, state, batch, children, norms)

  monkeypatch.setattr(config, 'policy', noting)
  monkeypatch.setattr(programs, 'step', poisoned)


def test_norms_are_computed_of_steps_that_are_logged_or_saved(
  monkeypatch, tmp_path
):
  """So no run goes back to parameters that are not finite."""
  step, asked = programs.step, []

  def noting(*given):
    asked.append(given[-1])
    return step(*given)

  monkeypatch.setattr(programs, 'step', noting)
  every = {'log_every': 4, 'checkpoint_every': 3, 'eval_every': 7}
  made = tiny.config(space=tiny.QUICK, steps=7, **every)
  loop.train(made, epath.Path(tmp_path / 'run'))
  assert [n for n, one in enumerate(asked, 1) if one] == [3, 4, 6, 7]


def _nan(leaf):
  return leaf * float('nan')


def _config(**changes):
  changes = {'steps': 8, 'eval_every': 8} | changes
  return tiny.config(space=tiny.QUICK, **changes)


CONFIG = _config()


def _end(config_, workdir):
  """(state, norms lines without what tells of the machine) of a run."""
  loop.train(config_, workdir)
  setup, checkpoints = (
    config.setup(config_),
    checkpoints_lib.Checkpoints(workdir),
  )
  state = jax.device_get(states.restore_or_init(setup, checkpoints)[0])
  checkpoints.close()
  return state, tiny.numbers(workdir)


class _StopsAfter(stopping.StopRequest):
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
    workdir = tmp_path / 'stopped'
    with patch.context() as stops:  # in the midst of trouble
      stops.setattr(stopping, 'StopRequest', lambda: _StopsAfter(5))
      with pytest.raises(errors.Preempted):
        loop.train(_config(), workdir)
    chex.assert_trees_all_equal(_end(_config(), workdir), unbroken)
    assert rollbacks.read(workdir) == went
  told = tmp_path / 'told'
  told.mkdir()
  rollbacks.write(told, went)
  chex.assert_trees_all_equal(_end(_config(), told), unbroken)


def _learning(monkeypatch):
  """Gives the policy a state: how often its children were trained, and lost."""
  policy = config.policy

  def init(seed):
    return {'seen': np.zeros(2, np.int64), 'loss': np.full(1, seed / 3)}

  def learning(*given):
    inner = policy(*given)

    def sample(state, seed, draw, score):
      # What was measured decides what is drawn.
      lost = int(state['loss'][0] * 2**40) % 1000
      return inner.sample({}, seed + int(state['seen'].sum()), lost, score)

    def update(state, children, measured):
      sizes = [child.arch.resolution for child in children]
      wide = sum(child.arch.width[1] > 8 for child in children)
      loss = sum(float(numbers['loss']) for numbers in measured)
      assert len(measured) == len(sizes)
      seen = state['seen'] + [wide, len(sizes) - wide]
      return {'seen': seen, 'loss': state['loss'] / 2 + loss}

    return inner._replace(init=init, sample=sample, update=update)

  monkeypatch.setattr(config, 'policy', learning)


ATTENTIVE = _config(
  policy='best_up',
  candidates=2,
  rule=dataclasses.replace(CONFIG.rule, edges=alpha_net.EDGES),
)


def _learnt(workdir):
  setup = config.setup(ATTENTIVE)
  checkpoints = checkpoints_lib.Checkpoints(workdir)
  _, of_policy = states.restore_or_init(setup, checkpoints)
  checkpoints.close()
  return of_policy


def test_a_policys_state_is_saved_resumed_and_rolled_back(
  tmp_path, monkeypatch
):
  """With trouble in the middle; unbroken, stopped, or told beforehand.

  The recipe is AttentiveNAS's choice of children with AlphaNet's loss.
  """
  _learning(monkeypatch)
  policy = config.policy
  with monkeypatch.context() as patch:
    # Draws are noted by the outermost policy.
    _poisoned(patch, (3,), _nan)
    unbroken = _end(ATTENTIVE, tmp_path / 'unbroken')
    learnt = _learnt(tmp_path / 'unbroken')
    (went,) = rollbacks.read(tmp_path / 'unbroken')
    assert (went.at, went.to, went.draw) == (4, 2, 4)
    for after in 2, 5:
      workdir = tmp_path / f'stopped{after}'
      with patch.context() as stops:
        stops.setattr(stopping, 'StopRequest', lambda n=after: _StopsAfter(n))
        with pytest.raises(errors.Preempted):
          loop.train(ATTENTIVE, workdir)
      chex.assert_trees_all_equal(_end(ATTENTIVE, workdir), unbroken)
      chex.assert_trees_all_equal(_learnt(workdir), learnt)
  assert config.policy is policy
  told = tmp_path / 'told'
  told.mkdir()
  rollbacks.write(told, [went])
  chex.assert_trees_all_equal(_end(ATTENTIVE, told), unbroken)
  chex.assert_trees_all_equal(_learnt(told), learnt)
  # Of eight steps of four children, without those of the skipped draws.
  assert learnt['seen'].sum() == 32 and learnt['seen'].dtype == np.int64
  assert (
    learnt['loss'].dtype == np.float64 and np.isfinite(learnt['loss']).all()
  )
  assert isinstance(learnt['seen'], np.ndarray)
  # Other commands read the network of such a run as of any.
  assert restore.load(epath.Path(told)).step == 8


def test_a_policy_without_a_state_adds_nothing_to_a_checkpoint():
  setup = config.setup(CONFIG)
  assert setup.policy.init(0) == {}
  state = jax.eval_shape(lambda: 0)
  assert states.joined(state, {}) is state


def test_a_collapsed_run_goes_back(tmp_path, monkeypatch, capsys):
  """With finite numbers all the way."""
  _poisoned(monkeypatch, (60,), lambda leaf: 0 * leaf)
  config_ = _config(
    steps=100,
    eval_every=100,
    checkpoint_every=20,
    # Of 16 images a step: fewer of them would now and then be at chance.
    recovery=config.Recovery(window=20, remains=0.2),
  )
  _, lines = _end(config_, tmp_path)
  (one,) = rollbacks.read(tmp_path)
  assert one.to == 40 and 60 < one.at <= 81
  assert 'has collapsed' in one.reason
  assert f'{one.reason} at step {one.at}; going back' in capsys.readouterr().err
  assert lines[-1]['eval/biggest/top1'] > 0.3
  card = files.read_json(tmp_path / 'run.json')
  # It was noticed up to two steps later, and those are trained again, too.
  assert 0 <= card['repeated_steps'] - (one.at - one.to) <= 2
  assert 0 < card['seconds']['repeated'] < card['seconds']['training']


def test_a_run_that_keeps_diverging_gives_up(tmp_path, monkeypatch):
  config_ = _config(recovery=config.Recovery(tries=2))
  with monkeypatch.context() as patch:
    _poisoned(patch, range(5, 100), _nan)
    with pytest.raises(
      errors.Failed, match='diverged 3 times after step 4'
    ) as no:
      loop.train(config_, tmp_path)
  assert 'schedule.peak' in str(no.value)
  assert no.value.result['step'] == 4
  assert len(no.value.result['rollbacks']) == 3
  steps = {int(p.name) for p in (tmp_path / 'checkpoints').iterdir()}
  assert max(steps) == 4
  before = sorted(tmp_path.rglob('*'))
  with pytest.raises(errors.Failed, match='diverged 3 times'):  # at once
    loop.train(config_, tmp_path)
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
    patch.setattr(loop._Run, 'evaluate', dies)
    with pytest.raises(Killed):
      loop.train(config_, tmp_path / 'cut')
  chex.assert_trees_all_equal(_end(config_, tmp_path / 'cut'), whole)
