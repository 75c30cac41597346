"""Several processes of one run: the same parameters, and one set of files."""

import json
import os
import re
import resource
import shutil
import signal
import time

import chex
import jax
import numpy as np
import pods
import pytest
from jax.experimental import multihost_utils

from bignas_jax import evaluate, search
from bignas_jax.methods import step as step_lib
from bignas_jax.runs import checkpoints as checkpoints_lib
from bignas_jax.runs import config, metrics
from bignas_jax.system import cluster, process
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.training import loop, states
from bignas_jax.values import errors


def state_of(workdir, config_, step=None):
  """A checkpoint; the newest one, if no step is named."""
  setup, checkpoints = (
    config.setup(config_),
    checkpoints_lib.Checkpoints(workdir),
  )
  shapes = jax.eval_shape(step_lib.init_state(setup))
  like = mesh_lib.described(setup.model.mesh, shapes, mesh_lib.REPLICATED)
  state = checkpoints.restore(step or checkpoints.latest(), like)
  checkpoints.close()
  return jax.device_get(state)


@pytest.fixture(scope='module')
def paired(tmp_path_factory):
  """The directory and the result of two processes of two devices each.

  They were not interrupted, and wrote a checkpoint after each step.
  """
  directory = tmp_path_factory.mktemp('pair')
  pod = pods.launch(2, 2, *pods.main(directory, 'kept_config'))
  status, out, err, others = pods.outcome(pod)
  assert status == 0, err
  assert 'on 4 cpu device(s)' in err
  assert '{' not in others
  # Gloo greets on stdout.
  return directory / 'run', json.loads(out.splitlines()[-1])


@pytest.fixture(scope='module')
def pair(paired):
  return paired[0]


def test_two_processes_train_what_one_process_does(paired, tmp_path):
  """Two processes of two devices each are one process of four."""
  workdir, result = paired
  expected = loop.train(pods.plain_config(), tmp_path)
  assert result | {'workdir': ''} == pytest.approx(expected | {'workdir': ''})
  lines = metrics.read(workdir)
  steps = [*range(1, pods.STEPS + 1), pods.STEPS]
  assert [line['step'] for line in lines] == steps
  state, expected = (
    state_of(directory, pods.plain_config())
    for directory in (workdir, tmp_path)
  )
  assert int(state.step) == pods.STEPS
  chex.assert_trees_all_close(
    state.params, expected.params, rtol=1e-5, atol=1e-6
  )


def stopped(directory, whom, after):
  """Trains slowly; `whom` gets SIGTERM once step `after` is logged."""
  pod = pods.launch(
    *(2, 2), *pods.main(directory, 'slow_config'), TEST_PIDS=str(directory)
  )
  workdir, deadline = directory / 'run', time.monotonic() + 200
  while not any(line['step'] >= after for line in metrics.read(workdir)):
    assert pod.poll() is None, pod.communicate()
    assert time.monotonic() < deadline
    time.sleep(0.05)
  if whom == 'launcher':
    pod.terminate()
  else:
    os.kill(int((directory / whom).read_text()), signal.SIGTERM)
  status, out, err, others = pods.outcome(pod, timeout=60)
  assert status == 75, err
  assert 'process 0 ended with status 75' in err
  assert 'process 1 ended with status 75' in err
  assert '{' not in out + others
  line = rf'^stopped: saved step (\d+) of {pods.STEPS}$'
  said = re.search(line, err, re.M)
  assert said and f'[1] {said[0]}' in others
  assert int(said[1]) >= after
  return int(said[1])


def test_processes_stop_at_one_step_and_resume_exactly(pair, tmp_path):
  """A signal to one of them; then, in the rest of the run, one to all.

  What the second stop saved went through the first stop and a resumption; it
  equals what the unbroken run had at that step.
  """
  first = stopped(tmp_path, '1', after=1)
  second = stopped(tmp_path, 'launcher', after=first + 1)
  assert first < second < pods.STEPS
  for step in first, second:
    chex.assert_trees_all_equal(
      state_of(tmp_path / 'run', pods.plain_config(), step),
      state_of(pair, pods.plain_config(), step),
    )


def plain(result):
  """As it is printed, without the time that it took."""
  return json.loads(json.dumps(result)) | {'seconds': 0, 'looked_up': 0}


def test_checkpoints_do_not_ask_about_signals(tmp_path, monkeypatch):
  """JAX would take the step for one of training's calls, and stop elsewhere."""

  def asked(step):
    raise AssertionError(step)

  name = 'reached_preemption_sync_point'
  monkeypatch.setattr(multihost_utils, name, asked)
  checkpoints = checkpoints_lib.Checkpoints(tmp_path)
  checkpoints.save(1, {'weight': jax.numpy.zeros(2)})
  checkpoints.close()
  assert (tmp_path / 'checkpoints' / '1').is_dir()


# Two commands of one process: a start costs more than either of them.
_SEARCH = """
import sys
from bignas_jax import cli, evaluate, search
where = sys.argv[1]
for main in search.main, evaluate.main:
  status = cli.status(main, [where])
  if status: sys.exit(status)
"""

# Process 1 is asked to stop while it evaluates its first child.
_STOPPED = """
import os, signal, time
from bignas_jax import cli, search
from bignas_jax.supernet import evaluation
score, calls = evaluation.Evaluator.score, []
def slow(*arguments):
  calls.append(arguments)
  if len(calls) == 1 and os.environ['JAX_PROCESS_ID'] == '1':
    os.kill(os.getpid(), signal.SIGTERM)
  time.sleep(0.7)
  return score(*arguments)
evaluation.Evaluator.score = slow
cli.run(search.main)
"""


def copies(pair, directory):
  """Two copies of a run: for two processes, and for this one."""
  together, single = directory / 'together', directory / 'single'
  shutil.copytree(pair, together)
  shutil.copytree(pair, single)
  return together, single


def test_processes_search_and_evaluate_as_one_does(pair, tmp_path):
  searched_as_one(*copies(pair, tmp_path))


@pytest.mark.slow
def test_processes_that_were_stopped_search_as_one_does(pair, tmp_path):
  """One of them was asked to stop; then all were started again."""
  together, single = copies(pair, tmp_path)
  pod = pods.launch(2, 1, '-c', _STOPPED, f'--workdir={together}')
  status, out, err, others = pods.outcome(pod)
  assert status == 75, err + others
  assert 'process 0 ended with status 75' in err
  assert 'process 1 ended with status 75' in err
  assert err.count('stopped: ') == others.count('[1] stopped: ') == 1
  assert '{' not in out + others
  begun = (together / 'search' / 'archive.csv').read_text()
  searched_as_one(together, single)
  assert (together / 'search' / 'archive.csv').read_text().startswith(begun)


def searched_as_one(together, single):
  """Searches and evaluates by two processes, and by this one."""
  pod = pods.launch(2, 1, '-c', _SEARCH, f'--workdir={together}')
  status, out, err, others = pods.outcome(pod)
  assert status == 0, err + others
  assert '{' not in others
  found, accuracy = [json.loads(s) for s in out.splitlines() if s[0] == '{']
  assert accuracy['arch'] == found['arch']

  arguments = [f'--workdir={single}']
  wanted = search.main(arguments)
  assert plain(found) == plain(wanted)
  assert plain(accuracy) == plain(evaluate.main(arguments))
  archives = [w / 'search' / 'archive.csv' for w in (together, single)]
  assert archives[0].read_text() == archives[1].read_text()
  names = [sorted(f.name for f in a.parent.iterdir()) for a in archives]
  assert names[0] == names[1]


# A run; then what one process finds wrong, and what the first one knows: each
# case leaves both processes fit for the next, and a start costs more than all
# of them.
_CASES = """
import sys, time
import jax
from bignas_jax import cli, main
from bignas_jax.system import cluster
from bignas_jax.values import errors

def say(text):
  print(text, file=sys.stderr, flush=True)

cluster.join(preemptible=True)
number = jax.process_index()
told = cluster.once(lambda: {'text': 'é' * 5000, 'whose': number})
assert told == {'text': 'é' * 5000, 'whose': 0}
assert cluster.once(lambda: None) is None
assert cluster.each(lambda: number) == number
say('case: agreement')
for wrong in errors.UserError('data', 'x', 'y'), OSError('gone'):
  for agree, whose in (cluster.once, 0), (cluster.each, 1):
    def action():
      if number == whose:
        raise wrong
    try:
      agree(action)
    except Exception as error:
      say(f'{type(error).__name__}: {error}')
learning, *refused, failing = zip(sys.argv[1::2], sys.argv[2::2])
say('case: learning')
status = cli.status(main.main, [*learning])
assert status == 0, status
for name, workdir in refused:
  say(f'case: {name}')
  status = cli.status(main.main, [name, workdir])
  assert status == 2, status
say(f'case: failing since {time.time()}')
sys.argv[1:] = failing
cli.run(main.main)
"""


@pytest.fixture(scope='module')
def cases(pair, tmp_path_factory):
  """Where the cases ran, and what each process says in each case."""
  directory = tmp_path_factory.mktemp('cases')
  shutil.copytree(pair, directory / 'longer' / 'run')
  names = 'learning', 'longer', 'differing', 'missing', 'failing'
  arguments = []
  for name in names:
    (directory / name).mkdir(exist_ok=True)
    arguments += pods.main(directory / name, f'{name}_config')[2:]
  pod = pods.launch(2, 1, '-c', _CASES, *arguments)
  status, _, err, others = pods.outcome(pod)
  assert status == 1, err + others
  assert 'process 1 ended with status 1' in err
  since = re.search(r'case: failing since (\S+)', err)
  assert since and time.time() - float(since[1]) < 90
  for name in names[2:-1]:
    assert not (directory / name / 'run').exists()
  parts = [text.split('case: ')[1:] for text in (err, others)]
  assert len(parts[0]) == len(parts[1]) == 1 + len(names)
  said = zip(('agreement', *names), zip(*parts, strict=True), strict=True)
  return directory, dict(said)


@pytest.fixture(scope='module')
def refusals(cases):
  """What each process says in each case: {case: (first's, second's)}."""
  return cases[1]


def test_two_processes_learn_what_one_process_does(cases, tmp_path):
  """PARSEC, whose logits learn on a second split, with drop-connect."""
  config_ = pods.learning_config()
  loop.train(config_, tmp_path)
  ends, learnt = [], []
  for directory in cases[0] / 'learning' / 'run', tmp_path:
    checkpoints = checkpoints_lib.Checkpoints(directory)
    state, policy = states.restore_or_init(config.setup(config_), checkpoints)
    checkpoints.close()
    ends.append(jax.device_get(state))
    learnt.append(policy)
  assert int(ends[0].step) == config_.steps == learnt[0]['done']
  chex.assert_trees_all_close(
    ends[0].params, ends[1].params, rtol=1e-5, atol=1e-6
  )
  logits = [one['logits'] for one in learnt]
  chex.assert_trees_all_close(*logits, rtol=1e-4, atol=1e-6)
  assert logits[0][np.isfinite(logits[0])].any()


def one_line(text, *words):
  """Nothing but one line of complaint, besides the launcher's own."""
  lines = [line for line in text.splitlines() if 'error: ' in line]
  assert len(lines) == 1, text
  assert all(word in lines[0] for word in words), text
  assert 'Traceback' not in text


def test_what_the_first_process_finds_wrong_ends_all_of_them(refusals):
  first, second = refusals['longer']
  one_line(first, 'workdir', 'a directory of the same config', 'steps')
  one_line(second, '[1] error: workdir', 'a directory of the same config')


def test_processes_of_different_configs_are_refused(refusals):
  for text in refusals['differing']:
    one_line(text, 'error: config', 'another in process 1')


def test_images_missing_on_one_host_are_the_reason_that_all_give(refusals):
  first, second = refusals['missing']
  one_line(first, 'error: data.directory', '/not/mounted', '(in process 1)')
  one_line(second, '[1] error: data.directory', '/not/mounted')


def test_what_one_process_knows_is_made_known(refusals):
  """A long text of the first; a failure of any."""
  lines = [
    "UserError: data: got 'x'; allowed: y (in the first process)",
    "UserError: data: got 'x'; allowed: y (in process 1)",
    'RuntimeError: the first process failed: OSError: gone',
    'RuntimeError: process 1 failed: OSError: gone',
  ]
  own = [line.partition(' (in ')[0] for line in lines[:2]] + ['OSError: gone']
  first, second = (
    [line for line in text.splitlines() if 'Error: ' in line]
    for text in refusals['agreement']
  )
  assert first == [own[0], lines[1], own[2], lines[3]]
  assert second == [lines[0], own[1], lines[2], own[2]]


def test_a_process_that_fails_alone_does_not_leave_the_others_waiting(refusals):
  """The launcher has ended within the time that `cases` grants."""
  first, second = refusals['failing']
  assert 'OSError: the disk of process 1 is gone' in second
  assert first.count('error: another process of the run is gone') == 1
  assert 'Traceback' not in first


@pytest.mark.slow  # as the first process waits for the second's heartbeat
def test_one_process_without_room_ends_both(tmp_path):
  """Neither waits for minutes for the other's part of the checkpoint."""
  # It kills none, so that they may share pytest's compiled programs.
  flags = '--xla_force_host_platform_device_count=2'
  shared = {k: v for k, v in os.environ.items() if k.startswith('JAX_COMP')}
  shared['XLA_FLAGS'] = f'{os.environ["XLA_FLAGS"]} {flags}'
  first, second = pods.members(pods.main(tmp_path, 'kept_config'), **shared)
  limit = resource.RLIMIT_FSIZE  # it writes less before its checkpoint
  hard = resource.prlimit(second.process.pid, limit)[1]
  resource.prlimit(second.process.pid, limit, (100, hard))
  assert (second.end(120), first.end(60)) == (1, 1), first.log() + second.log()
  one_line(second.log(), '[1] error: no room for checkpoint 1')
  one_line(first.log(), 'another process of the run is gone')


@pytest.fixture
def as_one_of_two(monkeypatch):
  monkeypatch.setenv('JAX_COORDINATOR_ADDRESS', 'localhost:1')
  monkeypatch.setenv('JAX_NUM_PROCESSES', '2')
  monkeypatch.setenv('JAX_PROCESS_ID', '0')
  return monkeypatch


@pytest.mark.parametrize(
  ('name', 'value', 'words'),
  [
    ('JAX_COORDINATOR_ADDRESS', 'somewhere', "'somewhere'; allowed: host:port"),
    ('JAX_NUM_PROCESSES', 'two', "'two'; allowed: a number"),
    ('JAX_PROCESS_ID', '', "''; allowed: a number"),
    ('JAX_PROCESS_ID', '2', '2; allowed: a number below'),
  ],
)
def test_variables_of_processes_are_checked(as_one_of_two, name, value, words):
  as_one_of_two.setenv(name, value)
  with pytest.raises(errors.UserError, match=words) as refused:
    cluster.join()
  assert refused.value.field == name


def test_what_one_process_does_is_refused_to_several(as_one_of_two):
  with pytest.raises(errors.UserError, match='extract is done by one process'):
    cluster.refuse('extract')
  as_one_of_two.setenv('JAX_NUM_PROCESSES', '1')
  cluster.refuse('extract')
  as_one_of_two.setenv('JAX_COORDINATOR_ADDRESS', 'auto')
  with pytest.raises(errors.UserError):
    cluster.refuse('extract')
  as_one_of_two.delenv('JAX_COORDINATOR_ADDRESS')
  cluster.refuse('extract')


def test_auto_leaves_it_to_jax(as_one_of_two):
  as_one_of_two.setenv('JAX_COORDINATOR_ADDRESS', 'auto')
  asked = []

  def initialize(*positional, **named):
    asked.append((positional, set(named)))
    assert 'JAX_COORDINATOR_ADDRESS' not in os.environ

  as_one_of_two.setattr(jax.distributed, 'initialize', initialize)
  as_one_of_two.setattr(process, '_index', None)  # back to this afterwards
  cluster.join()
  assert process.joined() and process.leads() and not process.label()
  assert asked == [((), {'heartbeat_timeout_seconds'})]


def test_auto_without_a_cluster_is_refused(as_one_of_two):
  as_one_of_two.setenv('JAX_COORDINATOR_ADDRESS', 'auto')

  def initialize(**_):
    raise ValueError('coordinator_address should be defined.')

  as_one_of_two.setattr(jax.distributed, 'initialize', initialize)
  with pytest.raises(errors.UserError, match="got 'auto'; allowed: host:port"):
    cluster.join()
