"""Stands in for `gcloud compute tpus`: a directory is the cloud.

Workers are directories under it, in which their commands really run. What it
takes and how it ends follows Google Cloud SDK 528: unknown arguments are
status 2; `ssh --worker=all` runs all workers at once, connects again after a
connection is lost (255), and ends with the first worker's failure.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

CLOUD = pathlib.Path(os.environ['FAKE_CLOUD'])
QUEUED, WORKERS = CLOUD / 'queued', CLOUD / 'workers'

# Of each command, what it needs and what it may have.
_COMMON = {'--zone', '--quiet', '--project'}
_LIST = ({'--filter', '--format', '--zone'}, _COMMON)
TAKES = {
  'queued-resources create': (
    {'--node-id', '--accelerator-type', '--runtime-version', '--zone'},
    _COMMON | {'--spot', '--labels'},
  ),
  'queued-resources delete': ({'--zone', '--quiet'}, _COMMON | {'--force'}),
  'queued-resources list': _LIST,
  'tpu-vm list': _LIST,
  'tpu-vm ssh': (
    {'--command', '--worker', '--zone'},
    _COMMON | {'--ssh-flag'},
  ),
  'tpu-vm scp': ({'--worker', '--zone'}, _COMMON),
}


def note(words):
  with (CLOUD / 'calls.jsonl').open('a') as file:
    file.write(json.dumps(words) + '\n')


def behaviour():
  file = CLOUD / 'behaviour.json'
  return json.loads(file.read_text()) if file.exists() else {}


def fail(text, status=1):
  print(f'ERROR: (gcloud.compute.tpus) {text}', file=sys.stderr)
  sys.exit(status)


def state(name):
  """The next of the states that the test has said; else ACTIVE."""
  if (CLOUD / 'preempted').exists():
    return 'SUSPENDED'
  states = behaviour().get('states', ['ACTIVE'])
  counter = CLOUD / 'asked'
  asked = int(counter.read_text()) if counter.exists() else 0
  counter.write_text(str(asked + 1))
  return states[min(asked, len(states) - 1)]


def create(name, options):
  if (QUEUED / name).exists():
    fail('ALREADY_EXISTS')
  (QUEUED / name).mkdir(parents=True)
  (QUEUED / name / 'labels').write_text(options.get('--labels', ''))
  assert options['--node-id'] == name
  (CLOUD / 'preempted').unlink(missing_ok=True)
  for number in range(int(os.environ['FAKE_WORKERS'])):
    kept = WORKERS / str(number) / 'runs'  # what the test counts
    (WORKERS / str(number)).mkdir(parents=True, exist_ok=True)
    for path in (WORKERS / str(number)).iterdir():
      if path != kept:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def delete(name, options):
  if not (QUEUED / name).exists():
    fail('NOT_FOUND')
  assert '--force' in options
  shutil.rmtree(QUEUED / name)


def list_queued(options):
  pattern = options['--filter'].removeprefix('name~')
  for path in sorted(QUEUED.glob('*')):
    if not re.search(pattern, f'projects/p/queuedResources/{path.name}'):
      continue
    if options['--format'] == 'value(state.state)':
      print(state(path.name))
    elif 'labels.launcher' in options['--format']:
      labels = path / 'labels'
      text = labels.read_text() if labels.exists() else ''
      print(dict([text.split('=')]).get('launcher', '') if text else '')
    else:
      fail(f'the stub has no {options["--format"]}')


def list_nodes(options):
  assert options['--format'] == 'value(state)'
  print('PREEMPTED' if (CLOUD / 'preempted').exists() else 'READY')


def command_of(worker, command):
  """Runs it in a worker's home; an install only leaves a note."""
  if 'install.sh' in command:
    note(['install.sh', worker.name])
    command = command.replace('bignas_jax/launch/install.sh', 'true')
  return subprocess.Popen(
    ['bash', '-c', command],
    cwd=worker,
    env=os.environ | {'HOME': str(worker)},
  )


def ssh(options):
  if (CLOUD / 'preempted').exists():
    fail('TPU is in terminal state PREEMPTED')
  assert options['--worker'] == 'all'
  workers = sorted(WORKERS.iterdir())
  command = options['--command']
  running = [command_of(worker, command) for worker in workers]
  if behaviour().get('drop_connection') and 'worker.sh run' in command:
    for process, worker in zip(running, workers, strict=True):
      while not (worker / 'runs').exists():
        time.sleep(0.05)
      assert process.poll() is None
      process.kill()
      process.wait()
    running = [command_of(worker, command) for worker in workers]
  statuses = [process.wait() for process in running]
  sys.exit(next((s for s in statuses if s), 0))


def scp(source, target):
  for worker in WORKERS.iterdir():
    shutil.copy(source, worker / target.partition(':')[2])


def main(arguments):
  assert arguments[:2] == ['compute', 'tpus']
  words = [a for a in arguments[2:] if not a.startswith('--')]
  pairs = [a.partition('=') for a in arguments[2:] if a.startswith('--')]
  options = {name: value for name, _, value in pairs}
  kind, names = ' '.join(words[:2]), words[2:]
  note([kind, *names, *(a for a in arguments if a.startswith('--'))])
  needed, allowed = TAKES[kind]
  if needed - set(options) or set(options) - needed - allowed:
    fail(f'unrecognized or missing arguments: {options}', 2)
  if behaviour().get('refuse') == kind:
    fail('refused by the test')
  if kind == 'queued-resources create':
    create(*names, options)
  elif kind == 'queued-resources delete':
    delete(*names, options)
  elif kind == 'queued-resources list':
    list_queued(options)
  elif kind == 'tpu-vm list':
    list_nodes(options)
  elif kind == 'tpu-vm ssh':
    ssh(options)
  else:
    scp(*names)


if __name__ == '__main__':
  main(sys.argv[1:])
