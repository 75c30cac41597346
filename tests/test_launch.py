"""The launchers, against a gcloud that runs its workers on this machine."""

import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import yaml

from bignas_jax.runs import config_file
from bignas_jax.values import errors

ROOT = pathlib.Path(__file__).parents[1]
LAUNCH = ROOT / 'launch'
RENT = ('--name=pod', '--zone=us-central1-a', '--type=v5litepod-16')

# A script of the workers': notes that it ran, does what its turn says.
_WORK = """
import os, pathlib, signal, sys, time
home = pathlib.Path(os.environ['HOME'])
runs = home / 'runs'
turn = len(runs.read_text().split()) if runs.exists() else 0
with runs.open('a') as file: file.write('x ')
what = sys.argv[1 + min(turn, len(sys.argv) - 2)].split(',')
what = what[min(int(home.name), len(what) - 1)]
os.write(1, f'worker {home.name} does {what}\\n'.encode())
if what == 'wait':
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
  while True: time.sleep(0.05)
if what == 'preempt':
  (home.parents[1] / 'preempted').touch()
  what = 143
if what == 'slow':
  time.sleep(2)
  what = 0
sys.exit(int(what))
"""


class Cloud:
  """A directory that `fake_gcloud.py` takes for Google Cloud.

  Args:
    directory: to work in.
    workers: of a slice.
  """

  def __init__(self, directory, workers=2):
    self.directory = directory
    (directory / 'bin').mkdir()
    gcloud = directory / 'bin' / 'gcloud'
    fake = pathlib.Path(__file__).with_name('fake_gcloud.py')
    gcloud.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {fake} "$@"\n')
    gcloud.chmod(0o755)
    self.work = directory / 'work.py'
    self.work.write_text(_WORK)
    self.environment = os.environ | {
      'PATH': f'{directory / "bin"}:{os.environ["PATH"]}',
      'FAKE_CLOUD': str(directory),
      'FAKE_WORKERS': str(workers),
    }

  def say(self, **changes):
    """Has it behave: `states`, `refuse`."""
    (self.directory / 'behaviour.json').write_text(json.dumps(changes))

  def start(self, *turns, options=(), rent=RENT):
    return subprocess.Popen(
      [
        *(LAUNCH / 'tpu_vm.sh', '--poll=0.05', '--pause=0', *rent, *options),
        *('--', sys.executable, '-IS', str(self.work), *turns),
      ],
      env=self.environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )

  def run(self, *turns, options=(), rent=RENT, timeout=60):
    """(status, what it said)."""
    launched = self.start(*turns, options=options, rent=rent)
    try:
      said, _ = launched.communicate(timeout=timeout)
    finally:
      launched.kill()
    return launched.returncode, said

  def calls(self, what):
    """The calls of gcloud that have these words, in order."""
    file = self.directory / 'calls.jsonl'
    lines = file.read_text().splitlines() if file.exists() else []
    calls = [json.loads(line) for line in lines]
    return [c for c in calls if ' '.join(c).startswith(what)]

  def there(self):
    """Names of the queued resources."""
    folder = self.directory / 'queued'
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def cloud(tmp_path):
  return Cloud(tmp_path)


ENDS = 'workers/*/.bignas_jax/*/status'
CREATE, DELETE = 'queued-resources create', 'queued-resources delete'


def test_a_run_is_made_installed_and_done(cloud):
  cloud.say(states=['WAITING_FOR_RESOURCES', 'PROVISIONING', 'ACTIVE'])
  status, said = cloud.run('0', options=['--spot', '--delete'])
  assert status == 0, said
  (create,) = cloud.calls(CREATE)
  assert '--accelerator-type=v5litepod-16' in create
  assert '--runtime-version=v2-alpha-tpuv5-lite' in create
  assert '--spot' in create
  assert 'worker 0 does 0' in said and 'worker 1 does 0' in said
  assert len(cloud.calls('tpu-vm scp')) == 1
  assert len(cloud.calls('install.sh')) == 2
  assert cloud.there() == []


def test_a_slice_that_is_taken_away_is_made_anew(cloud):
  status, said = cloud.run('preempt,1', '0')
  assert status == 0, said
  assert 'the slice was taken away' in said
  assert len(cloud.calls(CREATE)) == 2
  assert len(cloud.calls(DELETE)) == 1
  assert len(cloud.calls('install.sh')) == 4
  assert cloud.there() == ['pod'] and 'to delete it' in said


def test_a_stopped_or_crashed_command_goes_on_where_it_was(cloud):
  status, said = cloud.run('75', '1,134', '0')
  assert status == 0, said
  assert 'ended with status 75' in said and 'ended with status 1' in said
  assert len(cloud.calls(CREATE)) == 1 and not cloud.calls(DELETE)
  assert len(cloud.calls('install.sh')) == 2


@pytest.mark.parametrize(
  ('turn', 'expected'), [('preempt,1', 75), ('75', 75), ('134,1', 134)]
)
def test_it_gives_up_after_the_cap(cloud, turn, expected):
  status, said = cloud.run(turn, options=['--attempts=3', '--delete'])
  assert status == expected, said
  assert 'gave up after 3 attempts' in said
  assert said.count('worker 0 does') == 3
  assert cloud.there() == []


@pytest.mark.parametrize('turn', ['2', '134,2'])
def test_a_users_error_is_not_tried_again(cloud, turn):
  status, said = cloud.run(turn)
  assert status == 2, said
  assert said.count('worker 0 does') == 1


def test_a_request_that_fails_is_made_anew(cloud):
  cloud.say(states=['FAILED', 'FAILED', 'ACTIVE'])
  status, said = cloud.run('0')
  assert status == 0, said
  assert len(cloud.calls(CREATE)) == 2


def test_a_request_that_is_refused_is_not_repeated(cloud):
  cloud.say(refuse='queued-resources create')
  status, said = cloud.run('0', options=['--delete'])
  assert status == 1
  assert 'refused by the test' in said
  assert len(cloud.calls(CREATE)) == 1 and not cloud.calls(DELETE)


def test_what_others_made_is_left_alone(cloud):
  for name in 'pod', 'pod2', 'a-pod':
    (cloud.directory / 'queued' / name).mkdir(parents=True)
  status, said = cloud.run('0', options=['--delete'])
  assert status == 2
  assert said.splitlines()[-1].startswith("error: --name: got 'pod'")
  assert cloud.there() == ['a-pod', 'pod', 'pod2']
  assert not cloud.calls(DELETE) and not cloud.calls('tpu-vm')

  (cloud.directory / 'queued' / 'pod').rmdir()
  status, said = cloud.run('0', options=['--delete'])
  assert status == 0, said
  assert cloud.there() == ['a-pod', 'pod2']


def test_a_second_launcher_goes_on_with_the_slice_of_the_first(cloud):
  assert cloud.run('1', options=['--attempts=1'])[0] == 1
  status, said = cloud.run('0', options=['--delete'])
  assert status == 0, said
  assert len(cloud.calls(CREATE)) == 1 and cloud.there() == []


def waiting(launched, cloud, number=2):
  """Once all workers run."""
  deadline = time.monotonic() + 30
  while sum(1 for _ in cloud.directory.glob('workers/*/runs')) < number:
    assert launched.poll() is None and time.monotonic() < deadline
    time.sleep(0.05)


def test_a_killed_launcher_is_followed_by_another(cloud):
  """Which has the workers save, before it starts them again."""
  launched = cloud.start('wait', '0')
  waiting(launched, cloud)
  time.sleep(0.5)
  launched.kill()
  launched.wait()
  assert launched.stdout is not None
  launched.stdout.close()
  status, said = cloud.run('wait', '0')
  assert status == 0, said
  assert len(cloud.calls(CREATE)) == 1
  ends = sorted(f.read_text() for f in cloud.directory.glob(ENDS))
  assert ends == ['0\n', '0\n', '75\n', '75\n']


@pytest.mark.parametrize('delete', [True, False])
def test_a_launcher_that_is_stopped_has_the_workers_save(cloud, delete):
  launched = cloud.start('wait', options=['--delete'] if delete else [])
  waiting(launched, cloud)
  time.sleep(0.5)  # for the handlers of the workers
  launched.send_signal(signal.SIGTERM)
  said, _ = launched.communicate(timeout=30)
  assert launched.returncode == 75, said
  assert cloud.there() == ([] if delete else ['pod'])
  assert len(cloud.calls(CREATE)) == 1


def test_a_launcher_that_waits_in_the_queue_stops_at_once(cloud):
  cloud.say(states=['WAITING_FOR_RESOURCES'])
  launched = cloud.start('0', options=['--delete'])
  while not cloud.there():
    time.sleep(0.05)
  launched.send_signal(signal.SIGTERM)
  said, _ = launched.communicate(timeout=30)
  assert launched.returncode == 75, said
  assert cloud.there() == []


def test_a_lost_connection_does_not_start_a_command_twice(cloud):
  cloud.say(drop_connection=True)
  status, said = cloud.run('slow')
  assert status == 0, said
  runs = [f.read_text() for f in cloud.directory.glob('workers/*/runs')]
  assert runs == ['x ', 'x ']


@pytest.mark.parametrize(
  ('rent', 'field'),
  [
    ([*RENT, '--name=Pod'], '--name'),
    ([*RENT, '--zone=here'], '--zone'),
    ([*RENT, '--type=h100-8'], '--type'),
    ([*RENT, '--attempts=0'], '--attempts'),
    ([*RENT, '--pause=soon'], '--pause'),
    ([*RENT, '--spt'], 'argument'),
  ],
)
def test_arguments_are_checked_before_anything_is_asked_for(cloud, rent, field):
  status, said = cloud.run('0', rent=rent)
  assert status == 2
  assert said.count('\n') == 1 and said.startswith('error: ') and field in said
  assert not cloud.calls('')


def test_a_command_reaches_the_workers_as_it_was_typed(cloud):
  text = "a 'b' $HOME; $(c)"
  cloud.work.write_text(
    'import os, sys; os.write(1, (sys.argv[1] + os.linesep).encode())'
  )
  status, said = cloud.run(text)
  assert status == 0 and said.count(text) == 2


# --- one machine ---------------------------------------------------------


def retry(cloud, *turns, options=()):
  home = cloud.directory / '0'
  home.mkdir()
  began = time.monotonic()
  done = subprocess.run(
    [
      LAUNCH / 'retry.sh',
      *options,
      '--',
      sys.executable,
      '-IS',
      cloud.work,
      *turns,
    ],
    env=cloud.environment | {'HOME': str(home)},
    capture_output=True,
    text=True,
    timeout=60,
  )
  runs = (home / 'runs').read_text().split()
  return done.returncode, len(runs), time.monotonic() - began


@pytest.mark.parametrize(
  ('turns', 'options', 'expected'),
  [
    (['75', '75', '0'], ['--pause=60'], (0, 3)),  # at once
    (['1', '134', '0'], ['--pause=0'], (0, 3)),
    (['1', '2', '0'], ['--pause=0'], (2, 2)),
    (['2', '0'], [], (2, 1)),
    (['1'], ['--pause=0', '--attempts=3'], (1, 3)),
    (['75'], ['--attempts=3'], (75, 3)),
  ],
)
def test_retry(cloud, turns, options, expected):
  status, runs, seconds = retry(cloud, *turns, options=options)
  assert (status, runs) == expected
  assert seconds < 30


def test_retry_pauses_longer_each_time(cloud):
  status, runs, seconds = retry(cloud, '1', '1', '0', options=['--pause=1'])
  assert (status, runs) == (0, 3)
  assert seconds > 3


def test_retry_passes_a_signal_on_and_ends(cloud):
  home = cloud.directory / '0'
  home.mkdir()
  launched = subprocess.Popen(
    [LAUNCH / 'retry.sh', '--', sys.executable, '-IS', cloud.work, 'wait'],
    env=cloud.environment | {'HOME': str(home)},
    stdout=subprocess.PIPE,
  )
  assert launched.stdout is not None
  assert launched.stdout.readline() == b'worker 0 does wait\n'
  time.sleep(0.3)
  launched.terminate()
  launched.communicate(timeout=20)
  assert launched.returncode == 75
  assert (home / 'runs').read_text() == 'x '


# --- Kubernetes ----------------------------------------------------------


@pytest.fixture(scope='module')
def jobset():
  return yaml.safe_load((LAUNCH / 'gke_jobset.yaml').read_text())


def test_the_jobset_starts_anew_after_all_but_a_users_error(jobset):
  """As Kubernetes reads it: the first rule that matches decides."""
  assert jobset['apiVersion'] == 'jobset.x-k8s.io/v1alpha2'
  policy = jobset['spec']['failurePolicy']
  (job,) = [j['template']['spec'] for j in jobset['spec']['replicatedJobs']]
  assert policy['maxRestarts'] > 0 and job['backoffLimit'] == 0
  (rule,) = policy['rules']
  assert rule['action'] == 'FailJobSet'
  assert rule['onJobFailureReasons'] == ['PodFailurePolicy']

  def ends_all(status):
    for rule in job['podFailurePolicy']['rules']:
      codes = rule.get('onExitCodes', {'values': [], 'operator': 'In'})
      assert codes['operator'] == 'In'
      if status in codes['values']:
        return rule['action'] == 'FailJob'
    return False

  assert [s for s in range(256) if ends_all(s)] == [errors.USER_ERROR]
  assert errors.PREEMPTED in [
    status
    for rule in job['podFailurePolicy']['rules']
    for status in rule.get('onExitCodes', {}).get('values', [])
  ]


def test_the_jobset_asks_for_one_slice_of_tpus(jobset):
  (job,) = [j['template']['spec'] for j in jobset['spec']['replicatedJobs']]
  pod = job['template']['spec']
  (container,) = pod['containers']
  topology = pod['nodeSelector']['cloud.google.com/gke-tpu-topology']
  chips = math.prod(map(int, topology.split('x')))
  limits = container['resources']
  assert limits['limits'] == limits['requests']
  assert job['parallelism'] == job['completions']
  assert limits['limits']['google.com/tpu'] * job['parallelism'] == chips
  assert pod['restartPolicy'] == 'Never'  # a pod failure policy demands it
  assert pod['terminationGracePeriodSeconds'] >= 60
  assert {
    rule['onExitCodes']['containerName']
    for rule in job['podFailurePolicy']['rules']
    if 'onExitCodes' in rule
  } == {container['name']}


def test_the_jobset_runs_what_is_here(jobset):
  (job,) = jobset['spec']['replicatedJobs']
  (container,) = job['template']['spec']['template']['spec']['containers']
  module, *arguments = container['args']
  environment = {e['name']: e['value'] for e in container['env']}
  assert environment == {'JAX_COORDINATOR_ADDRESS': 'auto'}
  assert module == 'bignas_jax.main'
  options = dict(argument.split('=', 1) for argument in arguments)
  assert config_file.load(str(ROOT / options['--config']))
  assert options['--workdir'].startswith('gs://')
