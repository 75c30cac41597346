"""What a person sees while a command runs."""

import io

from bignas_jax.system import console


class Terminal(io.StringIO):
  def isatty(self):
    return True


def test_a_file_gets_a_line_before_the_wait(capsys):
  with console.busy('compiling'):
    assert capsys.readouterr().err == 'compiling\n'
  assert capsys.readouterr().err == ''


def test_a_terminal_gets_the_time_and_no_line(monkeypatch):
  monkeypatch.setenv('TERM', 'xterm')
  terminal = Terminal()
  monkeypatch.setattr('sys.stderr', terminal)
  with console.busy('compiling'):
    pass
  assert 'compiling' in terminal.getvalue()
  assert '0:00:00' in terminal.getvalue()
  assert terminal.getvalue().endswith('\x1b[2K')  # the bar is erased
