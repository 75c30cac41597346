"""Child packages: written where nothing of anybody else's is lost."""

import contextlib
import json
import os
import pathlib
import shutil

import dying
import hypothesis
import hypothesis.strategies as st
import pytest
from etils import epath

from bignas_jax.deploy import package
from bignas_jax.system import digests, replacing, storage
from bignas_jax.values import errors

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden/run_0_1_0/children/best'
PACKAGE = {*package.FILES, 'README.md', 'config.json'}


@pytest.fixture
def child():
  return package.load(epath.Path(GOLDEN))


def _files(directory):
  return {
    str(path.relative_to(directory)): path.read_bytes()
    for path in directory.rglob('*')
    if path.is_file()
  }


def _export(directory, content=b'network'):
  directory.mkdir(parents=True)
  (directory / 'model.onnx').write_bytes(content)
  digest = digests.digest(epath.Path(directory / 'model.onnx'))
  told = {'files': {'model.onnx': {'sha256': digest}}}
  (directory / 'export.json').write_text(json.dumps({'formats': {'o': told}}))


def _foreign(kind, out):
  """Makes a place that is not to be touched; returns what is in it."""
  if kind == 'file':
    out.write_text('precious')
    return
  out.mkdir()
  if kind == 'directory':
    (out / 'chapter.txt').write_text('precious')
  elif kind == 'empty directory inside':
    (out / 'photos').mkdir()
  elif kind == 'run':
    shutil.copytree(GOLDEN.parents[1], out, dirs_exist_ok=True)
  elif kind == 'children':
    shutil.copytree(GOLDEN, out / 'best')
  elif kind == 'weights alone':
    (out / 'model.safetensors').write_text('downloaded')
  elif kind == 'a hidden file':
    (out / '.child.json.new').write_text('{"mine": 1}')
  elif kind == 'latency table':
    (out / 'latency.json').write_text('{"format": 1}')
  elif kind == 'package and notes':
    shutil.copytree(GOLDEN, out, dirs_exist_ok=True)
    (out / 'notes.txt').write_text('precious')
  elif kind == 'package and a changed export':
    shutil.copytree(GOLDEN, out, dirs_exist_ok=True)
    _export(out / 'export')
    (out / 'export/model.onnx').write_text('optimised by hand')
  elif kind == 'package and a link':
    shutil.copytree(GOLDEN, out, dirs_exist_ok=True)
    (out / 'latest').symlink_to('model.safetensors')


FOREIGN = [
  *('file', 'directory', 'empty directory inside', 'run', 'children'),
  *('package and notes', 'package and a changed export'),
  *('package and a link', 'weights alone', 'latency table'),
  'a hidden file',
]


@pytest.mark.parametrize('kind', FOREIGN)
def test_what_is_not_ours_is_refused_and_untouched(kind, child, tmp_path):
  out = tmp_path / 'thesis'
  _foreign(kind, out)
  (tmp_path / 'thesis.new').mkdir()
  (tmp_path / 'thesis.new/file').write_text('beside')
  before = _files(tmp_path)
  for act in (
    lambda: package.check_place(epath.Path(out)),
    lambda: package.save(epath.Path(out), child),
  ):
    with pytest.raises(errors.UserError, match=r'--out: .*thesis') as caught:
      act()
    assert '\n' not in str(caught.value)
    assert _files(tmp_path) == before


@pytest.mark.parametrize('kind', ['missing', 'deep', 'empty', 'link', 'older'])
def test_a_package_is_written_where_it_may_be(kind, child, tmp_path):
  out = tmp_path / 'deep' / 'a' if kind == 'deep' else tmp_path / 'a'
  if kind == 'empty':
    out.mkdir()
  elif kind == 'link':
    (tmp_path / 'there').mkdir()
    out.symlink_to(tmp_path / 'there')
  elif kind == 'older':
    out.mkdir()
    for name in package.FILES:
      (out / name).write_text('older')
  package.save(epath.Path(out), child)
  assert set(_files(out)) == PACKAGE
  assert package.load(epath.Path(out)).info['arch'] == child.info['arch']
  assert out.is_symlink() == (kind == 'link')
  left = {p.name for p in tmp_path.iterdir()}
  assert left <= {'a', 'deep', 'there'}, 'temporary directories are gone'


def test_what_was_made_of_an_older_child_goes_with_it_and_is_named(
  child, tmp_path, capsys
):
  out = tmp_path / 'a'
  package.save(epath.Path(out), child)
  _export(out / 'export')
  (out / 'latency.json').write_text('{}')
  package.save(epath.Path(out), child)
  assert set(_files(out)) == PACKAGE
  assert 'export, latency.json' in capsys.readouterr().err


def test_the_current_directory_may_be_empty_only(child, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  package.save(epath.Path('.'), child)
  assert set(os.listdir(tmp_path)) == PACKAGE
  with pytest.raises(errors.UserError, match='current one'):
    package.save(epath.Path('.'), child)


def test_a_dangling_link_and_a_place_without_permission_are_refused(tmp_path):
  (tmp_path / 'link').symlink_to(tmp_path / 'nowhere')
  for out in (tmp_path / 'link', '/proc/child'):
    with pytest.raises(errors.UserError, match='--out'):
      package.check_place(epath.Path(out))


@pytest.mark.parametrize('at', range(12))
def test_a_kill_in_an_empty_directory_can_be_repeated(child, tmp_path, at):
  """Dies at the at-th file, and then writes the package again."""
  out, wrap = tmp_path / 'a', dying.at(at)
  out.mkdir()

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(storage, 'write', wrap(storage.write))
    patch.setattr(os, 'unlink', wrap(os.unlink))
    with contextlib.suppress(dying.Killed):
      package.save(epath.Path(out), child)
  if 0 < at < 5:
    assert not (out / 'child.json').exists()
  package.save(epath.Path(out), child)
  assert set(_files(out)) == PACKAGE
  package.check_complete(epath.Path(out), package.load(epath.Path(out)))


def test_an_unfinished_package_keeps_what_was_changed(child, tmp_path):
  out = tmp_path / 'a'
  package.save(epath.Path(out), child)
  (out / 'child.json').rename(out / '.child.json.new')
  (out / 'README.md').write_text('my own notes')
  with pytest.raises(errors.UserError, match=r'README\.md'):
    package.save(epath.Path(out), child)
  assert (out / 'README.md').read_text() == 'my own notes'


@pytest.mark.parametrize('exchange', [True, False])
@hypothesis.settings(
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
  max_examples=25,
)
@hypothesis.given(at=st.integers(0, 12))
def test_a_kill_leaves_the_old_package_or_the_new_one(
  exchange, child, tmp_path_factory, at
):
  """Dies at the at-th call of the system that changes a file's name."""
  base = tmp_path_factory.mktemp('kill')
  out, old = base / 'a', {'child.json': b'old', 'model.safetensors': b'old'}
  out.mkdir()
  for name, content in old.items():
    (out / name).write_bytes(content)
  wrap = dying.at(at)

  def cannot(one, other):
    raise OSError(22, 'Invalid argument')

  with pytest.MonkeyPatch.context() as patch:
    for name in ('replace', 'rename', 'unlink', 'rmdir', 'mkdir'):
      patch.setattr(os, name, wrap(getattr(os, name)))
    real = replacing._exchange if exchange else cannot
    patch.setattr(replacing, '_exchange', wrap(real))
    with contextlib.suppress(dying.Killed):
      package.save(epath.Path(out), child)
  found = [_files(p) for p in base.iterdir()]
  if exchange:
    found = [_files(out)]
  new = {name: (GOLDEN / name).read_bytes() for name in package.FILES}
  whole = [f for f in found if f == old or _same_child(f, new)]
  assert whole, (at, [list(f) for f in found])


def _same_child(found, new):
  return (
    set(found) == PACKAGE
    and found['model.safetensors'] == new['model.safetensors']
  )
