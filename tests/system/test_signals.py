"""What asks a command to stop ends it with status 75, wherever it is."""

import signal
import subprocess
import sys

import pytest
import tiny

_COMMAND = """
import hashlib, sys, time
from bignas_jax import cli
cli._GRACE_S = 0.3

def command(arguments):
  try:
    print('ready', flush=True)
    if arguments[0] == 'python':
      while True:
        try:
          time.sleep(60)
        except Exception:
          pass
    if arguments[0] == 'a library':
      try:
        time.sleep(60)
      except BaseException as error:  # as modules in C do while they start
        raise ImportError('initialization failed') from error
    hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)
  finally:
    print('left', flush=True)

cli.run(command)
"""


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize('place', ['python', 'a library', 'a long call'])
def test_a_signal_ends_a_command_with_75(place, number):
  with subprocess.Popen(
    [sys.executable, '-c', _COMMAND, place],
    env=tiny.environment(),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  ) as process:
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == 'ready\n'
    process.send_signal(number)
    assert process.wait(timeout=20) == 75
    if place != 'a long call':
      assert process.stdout.read() == 'left\n', 'what was open is closed'
      told = process.stderr.read()
      assert signal.Signals(number).name in told and told.count('\n') == 1


_ABORTED = """
import os
from bignas_jax.system import signals
signals.on_abort(lambda: os._exit(3))
os.abort()
"""


def test_an_abort_can_be_an_ordinary_end():
  ended = subprocess.run([sys.executable, '-c', _ABORTED], check=False)
  assert ended.returncode == 3
