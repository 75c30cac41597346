"""Two processes train; one is killed, stopped, or has no room on its disk.

The other one must end soon, and say why; both, started again, must end as if
nothing had happened.
"""

import collections
import os
import random
import resource
import shutil
import signal
import time

import pods
import pytest
import sessions
import test_kills

EVENTS = int(os.environ.get('FAULT_EVENTS', '20'))
SEED = int(os.environ.get('FAULT_SEED', '0'))
# Most seconds until the other process has ended; a stop lasts as long.
SOON_S = 60
STEP = r'^(\[1\] )?step \d+: loss'
LOST = r'^(\[1\] )?error: another process of the run is gone'
FULL = r'^(\[1\] )?error: no room for '


def started(directory, steps):
  file = directory / 'config.py'
  file.write_text(sessions.CONFIG.format(name='get_config'))
  return pods.members(
    ['-m', 'bignas_jax.main', f'--config={file}', f'--workdir={directory}/run'],
    TEST_STEPS=str(steps),
    TEST_POLICY='alone',
    XLA_FLAGS='--xla_backend_optimization_level=0',
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0',
  )


def log(pair):
  return '\n---\n'.join(member.log() for member in pair)


def wait_until(condition, pair, timeout=200):
  """Until it holds; False: a process has ended before."""
  deadline = time.monotonic() + timeout
  while not condition():
    if any(member.process.poll() is not None for member in pair):
      return False
    assert time.monotonic() < deadline, log(pair)
    time.sleep(0.002)
  return True


def saving(run):
  return any(run.glob('checkpoints/*.orbax-checkpoint-tmp*'))


def come_to(moment, pair, run, rng):
  """Waits until a random moment of the kind; False: the run is over."""
  joined = [lambda m=m: m.says(r'steps of \d+ images') > 0 for m in pair]
  if not all(wait_until(one, pair) for one in joined):
    return False
  if moment == 'compiling':
    time.sleep(rng.uniform(0, 3))
    return True
  after = pair[0].says(STEP) + rng.randint(1, 8)
  if not wait_until(lambda: pair[0].says(STEP) >= after, pair):
    return False
  if moment == 'saving' and not wait_until(lambda: saving(run), pair):
    return False
  time.sleep(rng.choice([0, rng.uniform(0, 0.05)]))
  return True


def one_line(member, *patterns):
  """It has ended by itself, and one line says why."""
  assert member.status == 1, member.log()
  assert sum(member.says(one) for one in patterns) == 1, member.log()
  assert 'Traceback' not in member.log(), member.log()


def kill(victim, other, rng):
  del rng
  victim.process.kill()
  assert other.end(SOON_S) is not None, other.log()
  one_line(other, LOST)
  victim.end(5)
  assert victim.status == -signal.SIGKILL


def stop(victim, other, rng):
  """For a minute; the other may not wait so long."""
  del rng
  victim.process.send_signal(signal.SIGSTOP)
  since = time.monotonic()
  other.end(SOON_S)
  time.sleep(max(0, SOON_S - (time.monotonic() - since)))
  victim.process.send_signal(signal.SIGCONT)
  assert other.status is not None, other.log()
  one_line(other, LOST)
  assert victim.end(SOON_S) is not None, victim.log()
  one_line(victim, LOST)


def fill(victim, other, rng):
  """No file of the victim may be longer, as if its disk were full."""
  limit = rng.choice([0, 100, 1000])
  hard = resource.prlimit(victim.process.pid, resource.RLIMIT_FSIZE)[1]
  resource.prlimit(victim.process.pid, resource.RLIMIT_FSIZE, (limit, hard))
  assert victim.end(SOON_S) is not None, victim.log()
  one_line(victim, FULL)
  assert other.end(SOON_S) is not None, other.log()
  one_line(other, LOST)


KINDS = {'kill': kill, 'stop': stop, 'full disk': fill}
MOMENTS = 'compiling', 'saving', 'between', 'saving'


def under_faults(directory, events, seed, steps):
  """A run with so many faults: the counts of (kind, process, moment)."""
  rng, tally = random.Random(seed), collections.Counter()
  reached = 0
  while tally.total() < events:
    kind = rng.choice(sorted(KINDS))
    moment, which = MOMENTS[tally.total() % len(MOMENTS)], rng.randint(0, 1)
    pair = started(directory, steps)
    try:
      assert come_to(moment, pair, directory / 'run', rng), log(pair)
      began = time.monotonic()
      KINDS[kind](pair[which], pair[1 - which], rng)
      took = time.monotonic() - began
    finally:
      for member in pair:
        member.process.kill()
        member.end(10)
    tally[kind, which, moment] += 1
    now = test_kills.newest_whole(directory / 'run')
    print(
      f'event {tally.total()}: {kind} of process {which}, {moment}; both ended '
      f'after {took:.1f} s, checkpoint {now}',
      flush=True,
    )
    assert now >= reached, 'a checkpoint was lost'
    reached = now
  return tally


def finish(directory, steps):
  pair = started(directory, steps)
  for member in pair:
    assert member.end(600) == 0, log(pair)
  return directory / 'run'


def test_a_killed_process_ends_the_other_and_leaves_what_was_saved(tmp_path):
  """The slow test also starts both again, after every kind of loss."""
  pair = started(tmp_path, steps=10_000)
  saved = tmp_path / 'run' / 'checkpoints' / '5'
  try:
    assert wait_until(saved.exists, pair), log(pair)
    kill(pair[1], pair[0], None)
  finally:
    for member in pair:
      member.process.kill()
      member.end(10)
  assert test_kills.newest_whole(tmp_path / 'run') >= 5


@pytest.mark.slow
def test_lost_processes_change_nothing(tmp_path):
  steps = max(40, 10 * EVENTS)
  whole, faulty = tmp_path / 'whole', tmp_path / 'faulty'
  whole.mkdir()
  faulty.mkdir()
  finish(whole, steps)
  shutil.copytree(whole / 'run/compiled', faulty / 'run/compiled')
  tally = under_faults(faulty, EVENTS, SEED, steps)
  test_kills.assert_equal_runs(whole / 'run', finish(faulty, steps), steps)
  for event, count in sorted(tally.items()):
    print(count, 'x', *event)
