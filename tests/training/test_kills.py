"""A run that is killed again and again ends as if nothing had happened.

Every session is the real command in a process of its own. The kills are drawn
by a seed; where they hit is what was found afterwards, and is counted.
"""

import collections
import dataclasses
import json
import random
import shutil
import signal
import time

import chex
import jax
import pods
import pytest
import sessions
import tiny

from bignas_jax.methods import step as step_lib
from bignas_jax.runs import checkpoints as checkpoints_lib
from bignas_jax.runs import config, rollbacks
from bignas_jax.runs import directory as directory_lib
from bignas_jax.system import digests
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.values import errors

# Where the kills are aimed, in turn.
PLACES = ('start', 'save', 'between', 'save')


def strike(session, how, mesh, rng):
  """Kills a process around some place; the phase that it was in, or None."""
  if mesh == 'start':
    time.sleep(rng.uniform(0, 5))
  else:
    after = session.steps() + rng.randint(1, 8)
    if not session.wait_until(lambda: session.steps() >= after):
      return None
  if mesh == 'save' and not session.wait_until(session.saving):
    return None
  time.sleep(rng.choice([0, rng.uniform(0, 0.05)]))
  saving = session.saving()
  session.process.send_signal(how)
  status = session.end()
  log = session.log()
  if status == 0:
    return None
  if how == signal.SIGKILL:
    assert status == -how, log
    saving = session.saving()
  else:  # -15: so early that Python was still importing
    assert status == 75 or (status == -how and not log), (status, log)
  assert 'Traceback' not in log and 'warning: checkpoint' not in log, log
  if saving:
    return 'in mid-save'
  return 'between' if session.steps() else 'before the first step'


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
    mesh = places[tally.total() % len(places)]
    session = sessions.Session(directory, steps)
    phase = strike(session, how, mesh, rng)
    assert phase, f'over after {tally.total()} kills: {session.log()}'
    tally[how.name, phase] += 1
    now = newest_whole(directory / 'run')
    went = len(rollbacks.read(directory / 'run'))
    print(f'kill {tally.total()}: {how.name} {phase}; step {now}, {went} back')
    assert now >= reached, 'a checkpoint was lost'
    reached = now
  return tally


def finish(directory, steps):
  session = sessions.Session(directory, steps)
  assert session.end() == 0, session.log()
  return session.workdir


def state_of(run, steps):
  config_ = dataclasses.replace(sessions.run_config(), steps=steps)
  setup = config.setup(config_, mesh_lib.create(jax.devices()[:1]))
  shapes = jax.eval_shape(step_lib.init_state(setup))
  like = mesh_lib.described(setup.model.mesh, shapes, mesh_lib.REPLICATED)
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
  assert [draw for draw in sessions.POISON if draw < steps] == [
    one.draw - 1 for one in went
  ]


def test_a_kill_changes_nothing(tmp_path, monkeypatch):
  """Of one network, which compiles faster; the slow test trains a sandwich."""
  monkeypatch.setenv('TEST_POLICY', 'alone')
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  whole.mkdir()
  killed.mkdir()
  finish(whole, 20)
  shutil.copytree(whole / 'run/compiled', killed / 'run/compiled')
  under_kills(killed, kills=1, seed=3, steps=20, places=['save'])
  with directory_lib.lock(killed / 'run'):
    pass  # it is free, in whichever way its run has gone
  assert_equal_runs(whole / 'run', finish(killed, 20), 20)


def test_sigterm_does_not_wait_for_a_compilation(tmp_path):
  session = sessions.Session(tmp_path, 20, 'compiling_config')
  assert session.wait_until(lambda: '20 steps of' in session.log())
  time.sleep(0.5)
  refused = pytest.raises(errors.UserError, match='no other run is using')
  with refused, directory_lib.lock(session.workdir):
    pass
  sent = time.monotonic()
  session.process.send_signal(signal.SIGTERM)
  assert session.end() == 75
  assert time.monotonic() - sent < 20
  card = json.loads((session.workdir / 'run.json').read_text())
  assert card['status'] == card['sittings'][-1]['status'] == 'preempted'
  with directory_lib.lock(session.workdir):
    pass


@pytest.mark.slow
def test_processes_agree_on_damage_and_rollbacks(tmp_path):
  """Two processes: a run with trouble; then again from a damaged end of it."""
  states, lines = [], []
  for again in False, True:
    file = tmp_path / 'config.py'
    file.write_text(sessions.CONFIG.format(name='get_config'))
    run = tmp_path / 'run'
    if again:
      shutil.rmtree(run / 'checkpoints' / '20')
      shutil.rmtree(run / 'checkpoints' / '15' / 'default' / 'd')
    pod = pods.launch(
      *(2, 1, '-m', 'bignas_jax.main'),
      *(f'--config={file}', f'--workdir={run}'),
    )
    status, _, err, others = pods.outcome(pod)
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
