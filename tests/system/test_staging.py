"""Exports come into a directory whole, and only in place of what is ours."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import tiny
from etils import epath

from bignas_jax.system import staging
from bignas_jax.values import errors

MADE = {
  'onnx': {'model.onnx': b'new graph'},
  'saved_model': {
    'saved_model/1/saved_model.pb': b'new model',
    'saved_model/1/variables/index': b'new index',
  },
}
OLDER = {
  'onnx': {'model.onnx': b'old graph', 'model.int8.onnx': b'small'},
  'triton': {'triton/child/1/model.onnx': b'old', 'triton/child/c': b'old'},
}


def manifest(formats):
  """What an export of these files says."""
  told = {
    name: {
      'files': {
        n: {'sha256': hashlib.sha256(data).hexdigest()}
        for n, data in contents.items()
      }
    }
    for name, contents in formats.items()
  }
  return {'format': 1, 'child': 'a', 'input': 'b', 'formats': told}


def write(directory, formats):
  for contents in formats.values():
    for name, data in contents.items():
      (directory / name).parent.mkdir(parents=True, exist_ok=True)
      (directory / name).write_bytes(data)


def there(directory):
  """All files, with what is in them, and empty directories."""
  return {
    str(p.relative_to(directory)): None if p.is_dir() else p.read_bytes()
    for p in pathlib.Path(directory).rglob('*')
    if not p.is_dir() or not any(p.iterdir())
  }


def flat(formats):
  return {n: data for files in formats.values() for n, data in files.items()}


def export(out, formats=MADE):
  """What the command does with what it has made."""
  out = epath.Path(out)
  with staging.staging(out) as stage:
    for name, contents in formats.items():
      write(stage / name, {name: contents})
    tops = {name.split('/')[0] for name in flat(formats)}
    staging.check_files(out, tops, staging.names(staging.earlier(out)))
    staging.install(out, stage, manifest(formats), formats)


@pytest.fixture
def older(tmp_path):
  """An export of before, beside a file that is not ours."""
  out = tmp_path / 'export'
  export(out, OLDER)
  (out / 'precious').write_bytes(b'mine')
  (out / 'triton/child/notes').write_bytes(b'mine')
  return out


def test_an_export_takes_the_place_of_an_older_one(older):
  export(older)
  found = there(older)
  assert json.loads(found.pop('export.json')) == manifest(MADE)
  assert found.pop('precious') == found.pop('triton/child/notes') == b'mine'
  assert found == flat(MADE)
  assert list(older.parent.iterdir()) == [older]


def test_directories_go_that_are_then_empty(tmp_path):
  export(tmp_path / 'a/b', MADE)
  export(tmp_path / 'a/b', {'x': {'x': b'x'}})
  assert set(there(tmp_path / 'a/b')) == {'x', 'export.json'}


def _link(path):
  path.with_name('elsewhere').write_bytes(path.read_bytes())
  path.unlink()
  path.symlink_to('elsewhere')


CHANGES = {
  'another file': lambda path: path.write_bytes(b'quantised by hand'),
  'a link': _link,
  'a directory': lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize('change', CHANGES)
@pytest.mark.parametrize('name', ['model.onnx', 'triton/child/c'])
def test_what_has_changed_since_is_left_alone(older, name, change):
  CHANGES[change](older / name)
  before = there(older)
  with pytest.raises(errors.UserError, match=f'--out.*{name}'):
    export(older)
  assert there(older) == before


@pytest.mark.parametrize(
  'name', ['model.onnx', 'saved_model/notes', 'saved_model/1/variables/a/']
)
def test_what_is_in_no_manifest_is_left_alone(tmp_path, name):
  mine = tmp_path / 'out' / name
  mine.parent.mkdir(parents=True)
  mine.mkdir() if name.endswith('/') else mine.write_bytes(b'mine')
  before = there(tmp_path)
  with pytest.raises(errors.UserError, match=f'--out.*{name}'):
    export(tmp_path / 'out')
  assert there(tmp_path) == before


@pytest.mark.parametrize(
  'told',
  [
    *('{}', '[]', 'x', '{"formats": 5}', '{"formats": {"a": 5}}'),
    '{"formats": {"a": {"files": {"b": "c"}}}}',
    '{"formats": {"a": {"files": {"../b": {"sha256": "c"}}}}}',
    '{"formats": {"a": {"files": {"": {"sha256": "c"}}}}}',
    '{"formats": {}, "format": 2}',
  ],
)
def test_a_manifest_that_is_none_is_left_alone(tmp_path, told):
  (tmp_path / 'export.json').write_text(told)
  with pytest.raises(errors.UserError, match=r'export\.json'):
    export(tmp_path)
  assert there(tmp_path) == {'export.json': told.encode()}


def test_places_that_are_no_places(tmp_path, monkeypatch):
  child = tmp_path / 'child'
  child.mkdir()
  (tmp_path / 'file').write_text('mine')
  (tmp_path / 'link').symlink_to(child)
  (tmp_path / 'dangling').symlink_to(tmp_path / 'nowhere')
  monkeypatch.chdir(tmp_path)
  before = {path.name for path in tmp_path.iterdir()}
  wrong = ('child', 'child/../child', '.', 'file', 'file/a', 'link', 'dangling')
  for name in (*wrong, '/proc/a', str(tmp_path)):
    with pytest.raises(errors.UserError, match='--out: got'):
      staging.check_place(epath.Path(name), [epath.Path(child)])
  for name in ('new', 'new/deep', 'child/export'):
    staging.check_place(epath.Path(name), [epath.Path(child)])
  assert {path.name for path in tmp_path.iterdir()} == before


def test_what_fails_leaves_nothing(tmp_path):
  (tmp_path / 'a').mkdir()
  for error in (ZeroDivisionError, KeyboardInterrupt):
    out = epath.Path(tmp_path / 'a/b/c')
    with pytest.raises(error), staging.staging(out) as stage:
      (stage / 'file').write_text('half')
      raise error
  assert there(tmp_path) == {'a': None}


def test_one_that_was_killed_is_named_and_left_alone(tmp_path, capsys):
  stale = tmp_path / 'out/.export.0123456789ab.new'
  (stale / 'onnx').mkdir(parents=True)
  export(tmp_path / 'out')
  assert f'{stale} is of an export that was killed' in capsys.readouterr().err
  assert (stale / 'onnx').is_dir()


def test_two_at_once(tmp_path):
  """The second one is refused, in another process, too."""
  out = tmp_path / 'out'
  code = (
    'import sys\nfrom etils import epath\n'
    'from bignas_jax.values import errors\n'
    'from bignas_jax.system import staging\n'
    'try:\n  with staging.staging(epath.Path(sys.argv[1])): pass\n'
    'except errors.UserError as error: sys.exit(str(error))'
  )
  with staging.staging(epath.Path(out)):
    other = subprocess.run(
      [sys.executable, '-c', code, out],
      env=tiny.environment(),
      capture_output=True,
      text=True,
      check=False,
    )
    assert 'no other export' in other.stderr and other.returncode == 1
    with pytest.raises(errors.UserError, match='no other export'):
      export(out)
  export(out)


class _Killed(BaseException):
  pass


def test_a_kill_leaves_an_export_or_none(tmp_path):
  """Dies at each call of the system that changes a name; then runs again."""
  at, survived = 0, False
  while not survived:
    base = tmp_path / str(at)
    out = base / 'export'
    export(out, OLDER)
    (out / 'precious').write_bytes(b'mine')
    calls, survived = 0, True

    def dying(function, at=at):
      def act(*arguments, **named):
        nonlocal calls
        calls += 1
        if calls > at:
          raise _Killed
        return function(*arguments, **named)

      return act

    with pytest.MonkeyPatch.context() as patch:
      for name in ('replace', 'rename', 'unlink', 'rmdir', 'mkdir'):
        patch.setattr(os, name, dying(getattr(os, name)))
      patch.setattr(shutil, 'rmtree', dying(shutil.rmtree))
      with contextlib.suppress(_Killed):
        export(out)
        calls = 0
    if calls:
      survived = False
    told = staging.read_manifest(epath.Path(out))
    if told:
      formats = MADE if 'saved_model' in told['formats'] else OLDER
      assert told == manifest(formats)
      found = there(out)
      for name, data in flat(formats).items():
        assert found[name] == data, (at, name)
    assert (out / 'precious').read_bytes() == b'mine'
    export(out)
    expected = {*flat(MADE), 'precious', 'export.json'}
    assert {n for n in there(out) if '.new' not in n} == expected, at
    at += 1
  assert at > 12


def test_what_a_killed_export_had_not_touched_is_kept(tmp_path):
  export(tmp_path, OLDER)
  older = (tmp_path / 'export.json').rename(tmp_path / '.export.json.old')
  (tmp_path / '.export.json.new').write_text(json.dumps(manifest(MADE)))
  (tmp_path / 'model.onnx').write_bytes(MADE['onnx']['model.onnx'])
  earlier = staging.earlier(epath.Path(tmp_path))
  assert set(earlier['formats']) == {'triton'} and earlier['child'] == 'a'
  assert older.exists()
