"""Training in a process of its own, which a test may kill; and its configs.

The process imports this module, so it imports little.
"""

import os
import pathlib
import re
import subprocess
import sys
import time

import jax
import tiny

from bignas_jax.methods import programs
from bignas_jax.runs import config

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = """
import sessions

get_config = sessions.{name}
"""
# Draws that make a run diverge: two in a row, and a later one.
POISON = (12, 13, 60)


def run_config():
  return tiny.config(
    space=tiny.QUICK,
    policy=os.environ.get('TEST_POLICY', 'sandwich'),
    steps=int(os.environ.get('TEST_STEPS', '20')),
    eval_every=10,
    checkpoint_every=5,
    keep_checkpoints=2,
  )


def get_config():
  """What the processes get: some draws poison the parameters they meet."""
  policy, step, draws = config.policy, programs.step, []

  def noting_policy(config_, *predicted):
    inner = policy(config_, *predicted)

    def sample(state, seed, draw, score):
      draws.append(draw)
      return inner.sample(state, seed, draw, score)

    return inner._replace(sample=sample)

  def poisoned_step(setup, compiled, state, batch, children, norms):
    if draws[-1] in POISON:
      params = jax.tree.map(lambda leaf: leaf * float('nan'), state.params)
      state = state._replace(params=params)
    return step(setup, compiled, state, batch, children, norms)

  config.policy, programs.step = noting_policy, poisoned_step
  return run_config()


def compiling_config():
  """Compiles for a minute."""
  programs.compile_all = lambda listed: time.sleep(60)
  return run_config()


class Session:
  """One process that trains, from its start to its end."""

  def __init__(self, directory, steps, name='get_config'):
    self.workdir = directory / 'run'
    self._log = (directory / 'log').open('w+')
    file = directory / 'config.py'
    file.write_text(CONFIG.format(name=name))
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
    """How many steps it has norms."""
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
