"""Files: read with a reason, written whole, by any number of writers."""

import json
import os
import subprocess
import sys

import pytest
import tiny
from etils import epath

from bignas_jax import cli
from bignas_jax.system import files, locks, storage
from bignas_jax.values import errors

# In processes of their own: JAX warns when a process that has it is forked.
_WRITE_OFTEN = """
import sys
from etils import epath
from bignas_jax.system import files
for _ in range(50):
  files.write_text(epath.Path(sys.argv[1]), sys.argv[2] * 50_000)
"""


def test_two_writers_of_a_file_leave_the_whole_of_one(tmp_path):
  path = tmp_path / 'file'
  writers = [
    subprocess.Popen(
      [sys.executable, '-c', _WRITE_OFTEN, path, text], env=tiny.environment()
    )
    for text in ('aa', 'bbbb')
  ]
  assert [one.wait() for one in writers] == [0, 0]
  assert path.read_text() in ('aa' * 50_000, 'bbbb' * 50_000)
  assert os.listdir(tmp_path) == ['file'], 'temporary files are gone'


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
  path = epath.Path(tmp_path / 'file')
  files.write_text(path, 'old')
  with pytest.raises(UnicodeEncodeError):
    files.write_text(path, '\ud800')
  assert path.read_text() == 'old' and os.listdir(tmp_path) == ['file']


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path):
  (tmp_path / 'there').mkdir()
  link, target = tmp_path / 'link', tmp_path / 'there' / 'file'
  link.symlink_to(target)
  files.write_text(epath.Path(link), 'new')
  assert link.is_symlink() and target.read_text() == 'new'


def test_json_has_no_infinity(tmp_path):
  path = epath.Path(tmp_path / 'file')
  files.write_json(path, {'a': [float('inf'), (float('nan'), 1.5)]})
  assert json.loads(path.read_text()) == {'a': [None, [None, 1.5]]}


@pytest.mark.parametrize(
  ('content', 'reason'),
  [
    (None, 'No such file'),
    ('directory', 'directory'),
    (b'\xff\xfe\x00', 'UTF-8'),
    (b'{"a": ', 'valid JSON'),
    (b'', 'valid JSON'),
    (b'[1, 2]', 'a JSON object'),
    (b'[' * 100_000, 'valid JSON'),
  ],
)
def test_what_cannot_be_read_is_named_with_the_reason(
  tmp_path, content, reason
):
  path = tmp_path / 'file.json'
  if content == 'directory':
    path.mkdir()
  elif content is not None:
    path.write_bytes(content)
  with pytest.raises(errors.UserError, match=reason) as caught:
    files.read_json(path)
  assert str(path) in str(caught.value) and '\n' not in str(caught.value)


def test_places_are_looked_at_before_the_work(tmp_path):
  (tmp_path / 'file').write_text('')
  files.check_writable(tmp_path, '--out')
  files.check_writable(tmp_path / 'a' / 'b', '--out')
  files.check_writable(tmp_path / 'file', '--out')
  assert os.listdir(tmp_path) == ['file'], 'nothing was made'
  for place in ('/proc/run', tmp_path / 'file' / 'a', tmp_path / ('x' * 300)):
    with pytest.raises(errors.UserError, match=r'--out: .*written to'):
      files.check_writable(place, '--out')


def test_a_file_is_wanted_and_no_directory(tmp_path):
  (tmp_path / 'file').write_text('')
  for name in ('file', 'new', 'a/new'):
    files.check_file(tmp_path / name, '--out')
  for place in (tmp_path, '/dev/null', '/proc/table.json'):
    with pytest.raises(errors.UserError, match='--out: got'):
      files.check_file(place, '--out')
  assert os.listdir(tmp_path) == ['file'], 'nothing was made'


def test_a_lock_is_held_by_one(tmp_path):
  code = (
    'import sys\n'
    'from bignas_jax.system import locks\n'
    'from bignas_jax.values import errors\n'
    'try:\n  with locks.hold(sys.argv[1], "workdir", "a free one"): pass\n'
    'except errors.UserError as error: sys.exit(str(error))'
  )

  def other():
    return subprocess.run(
      [sys.executable, '-c', code, tmp_path / '.lock'],
      env=tiny.environment(),
      capture_output=True,
      text=True,
      check=False,
    )

  with locks.hold(tmp_path / '.lock', 'workdir', 'a free one'):
    assert 'workdir: got' in other().stderr
  assert other().returncode == 0


def test_a_directory_is_its_own_lock(tmp_path):
  def held():
    return locks.hold(tmp_path, '--out', 'a free one')

  named = f'--out: got {str(tmp_path)!r}'
  refused = pytest.raises(errors.UserError, match=named)
  with held(), refused, held():
    pass
  with locks.hold(tmp_path, '--out', 'a free one'):
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_locks_gets_a_warning(
  tmp_path, monkeypatch, capsys
):
  def flock(file, how):
    del file, how
    raise OSError(38, 'Function not implemented')

  monkeypatch.setattr('fcntl.flock', flock)
  with locks.hold(tmp_path / '.lock', 'workdir', 'a free one'):
    pass
  assert 'warning' in capsys.readouterr().err


def test_an_error_of_a_place_is_one_line_of_a_command(tmp_path, capsys):
  def command(arguments):
    del arguments
    (tmp_path / 'missing' / 'file').write_text('')

  assert cli.status(command, []) == errors.FAILED
  assert capsys.readouterr().err.count('\n') == 1


def test_paths_that_are_none_are_refused():
  for text in ('', 'a\0b', 's3://bucket'):
    with pytest.raises(errors.UserError, match='path'):
      storage.path(text)
