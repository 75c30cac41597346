"""Every command with every file that it reads damaged: one line, no more.

The run and the child are of version 0.1.0 (`golden`), with an export and a
measurement made of the child.
"""

import contextlib
import ctypes
import importlib
import json
import os
import pathlib
import shutil
import tempfile

import pytest
import tiny
from test_versions import CONFIG, GOLDEN

from bignas_jax import cli

_OF_RUN = [
  'run/config.json',
  'run/checkpoints/4/receipt.json',
  'run/checkpoints/4/default/_METADATA',
  'run/checkpoints/4/default/manifest.ocdbt',
  'run/rollbacks.json',
]
_OF_SEARCH = ['run/search/archive.csv', 'run/search/best.json']
_OF_CHILD = [
  'run/children/best/child.json',
  'run/children/best/model.safetensors',
]
_MEASURED = [
  'run/children/best/export/export.json',
  'run/children/best/latency.json',
]
# By command: its options, and the files that it reads.
COMMANDS = {
  'main': (
    ['--config={base}/config.py', '--workdir={base}/run'],
    ['config.py', *_OF_RUN, 'run/metrics.jsonl', 'run/run.json'],
  ),
  'search': (
    ['--workdir={base}/run', '--strategy=random', '--evaluations=3'],
    [*_OF_RUN, *_OF_SEARCH, 'run/search/calibration.json'],
  ),
  'extract': (
    ['--workdir={base}/run', '--out={base}/run/children/best'],
    [*_OF_RUN, 'run/search/best.json', *_OF_CHILD, *_MEASURED],
  ),
  'evaluate': (['--child={base}/run/children/best'], _OF_CHILD),
  'export': (
    ['--child={base}/run/children/best', '--format=onnx', '--images=20'],
    [*_OF_CHILD, *_MEASURED, 'run/children/best/export/model.onnx'],
  ),
  'report': (
    ['--workdir={base}/run'],
    [
      'run/config.json',
      'run/metrics.jsonl',
      'run/run.json',
      *_OF_SEARCH,
      'run/search/calibration.json',
      _OF_CHILD[0],
      *_MEASURED,
    ],
  ),
  'cost': (
    ['--space=mnist', '--arch={base}/run/search/best.json'],
    ['run/search/best.json'],
  ),
  'serve': (['--child={base}/run/children/best'], _OF_CHILD[:1]),
}
DAMAGES = ('cut', 'emptied', 'binary', 'a directory', 'missing', 'unreadable')
CASES = [
  (command, file, damage)
  for command, (_, files) in COMMANDS.items()
  for file in files
  for damage in DAMAGES
  # What is not there was not made, and is made; a cut pickle of text is text.
  if not (command == 'serve' and damage == 'missing')
]
# A few of each kind in every test run; all of them with `-m slow`.
QUICK_CASES = [
  ('main', 'config.py', 'binary'),
  ('main', 'run/config.json', 'cut'),
  ('main', 'run/rollbacks.json', 'a directory'),
  ('search', 'run/config.json', 'unreadable'),
  ('search', 'run/search/archive.csv', 'binary'),
  ('search', 'run/search/best.json', 'a directory'),
  ('extract', 'run/search/best.json', 'cut'),
  ('extract', 'run/children/best/export/export.json', 'cut'),
  ('extract', 'run/checkpoints/4/receipt.json', 'emptied'),
  ('evaluate', 'run/children/best/child.json', 'a directory'),
  ('evaluate', 'run/children/best/model.safetensors', 'cut'),
  ('export', 'run/children/best/export/export.json', 'binary'),
  ('report', 'run/run.json', 'emptied'),
  ('report', 'run/children/best/latency.json', 'cut'),
  ('report', 'run/search/archive.csv', 'unreadable'),
  ('cost', 'run/search/best.json', 'binary'),
  ('serve', 'run/children/best/child.json', 'emptied'),
]


@pytest.fixture(scope='module')
def whole():
  """A directory that other users can read: the run, a config, an export."""
  with tempfile.TemporaryDirectory() as name:
    base = pathlib.Path(name)
    shutil.copytree(GOLDEN, base / 'run')
    (base / 'config.py').write_text(CONFIG)
    (base / 'run/rollbacks.json').write_text('[]\n')
    child = base / 'run/children/best'
    arguments = [f'--child={child}', '--format=onnx', '--images=20']
    assert cli.status(_command('export'), arguments) == 0
    row = {'runtime': 'jax', 'device': 'x', 'batch': 1, 'median_ms': 1.0}
    (child / 'latency.json').write_text(json.dumps({'rows': [row]}))
    yield base


def _command(name):
  return importlib.import_module(f'bignas_jax.{name}').main


def _damage(path, how):
  if how == 'unreadable':
    path.chmod(0)
    return
  content = path.read_bytes()
  path.unlink()
  if how == 'a directory':
    path.mkdir()
  elif how != 'missing':
    changed = {
      'cut': content[: len(content) // 2],
      'emptied': b'',
      'binary': b'\xff\xfe\0' + bytes(range(256)),
    }
    path.write_bytes(changed[how])


class _Sets(ctypes.Structure):
  _fields_ = (
    ('effective', ctypes.c_uint32),
    ('permitted', ctypes.c_uint32),
    ('inheritable', ctypes.c_uint32),
  )


@contextlib.contextmanager
def _bound_by_permissions():
  """Root may read everything: two capabilities, capset(2), of this thread."""
  if os.geteuid() != 0:
    yield
    return
  libc = ctypes.CDLL(None, use_errno=True)
  header = (ctypes.c_uint32 * 2)(0x20080522, 0)
  sets = (_Sets * 2)()
  assert libc.capget(header, sets) == 0
  before = sets[0].effective
  sets[0].effective = before & ~(1 << 1 | 1 << 2)  # DAC_OVERRIDE, READ_SEARCH
  assert libc.capset(header, sets) == 0
  try:
    yield
  finally:
    sets[0].effective = before
    assert libc.capset(header, sets) == 0


def _contents(base):
  """Of all files but locks, compiled programs and events."""
  left_out = ('.lock', 'events')
  return {
    str(path.relative_to(base)): path.read_bytes()
    for path in sorted(base.rglob('*'))
    if path.is_file()
    and os.access(path, os.R_OK, effective_ids=True)
    and not path.name.startswith(left_out)
    and 'compiled' not in path.parts
  }


def _check(whole, case, capsys):
  """Ends with one of our statuses, one line, and nothing else changed."""
  command, file, damage = case
  with tempfile.TemporaryDirectory() as name:
    base = pathlib.Path(name)
    shutil.copytree(whole, base, dirs_exist_ok=True)
    options = [o.format(base=base) for o in COMMANDS[command][0]]
    _damage(base / file, damage)
    with _bound_by_permissions():
      before = _contents(base)
      status = cli.status(_command(command), options)
      after = _contents(base)
    said = capsys.readouterr().err
    assert status in (0, 1, 2), said
    assert 'Traceback' not in said
    if status == 0:
      return
    errors = [x for x in said.splitlines() if x.startswith('error: ')]
    assert len(errors) == 1 and said.splitlines()[-1] == errors[0], said
    assert base.name in errors[0] or file.split('/')[-1] in errors[0], said
    if command == 'main' and file != 'run/run.json':
      # The run card says that a session failed.
      before.pop('run/run.json'), after.pop('run/run.json')
    assert after == before


@pytest.mark.parametrize('case', QUICK_CASES, ids=' '.join)
def test_a_damaged_file_is_one_line(case, whole, capsys, monkeypatch):
  monkeypatch.syspath_prepend(str(pathlib.Path(tiny.__file__).parent))
  _check(whole, case, capsys)


@pytest.mark.slow
@pytest.mark.parametrize('case', CASES, ids=' '.join)
def test_every_damaged_file_is_one_line(case, whole, capsys):
  _check(whole, case, capsys)
