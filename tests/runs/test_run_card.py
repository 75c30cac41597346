"""The run card: what it says at any moment, and over several sessions."""

import json
import subprocess

import jax
import pytest
import tiny

from bignas_jax.runs import config_record, run_card
from bignas_jax.system import cluster, process
from bignas_jax.values import errors

CONFIG = tiny.config()


@pytest.fixture
def clock(monkeypatch):
  """Hours that the test sets."""
  hours = [0.0]
  monkeypatch.setattr(run_card.time, 'monotonic', lambda: 3600 * hours[0])
  return hours


def _read(workdir):
  return json.loads((workdir / 'run.json').read_text())


def _sit(workdir, clock, first, last, hours, error=None):
  with run_card.session(workdir, CONFIG) as card:
    card.reached(first, first=first)
    clock[0] += hours
    card.reached(last)
    if error is not None:
      raise error


def test_a_run_in_one_session(tmp_path, clock):
  with run_card.session(tmp_path, CONFIG) as card:
    begun = _read(tmp_path)
    assert begun['status'] == 'running' and begun['ended'] is None
    assert begun['steps'] == begun['images'] == 0
    card.reached(0, first=0)
    clock[0] += 0.5
    card.reached(4)
    assert _read(tmp_path)['images'] == 4 * 16
    clock[0] += 0.25
    card.reached(6)
  found = _read(tmp_path)
  assert found['status'] == 'finished' and found['ended'] >= found['started']
  assert (found['step'], found['of'], found['steps']) == (6, 6, 6)
  assert found['hours'] == 0.75
  assert found['device_hours'] == 0.75 * jax.device_count()
  assert found['config_sha256'] == config_record.sha256(CONFIG)
  (only,) = found['sittings']
  assert only['versions']['jax'] == jax.__version__
  assert only['devices'] == jax.device_count() and only['processes'] == 1
  assert only['hosts'] and only['device_kind'] == 'cpu'
  assert not list(tmp_path.glob('*.new'))


@pytest.mark.parametrize(
  ('error', 'status'),
  [(errors.Preempted('x'), 'preempted'), (ValueError('y'), 'failed')],
)
def test_hours_add_up_over_sessions(tmp_path, clock, error, status):
  with pytest.raises(type(error)):
    _sit(tmp_path, clock, 0, 3, 1.0, error)
  assert _read(tmp_path)['status'] == status
  assert _read(tmp_path)['ended'] is not None
  clock[0] += 100  # nobody trained
  _sit(tmp_path, clock, 2, 6, 0.5)  # one step again
  found = _read(tmp_path)
  assert [s['status'] for s in found['sittings']] == [status, 'finished']
  assert (found['step'], found['steps'], found['hours']) == (6, 7, 1.5)
  assert found['images'] == 7 * 16


def test_all_time_is_accounted_for(tmp_path, clock):
  """Of the first session, that was killed, too; nobody trains in between."""
  second = 1 / 3600
  card = run_card.Card(tmp_path, CONFIG, ['host'])
  clock[0] += 2 * second  # starting
  with card.doing('compiling'):
    clock[0] += 10 * second
  card.reached(0, first=0)
  for step in 1, 2, 3:
    clock[0] += 4 * second
    card.trained(step, 4.0, 1.0 if step == 2 else 0.0)
  with card.doing('evaluating'):
    clock[0] += 5 * second
    with card.doing('compiling'):
      clock[0] += 3 * second
    clock[0] += second
  card.reached(3)
  clock[0] += 100 * second
  del card
  found = _read(tmp_path)
  assert found['goodput'] == pytest.approx(11 / 33)
  with run_card.session(tmp_path, CONFIG) as card:
    card.reached(1, first=1)
    for step in 2, 3, 4:
      clock[0] += 4 * second
      card.trained(step, 4.0, 5.0)
    with card.doing('saving'):
      clock[0] += 7 * second
      card.reached(4)
      clock[0] += second
  found = _read(tmp_path)
  wanted = {'training': 11, 'repeated': 8, 'input_wait': 5, 'compiling': 13}
  wanted |= {'saving': 8, 'evaluating': 6, 'other': 2}
  assert found['seconds'] == pytest.approx(wanted)
  assert found['goodput'] == pytest.approx(11 / 53)
  assert found['repeated_steps'] == 2
  for one in (found, *found['sittings']):
    assert sum(one['seconds'].values()) == pytest.approx(
      3600 * one['hours'], abs=0.01
    )


def test_sessions_without_an_account_are_left_out(tmp_path, clock):
  _sit(tmp_path, clock, 0, 3, 1.0)
  file = tmp_path / 'run.json'
  card = json.loads(file.read_text())
  for name in 'seconds', 'repeated_steps':
    del card['sittings'][0][name]
  file.write_text(json.dumps(card))
  with run_card.session(tmp_path, CONFIG) as card:
    assert _read(tmp_path)['goodput'] is None
    clock[0] += 0.5
    card.trained(4, 900.0, 0.0)
  assert _read(tmp_path)['goodput'] == pytest.approx(0.5)


def test_a_killed_session_counts_until_it_was_last_seen(tmp_path, clock):
  card = run_card.Card(tmp_path, CONFIG, ['host-a', 'host-b', 'host-a'])
  card.reached(0, first=0)
  clock[0] += 1
  card.reached(2)
  clock[0] += 1  # and then nothing was written
  del card
  _sit(tmp_path, clock, 2, 6, 0.5)
  found = _read(tmp_path)
  killed, last = found['sittings']
  assert (killed['status'], last['status']) == ('killed', 'finished')
  assert killed['hosts'] == ['host-a', 'host-b'] and killed['processes'] == 3
  assert found['hours'] == 1.5 and found['steps'] == 6


def test_only_the_first_process_writes(tmp_path, clock, monkeypatch):
  monkeypatch.setattr(process, '_index', 1)
  monkeypatch.setattr(cluster, 'once', lambda action: [])  # from the first
  card = run_card.Card(tmp_path, CONFIG, ['a', 'b'])
  card.end('finished')
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  'card',
  ['{"sittings": ', '{}', '{"sittings": 3}', '{"sittings": [{"step": 2}]}'],
)
def test_a_damaged_card_is_named(tmp_path, card):
  (tmp_path / 'run.json').write_text(card)
  refused = pytest.raises(errors.UserError, match=r'run\.json')
  with refused, run_card.session(tmp_path, CONFIG):
    pass


def _git(where, *arguments):
  identity = ['-c', 'user.name=x', '-c', 'user.email=x@example.org']
  subprocess.run(
    ['git', '-C', str(where), *identity, *arguments],
    check=True,
    capture_output=True,
  )


def test_commit_is_that_of_the_codes_own_checkout(tmp_path):
  package = tmp_path / 'package'
  package.mkdir()
  (package / '__init__.py').write_text('')
  assert run_card.commit(package) is None
  _git(tmp_path, 'init')
  assert run_card.commit(package) is None, 'a checkout that does not hold it'
  _git(tmp_path, 'add', '.')
  _git(tmp_path, 'commit', '-m', 'x')
  clean = run_card.commit(package)
  assert clean is not None and len(clean['sha']) == 40 and not clean['dirty']
  (package / '__init__.py').write_text('changed = True')
  assert run_card.commit(package) == clean | {'dirty': True}
