"""Packages on a model hub, against a server that speaks its protocol."""

import hashlib
import http.server
import json
import pathlib
import sys
import threading

import pytest
from etils import epath

import bignas_jax
from bignas_jax import cli, evaluate
from bignas_jax.deploy import hub, package
from bignas_jax.values import errors

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden/run_0_1_0/children/best'
COMMIT, NAME = 'a1' * 20, 'me/digits'


class Server(http.server.ThreadingHTTPServer):
  """A hub with one repository, whose files lie in a directory."""

  directory: pathlib.Path
  asked: list[str]


class Handler(http.server.BaseHTTPRequestHandler):
  server: Server

  def log_message(self, *_):
    pass

  def do_HEAD(self):
    self.do_GET()

  def do_GET(self):
    place = self.path.split('?')[0]
    self.server.asked.append(f'{self.command} {place}')
    api, files = f'/api/models/{NAME}', f'/{NAME}/resolve/{COMMIT}/'
    revisions = [api, *(f'{api}/revision/{r}' for r in ('main', 'v1', COMMIT))]
    there = {path.name: path for path in self.server.directory.iterdir()}
    if place in revisions:
      listed = [{'rfilename': name} for name in sorted(there)]
      about = {'id': NAME, 'modelId': NAME, 'sha': COMMIT, 'siblings': listed}
      self.answer(json.dumps(about).encode(), 'application/json')
    elif place.startswith(f'{api}/tree/{COMMIT}'):
      tree = [
        {
          'type': 'file',
          'path': name,
          'size': path.stat().st_size,
          'oid': hashlib.sha1(path.read_bytes()).hexdigest(),
        }
        for name, path in there.items()
      ]
      self.answer(json.dumps(tree).encode(), 'application/json')
    elif place.removeprefix(files) in there:
      content = there[place.removeprefix(files)].read_bytes()
      self.answer(content, 'application/octet-stream')
    else:
      self.send_response(404)
      self.send_header('X-Error-Code', 'RepoNotFound')
      self.send_header('Content-Length', '0')
      self.end_headers()

  def answer(self, content, kind):
    self.send_response(200)
    self.send_header('Content-Type', kind)
    self.send_header('Content-Length', str(len(content)))
    self.send_header('ETag', f'"{hashlib.sha256(content).hexdigest()}"')
    self.send_header('X-Repo-Commit', COMMIT)
    self.end_headers()
    if self.command != 'HEAD':
      self.wfile.write(content)


@pytest.fixture
def server(tmp_path, monkeypatch):
  """The hub of this process, with the golden child; the cache is empty."""
  pytest.importorskip('huggingface_hub')
  child = package.load(epath.Path(GOLDEN))
  package.save(epath.Path(tmp_path / 'repository'), child)
  server = Server(('127.0.0.1', 0), Handler)
  server.directory, server.asked = tmp_path / 'repository', []
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  address = f'http://127.0.0.1:{server.server_port}'
  monkeypatch.setenv('HF_ENDPOINT', address)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  yield server
  server.shutdown()
  server.server_close()
  thread.join()


@pytest.mark.parametrize('revision', ['', '@v1', f'@{COMMIT}'])
def test_a_package_is_downloaded_once_for_each_commit(server, revision):
  child = bignas_jax.load_child(f'hf://{NAME}{revision}')
  assert child.arch == bignas_jax.load_child(GOLDEN).arch
  whole = [f'GET /{NAME}/resolve/{COMMIT}/model.safetensors']
  assert [one for one in server.asked if one in whole] == whole
  place = hub.path(f'hf://{NAME}{revision}')
  assert [one for one in server.asked if one in whole] == whole
  assert {path.name for path in place.iterdir()} >= {*package.FILES}
  server.asked.clear()
  assert hub.path(f'hf://{NAME}@{COMMIT}') == place
  assert not server.asked, 'a commit that is here needs no network'


def test_what_the_hub_has_not_is_one_line(server):
  for name in ('me/others', f'{NAME}@v2'):
    with pytest.raises(errors.UserError, match='that the hub has') as caught:
      hub.path(f'hf://{name}')
    assert '\n' not in str(caught.value) and name in str(caught.value)
  (server.directory / 'model.safetensors').unlink()
  with pytest.raises(errors.UserError, match=r'no model\.safetensors in it'):
    hub.path(f'hf://{NAME}')


def test_a_damaged_package_is_refused_by_the_command(server, capsys):
  path = server.directory / 'model.safetensors'
  path.write_bytes(path.read_bytes()[:-100])
  assert cli.status(evaluate.main, [f'--child=hf://{NAME}']) == 2
  *_, last = capsys.readouterr().err.splitlines()
  assert 'undamaged weights' in last


def test_a_missing_extra_is_one_line(monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  for name in [m for m in sys.modules if m.startswith('huggingface_hub.')]:
    monkeypatch.delitem(sys.modules, name)
  assert cli.status(evaluate.main, [f'--child=hf://{NAME}']) == 2
  told = capsys.readouterr()
  assert told.out == '' and told.err.count('\n') == 1
  assert "pip install -e '.[hub]'" in told.err and f'hf://{NAME}' in told.err


@pytest.mark.parametrize(
  'text', ['hf://', 'hf://me', 'hf://a/b/c', 'hf://a/b@']
)
def test_what_is_no_name_is_named(text):
  with pytest.raises(errors.UserError, match='hf://OWNER/NAME@REVISION'):
    hub.path(text)


def test_a_path_is_a_path(tmp_path):
  assert hub.path(str(tmp_path)) == epath.Path(tmp_path)
  with pytest.raises(errors.UserError, match='gs://BUCKET'):
    hub.path('s3://a/b')


def test_an_unreachable_hub_is_one_line(monkeypatch, tmp_path):
  pytest.importorskip('huggingface_hub')
  monkeypatch.setenv('HF_ENDPOINT', 'http://127.0.0.1:9')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  with pytest.raises(errors.UserError, match='that the hub has') as caught:
    hub.path(f'hf://{NAME}')
  assert '\n' not in str(caught.value)
  assert not list(tmp_path.iterdir())
