"""Whatever is wrong with a file of a run, its report says which one it is."""

import copy
import json
import pathlib
import shutil

import pytest
import test_report
from etils import epath

from bignas_jax import cli, report
from bignas_jax.reporting import contents, recommendations, run_files
from bignas_jax.selection import recommended
from bignas_jax.spaces import arch
from bignas_jax.system import files
from bignas_jax.values import errors

# What the report reads, beside `config.json`.
JSON = {
  'run.json': contents.Card,
  'search/best.json': contents.Best,
  'search/calibration.json': contents.Calibration,
  'search/predictor.json': contents.Predictor,
  'search/recommended.json': recommendations.Recommended,
  'ranking.json': contents.Ranking,
  'children/best/child.json': contents.Child,
  'children/best/export/export.json': contents.Exports,
  'children/best/latency.json': contents.Measured,
}
FILES = (
  *('config.json', 'metrics.jsonl'),
  *('search/archive.csv', 'search/children.csv'),
  *JSON,
)
WRONG = (
  None,
  True,
  -3,
  1e300,
  'text',
  [],
  [5],
  [None],
  {},
  {'a': 'b'},
  {'a': []},
)
EVIL = '<script>alert("$x_{$ & \'猫\\udcff\n\t")</script>'


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A finished run with every file, but for weights."""
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  test_report.full(workdir)
  path = epath.Path(workdir / 'search/predictor.json')
  found = files.read_json(path)
  few = {name: found[name][:2] for name in ('predicted', 'measured')}
  files.write_json(path, found | few)
  one = {'started': 'today', 'status': 'finished', 'hosts': ['a']}
  one |= {'first_step': 0, 'step': 600, 'hours': 1.5, 'devices': 8}
  one |= {'device_kind': 'TPU v4', 'commit': {'sha': '0123', 'dirty': True}}
  card = {'status': 'finished', 'step': 600, 'of': 600, 'images': 57600}
  card |= {'hours': 1.5, 'sittings': [one, one]}
  files.write_json(epath.Path(workdir / 'run.json'), card)
  child = epath.Path(workdir / 'children/best')
  (child / 'export').mkdir()
  entry = {'max_abs_diff': 2e-6, 'top1_agreement': 1.0, 'bytes': 123456}
  reference = {'split': 'test', 'images': 1000, 'logits_scale': 20.0}
  manifest = {'reference': reference, 'formats': {'onnx': entry}}
  files.write_json(child / 'export/export.json', manifest)
  row = {'device': 'Abacus 2', 'runtime': 'onnx', 'batch': 4}
  row |= {'median_ms': 12.3, 'p90_ms': 13.4, 'images_per_s': 325.2}
  files.write_json(child / 'latency.json', {'rows': [row, row]})
  return workdir


@pytest.fixture
def copied(whole, tmp_path):
  return pathlib.Path(shutil.copytree(whole, tmp_path / 'run'))


def told(workdir, capsys):
  """Status and what was said, by the command."""
  status = cli.status(report.main, [f'--workdir={workdir}'])
  captured = capsys.readouterr()
  assert 'Traceback' not in captured.err
  return status, captured.out, captured.err.splitlines()


def read(workdir, name):
  """As `run_files.read` reads a file, but no other."""
  path = epath.Path(workdir / name)
  if name == 'search/best.json':
    run_files._best_arch(path, test_report._SPACE)
  if name == 'children/best/child.json':
    run_files.child(path)
  contents.read(path, JSON[name])
  if name == 'search/recommended.json':
    recommended._archs(path, test_report._SPACE)


def _directory(path):
  path.unlink()
  path.mkdir()


DAMAGE = {
  'empty': lambda path: path.write_text(''),
  'cut': lambda path: path.write_bytes(path.read_bytes()[:-60]),
  'a directory': _directory,
  'a list': lambda path: path.write_text('[]'),
  'a number': lambda path: path.write_text('12'),
  'a number that is too long': lambda path: path.write_text('1' * 5000),
  'too deep': lambda path: path.write_text('[' * 200_000),
  'not UTF-8': lambda path: path.write_bytes(b'{"a": "\xff"}'),
  'zeros': lambda path: path.write_bytes(bytes(100)),
}


@pytest.mark.parametrize('damage', DAMAGE)
@pytest.mark.parametrize('name', FILES)
def test_a_damaged_file_is_named(copied, name, damage):
  DAMAGE[damage](copied / name)
  try:
    run_files.read(epath.Path(copied))
  except errors.UserError as error:
    assert name in str(error) and '\n' not in str(error)
  else:  # of lines that are added, the last may be missing
    assert name in ('metrics.jsonl', 'search/archive.csv')
    assert damage != 'a directory'


def test_the_command_says_so_in_a_line(copied, capsys):
  DAMAGE['cut'](copied / 'children/best/latency.json')
  status, out, lines = told(copied, capsys)
  assert (status, out, len(lines)) == (2, '', 1), lines
  assert 'children/best/latency.json: got ' in lines[0]
  assert not (copied / 'report.html').exists()


def places(value, path=()):
  """Of everything inside a JSON value."""
  inside = value.items() if isinstance(value, dict) else ()
  for key, inner in enumerate(value) if isinstance(value, list) else inside:
    yield (*path, key)
    yield from places(inner, (*path, key))


def put(value, path, new):
  """A copy with another value at a place; None: without the place."""
  value = copy.deepcopy(value)
  inner = value
  for key in path[:-1]:
    inner = inner[key]
  if new is KeyError:
    del inner[path[-1]]
  else:
    inner[path[-1]] = new
  return value


@pytest.mark.parametrize('name', JSON)
def test_a_value_of_another_type_is_named_or_unknown(copied, name):
  """At every place of every file, however deep."""
  path = copied / name
  right = json.loads(path.read_text())
  refused = 0
  for place in places(right):
    for wrong in (KeyError, *WRONG):
      path.write_text(json.dumps(put(right, place, wrong)))
      try:
        read(copied, name)
      except errors.UserError as error:
        refused += 1
        assert name in str(error) and '\n' not in str(error)
  assert refused > 3


@pytest.mark.parametrize('wrong', ['nothing', 'something else'])
def test_what_is_unknown_is_a_dash(copied, capsys, wrong):
  """Each value that may be wrong is, all at once."""
  changes = [KeyError] if wrong == 'nothing' else WRONG
  for name in JSON:
    path = copied / name
    value = json.loads(path.read_text())
    for place in sorted(places(value), key=lambda p: (-len(p), repr(p))):
      for change in changes:
        try:
          changed = put(value, place, change)
          path.write_text(json.dumps(changed))
          read(copied, name)
          value = changed
        except (errors.UserError, IndexError):
          pass  # that one may not be wrong, or has gone with the one before
    path.write_text(json.dumps(value))
  status, _, lines = told(copied, capsys)
  assert status == 0, lines
  page = test_report._read(copied)
  assert 'None' not in page.text[: page.text.index('Config and versions')]
  assert 'nan' not in page.text.lower().split()


@pytest.mark.parametrize('step', ['-1', '9' * 400])
def test_a_step_without_a_place_is_named(copied, step):
  path = copied / 'metrics.jsonl'
  path.write_text(f'{{"step": 20, "lr": 0.1}}\n{{"step": {step}}}\n')
  with pytest.raises(errors.UserError, match=r'metrics\.jsonl: step: got'):
    run_files.read(epath.Path(copied))


def test_a_logged_value_may_be_anything(copied, capsys):
  lines = [
    {'step': step, 'lr': wrong, 'images_per_s': wrong}
    | {'eval/biggest/top1': wrong, 'train/top1_random': wrong}
    for step, wrong in enumerate((*WRONG, 10**400, 1e308, -1e308, 0.5))
  ]
  path = copied / 'metrics.jsonl'
  path.write_text('\n'.join(map(json.dumps, lines)))
  assert told(copied, capsys)[0] == 0


def test_names_are_text_and_never_markup(copied, capsys):
  """Of directories, spaces, classes, devices, whatever is in a file."""

  def renamed(value):
    if isinstance(value, dict):
      return {
        name: inner if name in ('network', 'arch', 'split') else renamed(inner)
        for name, inner in value.items()
      }
    if isinstance(value, list):
      return list(map(renamed, value))
    return EVIL if isinstance(value, str) else value

  for name in JSON:
    path = copied / name
    value = renamed(json.loads(path.read_text()))
    if name.endswith('child.json'):
      value |= {'class_names': [EVIL] * 10, 'space': EVIL}
      value['network']['name'] = EVIL
    if name.endswith('export.json'):
      value['formats'] = {EVIL: value['formats']['onnx']}
    path.write_text(json.dumps(value))
  path = copied / 'config.json'
  config = json.loads(path.read_text())
  config['version'] = EVIL
  config['config']['space']['name'] = EVIL
  config['config']['data']['directory'] = EVIL
  path.write_text(json.dumps(config))
  folder = copied / 'children' / EVIL.replace('/', '|').replace('\n', '\udcfe')
  (copied / 'children/best').rename(folder)
  status, out, lines = told(copied, capsys)
  assert status == 0, lines
  assert json.loads(out)['children']
  page = test_report._read(copied)
  assert not {'script', 'b'} & {tag for tag, _ in page.tags}
  assert page.text.count('<script>alert("$x_{$ &') > 10
  shown = str(folder.name).encode('utf-8', 'backslashreplace').decode()
  assert shown in page.headings


def test_a_page_that_cannot_be_written_is_said_before(copied, capsys):
  (copied / 'report.html').mkdir()
  status, out, lines = told(copied, capsys)
  assert (status, out, len(lines)) == (2, '', 1)
  assert 'report.html' in lines[0] and '--workdir' in lines[0]
  (copied / 'report.html').rmdir()
  if copied.stat().st_uid != 0:
    copied.chmod(0o555)
    assert told(copied, capsys)[0] == 2


def test_a_hidden_directory_is_no_child(copied):
  """Of a command that was killed while it wrote."""
  shutil.copytree(copied / 'children/best', copied / 'children/.best.12.new')
  found = run_files.read(epath.Path(copied)).children
  assert [child.name for child in found] == ['best']
  assert found[0].arch in [
    arch.from_dict(
      found[0].space,
      json.loads((copied / 'search/best.json').read_text())['arch'],
    )
  ]
