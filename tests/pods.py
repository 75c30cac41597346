"""Runs of several processes on this machine, and the configs that they get.

The processes import this module, so it imports little.
"""

import dataclasses
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

import jax
import tiny

from bignas_jax.data import sources
from bignas_jax.methods import loss_graph, programs
from bignas_jax.policies import parsec
from bignas_jax.training import states

ROOT = pathlib.Path(__file__).parents[1]
STEPS = 8
_load = sources.load

# What the configs below are called in the processes' own arguments.
_CONFIG = """
import pods

get_config = pods.{name}
"""


def interleaved_config(**changes):
  """Two processes take turns in the mesh, as hosts of a pod may."""
  make = jax.make_mesh

  def make_mesh(*arguments, devices, **named):
    return make(*arguments, devices=[*devices[::2], *devices[1::2]], **named)

  jax.make_mesh = make_mesh
  return plain_config(**changes)


def plain_config(**changes):
  """A few steps of a network that is traced quickly, at two resolutions."""
  usual = {'steps': STEPS, 'eval_every': STEPS, 'checkpoint_every': STEPS}
  return tiny.config(space=tiny.QUICK_TWO, **usual | changes)


def learning_config():
  """Learns on a second split, and loses blocks of single images."""
  space = dataclasses.replace(tiny.LOOP, resolution=(8,), train_resolution=(8,))
  rule = loss_graph.Rule(
    edges=(loss_graph.Edge(student='random', teacher=loss_graph.LABEL),),
    regularised='random',
    dropout=0.0,
    drop_connect=0.8,
  )
  settings = parsec.Settings(samples=2, temperature=10.0, rate=0.5)
  changes = {'policy': 'parsec', 'parsec': settings, 'rule': rule}
  made = plain_config(**changes | {'steps': 3, 'eval_every': 3})
  data = dataclasses.replace(made.data, second=100)
  return dataclasses.replace(made, space=space, data=data)


def kept_config():
  return interleaved_config(checkpoint_every=1, keep_checkpoints=STEPS)


def longer_config():
  return plain_config(steps=2 * STEPS)


def slow_config():
  """The same, at a pace at which a signal comes between its steps.

  Only process 1 is slow, so process 0 is ahead as far as JAX lets it.
  """
  number = os.environ['JAX_PROCESS_ID']
  pathlib.Path(os.environ['TEST_PIDS'], number).write_text(str(os.getpid()))
  step = programs.step

  def slow_step(*arguments):
    time.sleep(0.5)
    return step(*arguments)

  if number == '1':
    programs.step = slow_step
  return interleaved_config()


def differing_config():
  return plain_config(seed=int(os.environ['JAX_PROCESS_ID']))


def missing_config():
  """Process 1 does not see the images that process 0 sees."""
  if os.environ['JAX_PROCESS_ID'] == '1':

    def without(data, channels):
      elsewhere = {'name': 'image_folder', 'directory': '/not/mounted'}
      return _load(dataclasses.replace(data, **elsewhere), channels)

    sources.load = without
  return plain_config()


def failing_config():
  """Process 1 fails where the other waits for it."""
  if os.environ['JAX_PROCESS_ID'] == '1':

    def fails(*_):
      raise OSError('the disk of process 1 is gone')

    states.restore_or_init = fails
    sources.load = _load  # `missing_config` may have come before
  return plain_config()


def launch(processes, devices, *command, **environment):
  """Starts the launcher; its output is read by `outcome`."""
  return subprocess.Popen(
    [
      *('launch/local_pod.sh', str(processes), str(devices), '--'),
      *(sys.executable, *command),
    ],
    cwd=ROOT,
    env=os.environ | {'PYTHONPATH': tiny.PATH} | environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def main(directory, name):
  """Arguments that train in directory/run by a config of this module."""
  file = directory / f'{name}.py'
  file.write_text(_CONFIG.format(name=name))
  workdir = directory / 'run'
  return '-m', 'bignas_jax.main', f'--config={file}', f'--workdir={workdir}'


def outcome(pod, timeout=300):
  """(status, stdout, stderr, stderr of the other processes)."""
  try:
    out, err = pod.communicate(timeout=timeout)
  finally:
    pod.terminate()
  logs = re.search(r'logs of the other processes: (.*)', err)
  others = ''
  if logs:
    files = sorted(pathlib.Path(logs[1]).iterdir())
    others = ''.join(file.read_text() for file in files)
    shutil.rmtree(logs[1])
  return pod.returncode, out, err, others


class Member:
  """A process of a run, without the launcher, which would end the others.

  Its output goes to a pipe: a file of it would count as the process's own where
  the disk of that process is full.
  """

  def __init__(self, command, port, index, **environment):
    self.index, self.lines, self.status = index, [], None
    place = {
      'JAX_PLATFORMS': 'cpu',
      'JAX_COORDINATOR_ADDRESS': f'localhost:{port}',
      'JAX_NUM_PROCESSES': '2',
      'JAX_PROCESS_ID': str(index),
    }
    self.process = subprocess.Popen(
      [sys.executable, *command],
      cwd=ROOT,
      env=tiny.environment() | place | environment,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
    )
    self._reader = threading.Thread(target=self._read, daemon=True)
    self._reader.start()

  def _read(self):
    assert self.process.stderr is not None
    with self.process.stderr as said:
      for line in said:
        self.lines.append(line.rstrip())

  def log(self):
    return '\n'.join(self.lines)

  def says(self, pattern):
    """How many of its lines match."""
    return sum(bool(re.search(pattern, line)) for line in [*self.lines])

  def end(self, timeout):
    """Its status, once it has ended; None: it has not, in this time."""
    try:
      self.status = self.process.wait(timeout)
    except subprocess.TimeoutExpired:
      return None
    self._reader.join(10)
    return self.status


def members(command, **environment):
  """Starts two processes of one run."""
  with socket.socket() as taken:
    taken.bind(('localhost', 0))
    port = taken.getsockname()[1]
  return [Member(command, port, index, **environment) for index in range(2)]
