"""What a person sees on a terminal, and in a file."""

import io
import re
import sys

from bignas_jax import metrics, process


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
  with metrics.busy('compiling'):
    pass
  with metrics.Progress('train', 8, 2) as progress:
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
  assert capsys.readouterr().err == 'step 5: [all] well\n'


def test_other_processes_say_who_they_are(monkeypatch):
  terminal = _terminal(monkeypatch)
  monkeypatch.setattr(process, '_index', 3)
  _train()
  assert terminal.getvalue() == '[3] step 5: [all] well\n'
