"""A run that is killed again and again ends as if nothing had happened.

Every sitting is the real command in a process of its own. The kills are drawn
by a seed; where they hit is what was found afterwards, and is counted.
"""

import collections
import dataclasses
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import chex
import jax
import pytest
import test_cluster
import tiny

from bignas_jax.methods import programs
from bignas_jax.methods import step as step_lib
from bignas_jax.runs import checkpoints as checkpoints_lib
from bignas_jax.runs import config, rollbacks
from bignas_jax.runs import directory as directory_lib
from bignas_jax.system import digests, mesh
from bignas_jax.values import errors

ROOT = pathlib.Path(__file__).parents[1]
_CONFIG = """
import test_faults

get_config = test_faults.{name}
"""
# Draws that make a run diverge: two in a row, and a later one.
POISON = (12, 13, 60)
# Where the kills are aimed, in turn.
PLACES = ('start', 'save', 'between', 'save')


def run_config():
  return tiny.config(
    space=tiny.QUICK,
    steps=int(os.environ.get('TEST_STEPS', '20')),
    eval_every=10,
    checkpoint_every=5,
    keep_checkpoints=2,
  )


def get_config():
  """What the processes get: some draws poison the parameters they meet."""
  policy, step, draws = config.policy, programs.step, []

  def noting_policy(config_):
    inner = policy(config_)

    def call(space, seed, draw):
      draws.append(draw)
      return inner(space, seed, draw)

    return call

  def poisoned_step(setup, compiled, state, batch, children):
    if draws[-1] in POISON:
      params = jax.tree.map(lambda leaf: leaf * float('nan'), state.params)
      state = state._replace(params=params)
    return step(setup, compiled, state, batch, children)

  config.policy, programs.step = noting_policy, poisoned_step
  return run_config()


def compiling_config():
  """Compiles for a minute."""
  programs.compile_all = lambda listed: time.sleep(60)
  return run_config()


class Sitting:
  """One process that trains, from its start to its end."""

  def __init__(self, directory, steps, name='get_config'):
    self.workdir = directory / 'run'
    self._log = (directory / 'log').open('w+')
    file = directory / 'config.py'
    file.write_text(_CONFIG.format(name=name))
    flags = '--xla_backend_optimization_level=0'
    self.process = subprocess.Popen(
      [
        *(sys.executable, '-m', 'bignas_jax.main'),
        *(f'--config={file}', f'--workdir={self.workdir}'),
      ],
      cwd=ROOT,
      env=tiny.environment()
      | {
        'TEST_STEPS': str(steps),
        'XLA_FLAGS': flags,
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      },
      stdout=subprocess.DEVNULL,
      stderr=self._log,
    )

  def log(self):
    return pathlib.Path(self._log.name).read_text()

  def steps(self):
    """How many steps it has logged."""
    return len(re.findall(r'^step \d+: ', self.log(), re.M))

  def saving(self):
    """Whether it is; what an earlier one left half-done, it removes first."""
    return self.steps() > 0 and any(
      self.workdir.glob('checkpoints/*.orbax-checkpoint-tmp*')
    )

  def wait_until(self, condition, timeout=120):
    """Until it holds; False: the process has ended before."""
    deadline = time.monotonic() + timeout
    while not condition():
      if self.process.poll() is not None:
        return False
      assert time.monotonic() < deadline, self.log()
      time.sleep(0.002)
    return True

  def end(self):
    status = self.process.wait(120)
    self._log.close()
    return status


def strike(sitting, how, where, rng):
  """Kills a process around some place; the phase that it was in, or None."""
  if where == 'start':
    time.sleep(rng.uniform(0, 5))
  else:
    after = sitting.steps() + rng.randint(1, 8)
    if not sitting.wait_until(lambda: sitting.steps() >= after):
      return None
  if where == 'save' and not sitting.wait_until(sitting.saving):
    return None
  time.sleep(rng.choice([0, rng.uniform(0, 0.05)]))
  saving = sitting.saving()
  sitting.process.send_signal(how)
  status = sitting.end()
  log = sitting.log()
  if status == 0:
    return None
  if how == signal.SIGKILL:
    assert status == -how, log
    saving = sitting.saving()
  else:  # -15: so early that Python was still importing
    assert status == 75 or (status == -how and not log), (status, log)
  assert 'Traceback' not in log and 'warning: checkpoint' not in log, log
  if saving:
    return 'in mid-save'
  return 'between' if sitting.steps() else 'before the first step'


def newest_whole(run):
  """The newest step with a checkpoint that is intact; 0: none."""
  found = [
    int(path.name)
    for path in run.glob('checkpoints/*')
    if path.name.isdecimal() and digests.damage(path) is None
  ]
  return max(found, default=0)


def under_kills(directory, kills, seed, steps, places=PLACES):
  """A run that is killed so often: the counts of (signal, phase)."""
  rng, tally = random.Random(seed), collections.Counter()
  reached = newest_whole(directory / 'run')
  while tally.total() < kills:
    how = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
    where = places[tally.total() % len(places)]
    sitting = Sitting(directory, steps)
    phase = strike(sitting, how, where, rng)
    assert phase, f'over after {tally.total()} kills: {sitting.log()}'
    tally[how.name, phase] += 1
    now = newest_whole(directory / 'run')
    went = len(rollbacks.read(directory / 'run'))
    print(f'kill {tally.total()}: {how.name} {phase}; step {now}, {went} back')
    assert now >= reached, 'a checkpoint was lost'
    reached = now
  return tally


def finish(directory, steps):
  sitting = Sitting(directory, steps)
  assert sitting.end() == 0, sitting.log()
  return sitting.workdir


def state_of(run, steps):
  config_ = dataclasses.replace(run_config(), steps=steps)
  setup = config.setup(config_, mesh.mesh(jax.devices()[:1]))
  shapes = jax.eval_shape(step_lib.init_state(setup))
  like = mesh.described(setup.model.where, shapes, mesh.REPLICATED)
  checkpoints = checkpoints_lib.Checkpoints(run, 2, 5)
  state = checkpoints.restore(checkpoints.latest(), like)
  checkpoints.close()
  assert int(state.step) == steps
  return jax.device_get(state)


def assert_equal_runs(one, other, steps):
  """Bit for bit; times aside, also in what was logged and skipped."""
  chex.assert_trees_all_equal(state_of(one, steps), state_of(other, steps))
  assert tiny.numbers(one) == tiny.numbers(other)
  went = rollbacks.read(one)
  assert went == rollbacks.read(other)
  assert [draw for draw in POISON if draw < steps] == [
    one.draw - 1 for one in went
  ]


def test_a_few_kills_change_nothing(tmp_path):
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  whole.mkdir()
  killed.mkdir()
  finish(whole, 20)
  shutil.copytree(whole / 'run/compiled', killed / 'run/compiled')
  places = 'save', 'between'
  tally = under_kills(killed, kills=2, seed=3, steps=20, places=places)
  assert_equal_runs(whole / 'run', finish(killed, 20), 20)
  assert len({phase for _, phase in tally}) > 1


def test_sigterm_does_not_wait_for_a_compilation(tmp_path):
  """And a directory is free once its run has gone, in whichever way."""
  for how, status in (signal.SIGTERM, 75), (signal.SIGKILL, -9):
    sitting = Sitting(tmp_path, 20, 'compiling_config')
    assert sitting.wait_until(lambda s=sitting: '20 steps of' in s.log())
    time.sleep(0.5)
    refused = pytest.raises(errors.UserError, match='no other run is using')
    with refused, directory_lib.lock(sitting.workdir):
      pass
    sent = time.monotonic()
    sitting.process.send_signal(how)
    assert sitting.end() == status
    assert time.monotonic() - sent < 20
    card = json.loads((sitting.workdir / 'run.json').read_text())
    ended = 'preempted' if how == signal.SIGTERM else 'running'
    assert card['status'] == card['sittings'][-1]['status'] == ended
    with directory_lib.lock(sitting.workdir):
      pass
  assert 'stopped' not in sitting.log()


@pytest.mark.slow
def test_processes_agree_on_damage_and_rollbacks(tmp_path):
  """Two processes: a run with trouble; then again from a damaged end of it."""
  states, lines = [], []
  for again in False, True:
    file = tmp_path / 'config.py'
    file.write_text(_CONFIG.format(name='get_config'))
    run = tmp_path / 'run'
    if again:
      shutil.rmtree(run / 'checkpoints' / '20')
      shutil.rmtree(run / 'checkpoints' / '15' / 'default' / 'd')
    pod = test_cluster.launch(
      *(2, 1, '-m', 'bignas_jax.main'),
      *(f'--config={file}', f'--workdir={run}'),
    )
    status, _, err, others = test_cluster.outcome(pod)
    assert status == 0, err + others
    assert ('checkpoint 15 is damaged: default/d/' in err) == again
    states.append(state_of(run, 20))
    lines.append(rollbacks.read(run))
  chex.assert_trees_all_equal(*states)
  assert lines[0] == lines[1] and [one.at for one in lines[0]] == [13, 11]


@pytest.mark.slow
def test_fifty_kills_change_nothing(tmp_path):
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  whole.mkdir()
  killed.mkdir()
  finish(whole, 150)
  tally = under_kills(killed, kills=50, seed=0, steps=150)
  assert_equal_runs(whole / 'run', finish(killed, 150), 150)
  for (how, phase), count in sorted(tally.items()):
    print(f'{count} x {how} {phase}')
  for phase in ('before the first step', 'between', 'in mid-save'):
    hits = sum(n for (_, found), n in tally.items() if found == phase)
    assert hits >= 5, tally
