"""`launch/serve.sh` with a child, as a client meets it."""

import json
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def free_port():
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    return free.getsockname()[1]


class Service:
  """`launch/serve.sh` with a child, until the test is over."""

  def __init__(self, package, log, *options):
    self.port = free_port()
    self.address = f'http://127.0.0.1:{self.port}'
    self.log = log.open('w+')
    self.process = subprocess.Popen(
      [ROOT / 'launch/serve.sh', package, f'--port={self.port}', *options],
      stdout=subprocess.PIPE,
      stderr=self.log,
      text=True,
      env={'PYTHON': sys.executable, 'PATH': '/usr/bin:/bin'},
    )

  def wait(self, seconds=120):
    """Until it is healthy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and self.process.poll() is None:
      try:
        if self.get('/health') == (200, b'ok'):
          return self
      except OSError:
        pass
      time.sleep(0.1)
    self.log.seek(0)
    pytest.fail(self.log.read())

  def get(self, path, data=None, kind=None):
    """Status and body."""
    headers = {} if kind is None else {'Content-Type': kind}
    request = urllib.request.Request(self.address + path, data, headers)
    try:
      with urllib.request.urlopen(request, timeout=60) as response:
        return response.status, response.read()
    except urllib.error.HTTPError as error:
      return error.code, error.read()

  def predict(self, encoded):
    """Status and answer for a file, sent as browsers send it."""
    border = uuid.uuid4().hex
    head = (
      f'--{border}\r\nContent-Disposition: form-data; name="image"; '
      'filename="x"\r\n\r\n'
    )
    body = head.encode() + encoded + f'\r\n--{border}--\r\n'.encode()
    kind = f'multipart/form-data; boundary={border}'
    status, answer = self.get('/predict', body, kind)
    return status, json.loads(answer)

  def stop(self):
    """Asks it to; status and the last line that it printed."""
    self.process.send_signal(signal.SIGTERM)
    out, _ = self.process.communicate(timeout=60)
    self.log.seek(0)
    said = self.log.read()
    self.log.close()
    assert 'Traceback' not in said, said
    return self.process.returncode, out.splitlines()[-1:]
