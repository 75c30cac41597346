"""A child behind HTTP: what is answered, and to whom."""

import asyncio
import concurrent.futures
import contextlib
import importlib.util
import io
import json
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import sys
import time
import types
import urllib.error
import urllib.request
import zlib
from typing import Any

import cv2
import fastapi
import networks
import numpy as np
import PIL.Image
import pytest
import services
import tiny
from etils import epath

from bignas_jax import cli, serve
from bignas_jax.data import decode, transforms
from bignas_jax.deploy import onnx
from bignas_jax.deploy import package as package_lib
from bignas_jax.serving import admission, server
from bignas_jax.system import storage

ROOT = pathlib.Path(__file__).parents[2]
CROP = 0.8
# Of a child of ten outputs: folders may be called anything, and be too few.
CLASS_NAMES = [
  *('cat', '<b>"cat" & \'dog\'</b>', 'two\nlines\tof\r\nit', ''),
  *('猫 \N{CAT FACE}', 'not \udcff UTF-8', '</script><script>alert()</script>'),
]
SHOWN = [*CLASS_NAMES[:5], 'not \\udcff UTF-8', CLASS_NAMES[6], '7', '8', '9']


@pytest.fixture(scope='module')
def package(tmp_path_factory):
  """Of a child that is not asked for every pixel."""
  where = epath.Path(tmp_path_factory.mktemp('package')) / 'child'
  child = networks.random_child(tiny.QUICK)
  child.info['data']['eval_crop'] = CROP
  child.info['class_names'] = CLASS_NAMES
  child.info['accuracy'] = {'top1': float('nan'), 'split': 'test'}
  package_lib.save(where, child)
  return where


@pytest.fixture(scope='module')
def service(package, tmp_path_factory):
  log = tmp_path_factory.mktemp('service') / 'log'
  running = services.Service(
    package, log, '--max_batch=8', '--wait_ms=20'
  ).wait()
  yield running
  if running.process.poll() is None:
    running.stop()


def picture(seed, kind='.png', size=(20, 30)):
  """An encoded image."""
  rng = np.random.default_rng(seed)
  _, encoded = cv2.imencode(kind, rng.integers(0, 256, size, np.uint8))
  return encoded.tobytes()


def expected(package, encoded):
  """The answer, by the artifact alone."""
  info = json.loads((package / 'child.json').read_text())
  size, channels = info['input']['image_size'], info['input']['channels']
  image = decode.open_image(encoded, channels)
  pixels = transforms.centre(image, size, crop=CROP)
  run = onnx.load(pathlib.Path(package / 'service'))
  powers = np.exp(run(pixels[None])[0].astype(np.float64))
  return dict(zip(SHOWN, powers / powers.sum(), strict=True))


def check(answer, shares):
  found = {c['name']: c['probability'] for c in answer['classes']}
  assert list(found) == sorted(shares, key=lambda n: -shares[n])[:5]
  for name, share in found.items():
    assert share == pytest.approx(shares[name], abs=1e-5)
  for each in answer['classes']:
    assert each['name'] == SHOWN[each['class']]


@pytest.mark.parametrize('kind', ['.png', '.jpg', '.bmp', '.webp'])
def test_an_image_gets_what_the_child_says_of_it(service, package, kind):
  encoded = picture(1, kind)
  status, answer = service.predict(encoded)
  assert status == 200
  check(answer, expected(package, encoded))


def test_everyone_gets_an_own_answer(service, package):
  """Also those whose images run together, and beside some that are damaged."""
  sent = [picture(seed) for seed in range(20)]
  broken = [picture(0)[:40], b'', b'not an image', picture(3, '.jpg')[:200]]
  with concurrent.futures.ThreadPoolExecutor(24) as pool:
    bad = [pool.submit(service.predict, encoded) for encoded in broken]
    good = list(pool.map(service.predict, sent))
  for encoded, (status, answer) in zip(sent, good, strict=True):
    assert status == 200
    check(answer, expected(package, encoded))
  for each in bad:
    assert each.result() == (400, {'detail': 'not a whole image'})


@pytest.mark.parametrize(
  ('given', 'names'),
  [
    (None, ['0', '1']),
    ([], ['0', '1']),
    (['a'], ['a', '1']),
    (['a', 'b', 'c'], ['a', 'b']),
  ],
)
def test_an_output_without_a_name_is_called_by_its_number(given, names):
  found = server.names({'classes': 2, 'class_names': given})
  assert found == names
  for logits in (np.array([1.0, 0.0]), np.array([0.0, 1.0])):
    assert server.ranked(logits, found)[0]['name'] == names[logits.argmax()]


def test_images_run_together(package):
  """LitServe hands over as many as wait; a single one is not stacked."""
  api = server.Api(str(package / 'service/model.onnx'), 'ab', 8, 0.02)
  assert (api.max_batch_size, api.batch_timeout) == (8, 0.02)
  api.setup('cpu')
  rng = np.random.default_rng(0)
  pixels = list(rng.integers(0, 256, (3, 8, 8, 1), np.uint8))
  together = api.unbatch(api.predict(api.batch(pixels)))
  for image, logits in zip(pixels, together, strict=True):
    assert logits == pytest.approx(api.predict(image), abs=1e-5)


def test_it_says_what_it_is(service, package):
  status, body = service.get('/info')
  model = json.loads(body)['model']
  info = json.loads((package / 'child.json').read_text())
  assert status == 200
  for name in ('arch', 'macs', 'params', 'input'):
    assert model[name] == info[name]
  assert model['class_names'] == SHOWN
  assert model['accuracy'] == {'top1': None, 'split': 'test'}
  assert info['class_names'] == CLASS_NAMES


def test_the_page_loads_nothing_from_elsewhere(service):
  status, body = service.get('/')
  assert status == 200 and b'<title>Drop an image</title>' in body
  assert b'http:' not in body and b'https:' not in body


def test_a_request_without_an_image_is_the_callers_mistake(service):
  assert service.get('/predict', b'{}', 'application/json')[0] == 422


def png(height, width):
  """A header that promises pixels, and none."""

  def chunk(kind, data):
    check = struct.pack('>I', zlib.crc32(kind + data))
    return struct.pack('>I', len(data)) + kind + data + check

  size = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
  rows = zlib.compress(b'\0' * 1000)
  return b'\x89PNG\r\n\x1a\n' + b''.join(
    chunk(*c) for c in ((b'IHDR', size), (b'IDAT', rows), (b'IEND', b''))
  )


def test_a_small_file_cannot_ask_for_all_memory(service):
  assert service.predict(png(30_000, 30_000))[0] == 413
  assert service.predict(png(30_000, 30_000)[:40])[0] == 413, 'a header is all'
  file = io.BytesIO()
  PIL.Image.new('L', (12_000, 12_000)).save(file, 'JPEG')
  assert service.predict(file.getvalue())[0] == 413
  wide = b'P5 30000 30000 255\n' + bytes(1000)  # of which only OpenCV knows
  assert service.predict(wide)[0] == 400


def test_images_wait_until_others_are_decoded(monkeypatch):
  """At once they have no more pixels than one may have."""
  held, most = 0, 0

  class Slow(server.Prepare):
    def __call__(self, encoded):
      nonlocal held, most
      held += self.pixels(encoded)
      most = max(most, held)
      time.sleep(0.01)
      held -= self.pixels(encoded)

  info = {'input': {'image_size': 8, 'channels': 1}, 'data': {'eval_crop': 1}}
  request: Any = types.SimpleNamespace(app=types.SimpleNamespace())
  request.app.state = types.SimpleNamespace(
    prepare=Slow(info, 2_000),
    pixels=admission.Budget(2_000, 60),
    queue=admission.Queue(30),
  )
  small, unknown = picture(0), b'P5 20 30 255\n' + bytes(600)

  received = contextlib.asynccontextmanager(server.received)
  turned_away = []

  async def one(encoded):
    try:
      async with received(request, encoded):
        pass
    except fastapi.HTTPException as error:
      turned_away.append((error.status_code, error.headers))

  async def crowd():
    sent = [small] * 20 + [unknown] * 3 + [small] * 9
    await asyncio.gather(*map(one, sent))

  asyncio.run(crowd())
  assert 600 < most <= 2_000
  assert turned_away == [(503, {'Retry-After': '1'})] * 2
  assert request.app.state.queue.length == 0, 'an image kept its place'


def memory_mb(process):
  """The most that a process and its children have taken, MB."""
  found, numbers = 0, [process]
  for number in numbers:
    where = pathlib.Path(f'/proc/{number}')
    text = (where / f'task/{number}/children').read_text()
    numbers += map(int, text.split())
    (peak,) = re.findall(r'VmHWM:\s+(\d+) kB', (where / 'status').read_text())
    found += int(peak) // 1000
  return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_a_crowd_of_large_images_takes_no_more_than_one(service):
  """Of 121 million gray pixels each, which are as many bytes or more."""
  _, large = cv2.imencode('.png', np.zeros((11_000, 11_000), np.uint8))
  assert service.predict(large.tobytes())[0] == 200
  alone = memory_mb(service.process.pid)
  with concurrent.futures.ThreadPoolExecutor(12) as pool:
    answers = list(pool.map(service.predict, [large.tobytes()] * 12))
  assert {status for status, _ in answers} <= {200, 503}
  assert 200 in {status for status, _ in answers}
  assert memory_mb(service.process.pid) - alone < 150
  assert service.predict(picture(1))[0] == 200


def form(encoded):
  """A request, and its last bytes."""
  border = b'--b\r\nContent-Disposition: form-data; name="image"; '
  body = border + b'filename="x"\r\n\r\n' + encoded + b'\r\n--b--\r\n'
  head = b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: '
  head += b'multipart/form-data; boundary=b\r\n'
  head += b'Content-Length: %d\r\n\r\n' % len(body)
  return head + body[:-8], body[-8:]


def spoken(service, *pieces):
  """What is answered to pieces of a request, without sending any more."""
  with socket.create_connection(('127.0.0.1', service.port), 10) as link:
    try:
      for piece in pieces:
        link.sendall(piece)
    except OSError:
      pass  # it has hung up; what it said can still be read
    return link.recv(65_536)


def test_a_request_that_is_too_long_is_refused_before_it_is_sent(service):
  head = b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: '
  head += b'multipart/form-data; boundary=b\r\n'
  longer = b'Content-Length: %d\r\n\r\n' % (server.MAX_BYTES + 1)
  assert b' 413 ' in spoken(service, head, longer).splitlines()[0]
  part = b'--b\r\nContent-Disposition: form-data; name="image"; '
  part += b'filename="x"\r\n\r\n'
  chunks = [b'%x\r\n%s\r\n' % (len(part), part)]
  chunks += [b'%x\r\n%s\r\n' % (2**20, bytes(2**20))] * 33
  chunked = b'Transfer-Encoding: chunked\r\n\r\n'
  answer = spoken(service, head, chunked, *chunks)
  assert b' 413 ' in answer.splitlines()[0]
  assert service.predict(picture(1))[0] == 200


def asked_from(address, origin):
  request = urllib.request.Request(address + '/info', headers=origin)
  with urllib.request.urlopen(request, timeout=60) as response:
    return response.headers.get('Access-Control-Allow-Origin')


def test_pages_of_other_sites_get_no_answer(service):
  assert asked_from(service.address, {'Origin': 'http://example.org'}) is None


def test_pages_of_a_site_that_is_named_do(package):
  info = json.loads((package / 'child.json').read_text())
  origins = ['https://example.org']
  artifact = str(package / 'service/model.onnx')
  made = server.server(
    artifact,
    info,
    max_batch_size=2,
    batch_timeout=0,
    max_pixels=100,
    max_queue=4,
    origins=origins,
  )
  for origin, named in (('https://example.org', True), ('http://a', False)):
    headers = [(b'origin', origin.encode())]
    headers += [(b'access-control-request-method', b'POST')]
    scope = {'type': 'http', 'method': 'OPTIONS', 'headers': headers}
    sent = []

    async def send(message, sent=sent):
      sent.append(message)

    asyncio.run(made.app(scope | {'path': '/predict'}, send, send))
    told = dict(sent[0]['headers'])
    assert (b'access-control-allow-origin' in told) == named


def test_it_counts_what_it_answers(service):
  def counted():
    status, body = service.get('/metrics')
    lines = body.decode().splitlines()
    assert status == 200 and not [line for line in lines if '_created' in line]
    pairs = [line.rsplit(' ', 1) for line in lines if line[0] != '#']
    return {name: float(value) for name, value in pairs}

  before = counted()
  service.predict(picture(1))
  service.predict(b'not an image')
  service.get('/nowhere')
  service.get('/nothing')
  after = counted()
  for name, more in {
    'bignas_requests_total{path="/predict",status="200"}': 1,
    'bignas_requests_total{path="/predict",status="400"}': 1,
    'bignas_requests_total{path="other",status="404"}': 2,
    'bignas_request_seconds_count{status="200"}': 1,
    'bignas_images_total': 1,
  }.items():
    assert after[name] - before.get(name, 0) == more, name
  assert after['bignas_queue_length'] == 0
  assert after['bignas_queue_limit'] == 256
  assert after['process_resident_memory_bytes'] > 2**20


def test_a_full_queue_is_not_ready():
  queue = admission.Queue(1)
  assert server.ready(queue).status_code == 200
  with queue.place():
    full = server.ready(queue)
    assert (full.status_code, full.headers['retry-after']) == (503, '1')
    with pytest.raises(fastapi.HTTPException), queue.place():
      pass
    assert queue.length == 1
  assert server.ready(queue).status_code == 200


def test_sigterm_ends_it_after_its_last_answers(service, package, tmp_path):
  """And what was exported is used the next time."""
  del service  # which has exported
  before = (package / 'service/export.json').stat()
  running = services.Service(package, tmp_path / 'log', '--workers=2').wait()
  assert running.get('/ready') == (200, b'ready')
  link = socket.create_connection(('127.0.0.1', running.port), 30)
  with link, concurrent.futures.ThreadPoolExecutor(1) as pool:
    # Under way: its last bytes come after the signal.
    head, tail = form(picture(1))
    link.sendall(head)
    time.sleep(0.5)
    ending = pool.submit(running.stop)
    with pytest.raises(OSError):
      while True:  # new requests are refused
        socket.create_connection(('127.0.0.1', running.port), 5).close()
    link.sendall(tail)
    answer = link.recv(65_536)
    status, last = ending.result()
  assert b' 200 ' in answer.splitlines()[0]
  assert status == 0
  said = json.loads(last[0])
  assert (said['child'], said['port']) == (str(package), running.port)
  assert (package / 'service/export.json').stat() == before


def run(capsys, *arguments):
  status = cli.status(serve.main, list(map(str, arguments)))
  return status, capsys.readouterr().err


def test_an_artifact_of_another_child_is_not_served(service, package, tmp_path):
  del service  # which has exported
  other = tmp_path / 'child'
  shutil.copytree(package, other)
  assert serve._fresh(epath.Path(other), epath.Path(other / 'service'))
  for change in ('child.json', 'service/model.onnx', 'service/export.json'):
    kept = (other / change).read_bytes()
    (other / change).write_bytes(kept.replace(b'1', b'2', 1))
    assert not serve._fresh(epath.Path(other), epath.Path(other / 'service'))
    (other / change).write_bytes(kept)


@pytest.mark.parametrize(
  ('option', 'words'),
  [
    ('--port=80', 'allowed: 1024 <= whole number <= 65535'),
    ('--max_batch=0', 'allowed: a whole number >= 1'),
    ('--max_queue=0', 'allowed: a whole number >= 1'),
    ('--workers=0', 'allowed: a whole number >= 1'),
    ('--wait_ms=nan', 'allowed: 0 <= number <= 10000'),
    ('--host=example.org', 'value should be one of <127.0.0.1|0.0.0.0|::>'),
    ('--allow_origin=example.org', 'such as https://example.org'),
  ],
)
def test_mistakes_are_one_line(package, option, words, capsys):
  status, err = run(capsys, f'--child={package}', option)
  assert status == 2 and words in err and err.count('\n') == 1


def test_without_jax_a_child_must_have_been_exported(
  package, tmp_path, capsys, monkeypatch
):
  bare = tmp_path / 'child'
  shutil.copytree(package, bare, ignore=shutil.ignore_patterns('service'))
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util, 'find_spec', lambda n: None if n == 'jax' else find(n)
  )
  status, err = run(capsys, f'--child={bare}', f'--port={services.free_port()}')
  assert status == 2 and err.count('\n') == 1
  assert f'bignas_jax.export --child={bare} --format=onnx --preprocess' in err


def test_a_port_that_is_taken_is_named(package, capsys):
  with socket.socket() as taken:
    taken.bind(('127.0.0.1', 0))
    taken.listen()
    port = taken.getsockname()[1]
    status, err = run(capsys, f'--child={package}', f'--port={port}')
  assert status == 2 and err.count('\n') == 1
  assert f'--port: got {port}; allowed: a port that is free' in err


def test_a_bucket_is_fetched_first(package, capsys, monkeypatch):
  monkeypatch.setattr(storage, 'in_bucket', lambda path: True)
  status, err = run(capsys, f'--child={package}')
  assert status == 2 and 'a directory on this machine' in err


def test_no_child_no_service(tmp_path, capsys):
  status, err = run(capsys, f'--child={tmp_path}')
  assert status == 2 and 'a child package' in err and err.count('\n') == 1
  (tmp_path / 'child.json').write_text('{}')
  status, err = run(capsys, f'--child={tmp_path}')
  assert status == 2 and 'a child of `extract`' in err


def _cut(path):
  path.write_bytes(path.read_bytes()[:-9])


def _becomes_a_file(path):
  shutil.rmtree(path)
  path.write_text('mine')


def _changed(path):
  path.write_bytes(path.read_bytes() + b'by hand')


@pytest.fixture
def copied(service, package, tmp_path):
  del service  # which has exported
  return pathlib.Path(shutil.copytree(package, tmp_path / 'child'))


@pytest.mark.parametrize(
  ('name', 'damage'),
  [
    ('child.json', _cut),
    ('service/export.json', _cut),
    ('model.safetensors', _cut),
    ('service', _becomes_a_file),
    ('service/model.onnx', _changed),
  ],
)
def test_a_damaged_child_is_one_line(copied, capfd, name, damage):
  """Also where it is another process, which exports, that finds it."""
  damage(copied / name)
  before = sorted(copied.rglob('*'))
  arguments = [f'--child={copied}', f'--port={services.free_port()}']
  assert cli.status(serve.main, arguments) == 2
  out, err = capfd.readouterr()
  *said, last = err.splitlines()
  assert out == '' and last.startswith('error: ')
  assert name.split('/')[-1] in last
  assert said in (
    [],
    [f'{copied}/service: exporting, and comparing with the child'],
  )
  assert sorted(copied.rglob('*')) == before


def test_images_are_where_data_says(copied, capfd, tmp_path):
  """The export compares with the child on these images."""
  shutil.rmtree(copied / 'service')
  arguments = [f'--child={copied}', f'--data={tmp_path / "moved"}']
  arguments.append(f'--port={services.free_port()}')
  assert cli.status(serve.main, arguments) == 2
  *_, last = capfd.readouterr().err.splitlines()
  assert last.startswith('error: ') and str(tmp_path / 'moved') in last


@pytest.mark.parametrize(
  ('field', 'wrong'),
  [
    ('classes', 0),
    ('classes', '10'),
    ('class_names', 'cat'),
    ('class_names', [5]),
    ('input', {}),
    ('input', {'image_size': 8, 'channels': 2}),
    ('input', {'image_size': 8.5, 'channels': 1}),
    ('data', {'eval_crop': 0}),
    ('data', {'eval_crop': float('nan')}),
    ('data', []),
  ],
)
def test_what_a_service_needs_is_checked_first(copied, capsys, field, wrong):
  info = json.loads((copied / 'child.json').read_text())
  (copied / 'child.json').write_text(json.dumps(info | {field: wrong}))
  status, err = run(capsys, f'--child={copied}')
  assert status == 2 and err.count('\n') == 1
  assert f'child.json: {field}' in err


@pytest.mark.slow
def test_two_services_begin_at_once(copied, tmp_path):
  """One exports, both answer."""
  shutil.rmtree(copied / 'service')
  both = [services.Service(copied, tmp_path / str(i)) for i in range(2)]
  encoded = picture(1)
  answers = [one.wait().predict(encoded) for one in both]
  for status, answer in answers:
    assert status == 200
    check(answer, expected(copied, encoded))
  for one in both:
    assert one.stop()[0] == 0
  logs = [(tmp_path / str(i)).read_text() for i in range(2)]
  assert sum('exporting' in log for log in logs) == 1
  assert sum('waiting for another process' in log for log in logs) == 1


# Other servers: their containers are not here, what they are given is.

_DOCKER = """#!/bin/sh
printf '%s\\n' "$@" > "$(dirname "$0")/arguments"
exit 7
"""


def contained(package, tmp_path, *options):
  """Status, what docker was told, and what is where it looks."""
  docker = tmp_path / 'docker'
  docker.write_text(_DOCKER)
  docker.chmod(0o755)
  done = subprocess.run(
    [ROOT / 'launch/serve.sh', package, '--port=9000', *options],
    env={'PYTHON': sys.executable, 'PATH': f'{tmp_path}:/usr/bin:/bin'},
    capture_output=True,
    text=True,
  )
  told = (tmp_path / 'arguments').read_text().splitlines()
  (volume,) = (t for t in told if t.endswith(':ro'))
  return done.returncode, told, pathlib.Path(volume.split(':')[0])


def test_triton_finds_a_repository(package, tmp_path):
  status, told, model = contained(
    package, tmp_path, '--server=triton', '--log-verbose=1'
  )
  assert status == 7
  assert '127.0.0.1:9000:8000' in told
  assert told[-2:] == ['--model-repository=/models', '--log-verbose=1']
  assert f'{model}:/models/child:ro' in told
  config = (model / 'config.pbtxt').read_text()
  assert 'dims: [ 8, 8, 1 ]' in config and 'TYPE_UINT8' in config
  images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
  assert onnx.load(model / '1')(images).shape == (3, 10)


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ([], 'launch/serve.sh CHILD'),
    (['nowhere'], 'allowed: a child package'),
    (['CHILD', '--server=apache'], 'allowed: litserve, triton or tensorflow'),
  ],
)
def test_the_script_refuses_in_a_line(package, arguments, words):
  arguments = [str(package) if a == 'CHILD' else a for a in arguments]
  done = subprocess.run(
    [ROOT / 'launch/serve.sh', *arguments],
    env={'PYTHON': sys.executable, 'PATH': '/usr/bin:/bin'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2 and words in done.stderr
