"""What a person sees on a terminal, and in a file."""

import io
import json
import re
import sys

import pytest
from etils import epath

from bignas_jax.runs import metrics
from bignas_jax.system import console, process
from bignas_jax.values import errors


class _Terminal(io.StringIO):
  def isatty(self):
    return True


def _terminal(monkeypatch):
  """Called in a test, whose stderr pytest sets after the fixtures."""
  monkeypatch.setenv('TERM', 'xterm')
  monkeypatch.setenv('COLUMNS', '100')
  terminal = _Terminal()
  monkeypatch.setattr(sys, 'stderr', terminal)
  return terminal


def _train():
  with console.busy('compiling'):
    pass
  with console.Progress('train', 8, 2) as progress:
    assert progress.left_s() is None, 'no speed is known yet'
    for done in range(3, 6):
      progress.advance(done)
    with progress.doing('evaluating'):
      progress.note('step 5: [all] well')
    left = progress.left_s()
    progress.advance(8)
    assert progress.left_s() == 0
  return left


def _plain(text: str) -> str:
  return re.sub(r'\x1b\[[0-9;?]*[a-zA-Z]', '', text)


def test_a_terminal_shows_phase_and_time_left(monkeypatch):
  terminal = _terminal(monkeypatch)
  left = _train()
  assert left is not None and 0 < left <= 1
  shown = _plain(terminal.getvalue())
  lines = re.split(r'[\r\n]+', shown)
  assert any('compiling' in line for line in lines)
  assert any(re.match(r'evaluating .*5/8 0:00:0\d', line) for line in lines)
  assert 'step 5: [all] well' in lines
  assert re.match(r'train .*8/8 0:00:00', [x for x in lines if x.strip()][-1])


def test_a_file_gets_lines_alone(capsys):
  assert _train() is not None
  assert capsys.readouterr().err == 'compiling\nstep 5: [all] well\n'


def test_other_processes_say_who_they_are(monkeypatch):
  terminal = _terminal(monkeypatch)
  monkeypatch.setattr(process, '_index', 3)
  _train()
  assert terminal.getvalue() == '[3] step 5: [all] well\n'


def _line(step, **values):
  return json.dumps({'step': step} | values)


DAMAGED = [b'{"step": 2, "trai', b'[2]', b'{"lr": 1}', b'\xff\xfe', b'']


@pytest.mark.parametrize('damaged', DAMAGED)
def test_a_damaged_line_costs_no_other(tmp_path, capsys, damaged):
  """It stays where it is; lines that will be written again do not."""
  path = tmp_path / 'metrics.jsonl'
  before = [_line(1).encode(), damaged, *(_line(n).encode() for n in (3, 4))]
  path.write_bytes(b'\n'.join(before) + b'\n{"step": 5, "tra')
  workdir = epath.Path(tmp_path)
  assert [line['step'] for line in metrics.read(workdir)] == [1, 3, 4]
  writer = metrics.Writer(workdir, 3)
  writer.write(4, {'lr': float('nan')})
  writer.close()
  after = [*before[:3], _line(4, lr=None).encode(), b'']
  assert path.read_bytes() == b'\n'.join(after)
  told = capsys.readouterr().err
  assert told.count('\n') == 1 and f'{path}: 1 damaged line' in told
  assert '(2)' in told


def test_what_a_crash_cut_is_dropped_without_a_word(tmp_path, capsys):
  path, workdir = tmp_path / 'metrics.jsonl', epath.Path(tmp_path)
  for rest in _line(2)[:7], '':
    path.write_text(_line(1) + '\n' + rest)
    assert [line['step'] for line in metrics.read(workdir)] == [1]
    metrics.Writer(workdir, 2).close()
    assert path.read_text() == _line(1) + '\n'
  # A line that lacks nothing but its end is whole.
  path.write_text(_line(1) + '\n' + _line(2))
  metrics.Writer(workdir, 2).close()
  assert path.read_text() == _line(1) + '\n' + _line(2) + '\n'
  assert capsys.readouterr().err == ''


def test_a_file_that_cannot_be_read_is_named(tmp_path):
  (tmp_path / 'metrics.jsonl').mkdir()
  with pytest.raises(errors.UserError, match=r'metrics\.jsonl'):
    metrics.read(epath.Path(tmp_path))
