"""Child packages in a bucket: replaced file by file, and killed between.

The bucket is in memory. `tests/test_bucket.py` does the same in a fake of Cloud
Storage, through the client that is used with the real one.
"""

import contextlib
import dataclasses
import json
import pathlib

import dying
import jax
import numpy as np
import pytest
from etils import epath
from etils.epath import backend
from fsspec.implementations import memory

from bignas_jax.deploy import package
from bignas_jax.system import digests, staging, storage
from bignas_jax.values import errors

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden/run_0_1_0/children/best'
OUT = epath.Path('gs://bucket/children/a')
PACKAGE = {*package.FILES, 'README.md', 'config.json'}
# Of a replacement: the mark, seven older files, four new ones, the mark.
STEPS = 13
OTHERS = {'children/a.txt', 'children/ab/child.json', 'child.json'}


class _Bucket(memory.MemoryFileSystem):
  """Lists a directory once until it changes it itself, as gcsfs does.

  What is both a file and a directory is a file, as with gcsfs.
  """

  cachable = False  # each test has its own

  def __init__(self):
    super().__init__(global_store=False)
    self._listed = {}

  @classmethod
  def _strip_protocol(cls, path):
    return super()._strip_protocol(path.removeprefix('gs://'))

  def ls(self, path, detail=True, **_):
    if path not in self._listed:
      self._listed[path] = super().ls(path)
    listed = self._listed[path]
    return listed if detail else [entry['name'] for entry in listed]

  def info(self, path, **_):
    is_file = self._strip_protocol(path) in self.store
    return super().ls(path)[0] if is_file else super().info(path)

  def invalidate_cache(self, path=None):
    self._listed.clear()

  def open(self, path, mode='rb', **options):
    if mode != 'rb':
      self.invalidate_cache()
    return super().open(path, mode, **options)

  def rm(self, path, recursive=False, maxdepth=None):
    self.invalidate_cache()
    super().rm(path, recursive, maxdepth)

  def put_by_another(self, name, content):
    """Another process writes: of this the client here hears nothing."""
    file = memory.MemoryFile(self, f'/bucket/{name}', content)
    self.store[f'/bucket/{name}'] = file

  def files(self):
    prefix = '/bucket/'
    return {
      name.removeprefix(prefix): file.getvalue()
      for name, file in self.store.items()
    }


@pytest.fixture
def bucket(monkeypatch):
  made = _Bucket()
  monkeypatch.setattr(backend.fsspec_backend, 'fs', lambda path: made)
  for name in OTHERS:
    made.put_by_another(name, b'precious')
  return made


@pytest.fixture
def children():
  """Three children with different weights."""
  child = package.load(epath.Path(GOLDEN))
  return [
    dataclasses.replace(child, variables=_filled(child.variables, value))
    for value in range(3)
  ]


def _filled(variables, value):
  return jax.tree.map(lambda x: np.full_like(x, value), variables)


def _export(content=b'network'):
  """What `export` and `benchmark child --keep` leave in a package."""
  storage.write(OUT / 'export/model.onnx', content)
  digest = digests.digest(OUT / 'export/model.onnx')
  told = {'files': {'model.onnx': {'sha256': digest}}}
  manifest = json.dumps({'formats': {'onnx': told}})
  storage.write(OUT / 'export/export.json', manifest)
  storage.write(OUT / 'latency.json', '{}')


def _save(bucket, child, kill_at):
  """Returns whether a package was written before the kill."""
  wrap = dying.at(kill_at)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(storage, 'write', wrap(storage.write))
    patch.setattr(bucket, 'rm', wrap(bucket.rm))
    with contextlib.suppress(dying.Killed):
      package.save(OUT, child)
      return True
  return False


def _readable():
  """Returns the child that can be read, as one of its weights, or None."""
  try:
    return _weight(package.load(OUT))
  except errors.UserError:
    return None


def _weight(child):
  return float(jax.tree.leaves(child.variables)[0].flat[0])


@pytest.mark.parametrize('killed_at', range(STEPS + 1))
def test_a_kill_in_a_bucket_can_be_repeated(bucket, children, killed_at):
  """Dies at a step, then at each step with another child; then it lives."""
  old, new, newer = map(_weight, children)
  package.save(OUT, children[0])
  _export()
  ended = _save(bucket, children[1], killed_at)
  assert ended == (killed_at == STEPS)
  assert _readable() in ([new] if ended else [old, new, None])
  assert _readable() == old or killed_at > 1, 'nothing is removed yet'
  left = dict(bucket.store)
  for again_at in range(STEPS + 1):
    bucket.store = dict(left)
    bucket.invalidate_cache()
    _save(bucket, children[2], again_at)
    assert _readable() in [old, new, newer, None]
    package.save(OUT, children[2])
    assert _readable() == newer
    there = {f'children/a/{name}' for name in PACKAGE}
    assert bucket.files().keys() == there | OTHERS


def test_what_goes_with_an_older_child_is_named(bucket, children, capsys):
  package.save(OUT, children[0])
  _export()
  package.save(OUT, children[1])
  assert 'the older one: export, latency.json\n' in capsys.readouterr().err


FOREIGN = {
  'notes.txt': b'precious',
  'README.md': b'my own notes',
  'config.json': b'{}',
  '.child.json.new': b'{"mine": 1}',
  'export/model.onnx': b'optimised by hand',
  'export/notes.txt': b'precious',
}


@pytest.mark.parametrize('killed_at', [None, 4, 10])
@pytest.mark.parametrize('name', FOREIGN)
def test_what_is_not_ours_stays_in_a_bucket(bucket, children, name, killed_at):
  """It came after the command had checked its place, and perhaps died."""
  package.save(OUT, children[0])
  _export()
  if killed_at:
    _save(bucket, children[1], killed_at)
  package.check_place(OUT)
  bucket.put_by_another(f'children/a/{name}', FOREIGN[name])
  before = bucket.files()
  with pytest.raises(errors.UserError, match=f'a with {name} in it'):
    package.save(OUT, children[1])
  assert bucket.files() == before


def test_a_file_in_a_bucket_is_no_directory(bucket, children):
  """A bucket may hold `a` and `a/README.md`; the client then lists `a` only."""
  for name in 'a', 'a/README.md':
    bucket.put_by_another(f'children/{name}', b'precious')
  before = bucket.files()
  with pytest.raises(errors.UserError, match='a new directory'):
    package.save(OUT, children[0])
  assert bucket.files() == before


def test_an_export_sees_what_others_have_written_since(bucket):
  bucket.put_by_another('children/a/saved_model/b', b'precious')
  assert len([*(OUT / 'saved_model').iterdir()]) == 1
  bucket.put_by_another('children/a/saved_model/a', b'precious')
  with pytest.raises(errors.UserError, match='with saved_model/a in it'):
    staging.check_files(OUT, ['saved_model'], [])
