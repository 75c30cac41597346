"""What MLflow and Weights & Biases have of a run, read back from them.

Their packages are not in the environment; `make trackers` runs all tests here.
"""

import importlib.util
import json
import math
import struct
import sys

import pytest
import tiny
from etils import epath

from bignas_jax.runs import config as config_lib
from bignas_jax.runs import (
  config_record,
  directory,
  metrics,
  rollbacks,
  tracker_clients,
  trackers,
)
from bignas_jax.runs.rollbacks import Rollback
from bignas_jax.values import errors

# Of the trackers' own code.
pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning')
NAMES = 'mlflow', 'wandb'
REASON = 'from step 6 to step 4: loss is nan'


def config(*names):
  return tiny.config(space=tiny.QUICK, steps=8, trackers=names)


def needed(name):
  absent = importlib.util.find_spec(name) is None
  reason = f'{name} is not installed: make trackers'
  return pytest.param(name, marks=pytest.mark.skipif(absent, reason=reason))


def session(workdir, names, start, lines):
  """A session that writes lines of (step, values)."""
  followers = trackers.follow(config(*names), workdir, start)
  writer = metrics.Writer(workdir, start, followers)
  for step, values in lines:
    writer.write(step, values)
  writer.close()


def of_mlflow(workdir):
  """Runs in the order of their start: name, reason, status, steps."""
  import mlflow

  client = mlflow.MlflowClient(f'sqlite:///{workdir}/mlflow.db')
  (experiment,) = client.search_experiments(filter_string="name = 'bignas_jax'")
  found = []
  for run in client.search_runs([experiment.experiment_id]):
    history = {
      name: [
        (m.step, m.value)
        for m in client.get_metric_history(run.info.run_id, name)
      ]
      for name in run.data.metrics
    }
    reason = run.data.tags.get('rolled_back')
    assert ('continues' in run.data.tags) == ('after' in run.info.run_name)
    stopped = run.info.status != 'FINISHED'
    found.append((run.info.run_name, reason, stopped, history))
    assert run.data.params['space.name'] == 'tiny'
  return found[::-1]


def records(path):
  """The records of a .wandb file, in their protocol buffers.

  They are framed as in LevelDB's log: blocks of 32 KiB, chunks with checksum,
  length and kind (1: whole, 2: first, 3: middle, 4: last).
  """
  from wandb.proto import wandb_internal_pb2

  data, at, body = path.read_bytes(), 7, b''
  assert data[:4] == b':W&B'
  while at + 7 <= len(data):
    if 32_768 - at % 32_768 < 7:
      at += 32_768 - at % 32_768
      continue
    _, length, kind = struct.unpack_from('<IHB', data, at)
    body += data[at + 7 : at + 7 + length]
    at += 7 + length
    if kind in (1, 4):
      record = wandb_internal_pb2.Record()
      record.ParseFromString(body)
      body = b''
      yield record


def of_wandb(workdir):
  """The same of Weights & Biases: files of one id are one run."""
  import wandb

  wandb.teardown()  # its process writes the last bytes when it ends
  runs = {}
  for path in sorted((workdir / 'wandb').glob('offline-run-*/*.wandb')):
    for record in records(path):
      kind = record.WhichOneof('record_type')
      if kind == 'run':
        run = runs.setdefault(
          record.run.run_id, [record.run.display_name, None, True, {}]
        )
      if kind == 'summary':
        for item in record.summary.update:
          if 'rolled_back' in (item.key, *item.nested_key):
            run[1] = json.loads(item.value_json)
      if kind == 'exit':
        run[2] = record.exit.exit_code != 0
      if kind == 'history':
        for item in record.history.item:
          name = item.key or '.'.join(item.nested_key)
          if not name.startswith('_'):
            value = record.history.step.num, json.loads(item.value_json)
            run[3].setdefault(name, []).append(value)
  return [tuple(run) for run in runs.values()]


READ = {'mlflow': of_mlflow, 'wandb': of_wandb}


def test_other_trackers_change_no_run(tmp_path):
  workdir = epath.Path(tmp_path)
  directory.claim(workdir, config())
  directory.claim(workdir, config('wandb'))  # of the same identity
  both = config('mlflow', 'wandb')
  assert config_record.sha256(both) == config_record.sha256(config())
  assert config_lib.check(both).trackers == ('mlflow', 'wandb')
  old = json.loads((tmp_path / 'config.json').read_text())
  del old['config']['trackers']  # a run of an older version
  (tmp_path / 'config.json').write_text(json.dumps(old))
  assert directory.load_config(workdir).trackers == ()


@pytest.mark.parametrize(
  ('names', 'words'),
  [
    (('mlflow', 'mlflow'), 'each name once'),
    (('neptune',), 'one of mlflow, wandb'),
  ],
)
def test_other_names_are_refused(names, words):
  with pytest.raises(errors.UserError, match='trackers') as refused:
    config_lib.check(config(*names))
  assert words in str(refused.value)


@pytest.mark.parametrize('name', NAMES)
def test_a_missing_package_is_named_with_its_extra(name, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, name, None)  # as if not installed
  with pytest.raises(errors.UserError) as missing:
    trackers.check(config(name), epath.Path(tmp_path))
  assert f"pip install -e '.[{name}]'" in str(missing.value)


def test_a_damaged_file_is_named(tmp_path):
  (tmp_path / trackers.NAME).write_text('{"mlflow": {"id": 5}}')
  with pytest.raises(errors.UserError, match=r'trackers\.json.*mlflow'):
    trackers.check(config(), epath.Path(tmp_path))


class _Kept:
  """A tracker's client that keeps what it is given."""

  id = 'kept'

  def __init__(self):
    self.lines = []

  def last(self):
    return {}

  def write(self, step, values):
    self.lines.append((step, values))

  def close(self, status, reason=''):
    pass


def test_a_text_in_a_line_is_left_out(tmp_path, monkeypatch):
  client = _Kept()
  clients = {'mlflow': lambda run, earlier: client}
  monkeypatch.setattr(tracker_clients, 'CLIENTS', clients)
  lines = '{"step": 2, "lr": 0.5, "note": "halved"}\n{"step": 3, "lr": null}\n'
  (tmp_path / 'metrics.jsonl').write_text(lines)
  trackers.follow(config('mlflow'), epath.Path(tmp_path), 4)
  (first, one), (second, none) = client.lines
  assert (first, one, second) == (2, {'lr': 0.5}, 3)
  assert math.isnan(none['lr'])


def interrupted(workdir, name):
  """A run that is tracked late, stopped, resumed, and rolled back."""
  session(workdir, (), 0, [(1, {'lr': 1.0})])
  session(workdir, [name], 1, [(2, {'lr': 2.0}), (4, {'lr': 4.0})])
  # It goes on from step 2, and evaluates step 4: another line of that step.
  again = [(4, {'lr': 4.5}), (4, {'eval/top1': 0.5}), (6, {'lr': math.nan})]
  session(workdir, [name], 2, again)
  rollbacks.write(workdir, [Rollback(6, 4, 9, 'loss is nan')])
  session(workdir, [name], 4, [(6, {'lr': 6.0}), (8, {'lr': 8.0})])


@pytest.mark.parametrize('name', [*map(needed, NAMES)])
def test_a_tracker_has_each_step_once(name, tmp_path):
  """A rollback ends its run, and says why; the next has the valid lines."""
  workdir = epath.Path(tmp_path) / 'digits'
  workdir.mkdir()
  interrupted(workdir, name)
  found = READ[name](tmp_path / 'digits')
  assert len(found) == 2, list(workdir.glob('wandb/offline-run-*/*'))
  first, second = found
  assert first[:3] == ('digits', REASON, True)
  assert first[3]['eval/top1'] == [(4, 0.5)]
  *before, last = first[3]['lr']
  assert before == [(1, 1.0), (2, 2.0), (4, 4.0)]
  assert last[0] == 6 and math.isnan(float(last[1]))
  assert second[:3] == ('digits, after rollback 1', None, False)
  valid = [(1, 1.0), (2, 2.0), (4, 4.5), (6, 6.0), (8, 8.0)]
  assert second[3] == {'lr': valid, 'eval/top1': [(4, 0.5)]}


@pytest.mark.parametrize('name', [needed('mlflow')])
def test_a_failure_costs_no_metrics(name, tmp_path, capsys, monkeypatch):
  """It is a warning; the next session gives the tracker what it has missed."""
  workdir = epath.Path(tmp_path) / 'digits'
  workdir.mkdir()
  broken = tmp_path / 'broken.db'
  broken.write_text('no database' * 1000)
  monkeypatch.setenv('MLFLOW_TRACKING_URI', f'sqlite:///{broken}')
  session(workdir, [name], 0, [(2, {'lr': 2.0}), (8, {'lr': 8.0})])
  said = capsys.readouterr().err
  assert said.count('warning: trackers: mlflow') == said.count('\n') == 1
  assert [line['step'] for line in metrics.read(workdir)] == [2, 8]
  monkeypatch.delenv('MLFLOW_TRACKING_URI')
  session(workdir, [name], 8, [])
  (run,) = READ[name](tmp_path / 'digits')
  assert run == ('digits', None, False, {'lr': [(2, 2.0), (8, 8.0)]})
