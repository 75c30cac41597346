"""What older versions have written is read for ever.

`golden/run_0_1_0` is the work directory, with a child, that version 0.1.0 left
of four steps of the config below. It must never be written anew: if it can no
longer be read, people's runs and children cannot either.
"""

import dataclasses
import importlib
import json
import pathlib
import shutil

import pytest
import tiny
from etils import epath

import bignas_jax
from bignas_jax import cli
from bignas_jax.data import shards
from bignas_jax.deploy import package
from bignas_jax.estimates import compiler_reports
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import directory, rollbacks, run_card
from bignas_jax.system import files
from bignas_jax.values import errors, schema, stored

GOLDEN = pathlib.Path(__file__).parent / 'golden/run_0_1_0'
CONFIG = """
import tiny
from bignas_jax.runs.config import Calibration


def get_config():
  return tiny.config(
    space=tiny.QUICK,
    steps=4,
    batch_size=8,
    eval_every=4,
    log_every=2,
    checkpoint_every=2,
    keep_checkpoints=1,
    calibration=Calibration(images=32, batch_size=32),
  )
"""


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A copy, which the tests below go on with in their order."""
  base = tmp_path_factory.mktemp('versions')
  (base / 'config.py').write_text(CONFIG)
  return pathlib.Path(shutil.copytree(GOLDEN, base / 'run'))


@pytest.fixture
def command(run, capsys, monkeypatch):
  """Runs a command, and returns its result."""
  monkeypatch.syspath_prepend(str(pathlib.Path(tiny.__file__).parent))

  def call(name, *options):
    module = importlib.import_module(f'bignas_jax.{name}')
    status = cli.status(module.main, options)
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return json.loads(captured.out.splitlines()[-1])

  return call


def _rewritten(path, change):
  fields = json.loads(path.read_text())
  change(fields)
  path.write_text(json.dumps(fields))


# The whole run.


def test_an_old_run_goes_on(run, command):
  """Nothing is left to do, so that it evaluates; rounding may move an image."""
  config = f'--config={run.parent}/config.py'
  found = command('main', config, f'--workdir={run}')
  assert found['step'] == 4
  last = json.loads((GOLDEN / 'metrics.jsonl').read_text().splitlines()[-1])
  for name in ('eval/biggest/top1', 'eval/smallest/top1'):
    assert found[name] == pytest.approx(last[name], abs=2e-3)


def test_an_old_run_is_searched_further(run, command):
  found = command(
    'search', f'--workdir={run}', '--strategy=random', '--evaluations=4'
  )
  before = json.loads((GOLDEN / 'search/best.json').read_text())
  assert found['evaluated'] == 4 and found['top1'] >= before['top1'] - 2e-3


def test_a_child_of_an_old_run_is_extracted(run, command):
  found = command(
    'extract', f'--workdir={run}', '--arch=smallest', f'--out={run}/children/x'
  )
  before = json.loads((GOLDEN / 'children/best/child.json').read_text())
  assert found['macs'] == before['macs']
  # One run: the config's digest is what it was when the run started.
  assert found['source']['config_sha256'] == before['source']['config_sha256']
  top1 = before['accuracy']['top1']
  assert found['accuracy']['top1'] == pytest.approx(top1, abs=2e-3)


def test_an_old_child_is_evaluated_and_exported(run, command):
  child = f'--child={run}/children/best'
  before = json.loads((GOLDEN / 'children/best/child.json').read_text())
  found = command('evaluate', child)
  assert found['top1'] == pytest.approx(before['accuracy']['top1'], abs=2e-3)
  found = command('export', child, '--format=onnx', '--images=20')
  assert found['verified']


def test_an_old_run_is_reported(run, command):
  command('report', f'--workdir={run}')
  text = (run / 'report.html').read_text()
  assert 'of another config' not in text
  assert 'extracted as best' in text or 'best' in text


# What config.json means.


@pytest.fixture
def copied(tmp_path):
  """Of `config.json` alone, for a test to change."""
  workdir = epath.Path(tmp_path / 'run')
  workdir.mkdir()
  shutil.copy(GOLDEN / 'config.json', workdir / 'config.json')
  return workdir


def test_a_field_that_an_old_run_does_not_know_has_its_default(copied):
  """As if the newer version had brought these fields."""
  config = directory.load_config(copied)
  assert config_lib.check(config) == config

  def forget(fields):
    del fields['config']['recompute'], fields['config']['optimizer']['nesterov']
    del fields['config']['space']['padding'], fields['config']['recovery']

  _rewritten(copied / 'config.json', forget)
  before = (copied / 'config.json').read_text()
  assert directory.load_config(copied) == config
  directory.claim(copied, config)
  assert (copied / 'config.json').read_text() == before
  other = dataclasses.replace(config, recompute=True)
  allowed = r'differs in recompute \(False there, True here\)$'
  with pytest.raises(errors.UserError, match=allowed):
    directory.claim(copied, other)


def test_a_number_means_the_same_however_it_is_written(copied):
  config = directory.load_config(copied)
  assert config.schedule.decay_steps == 3.0

  def write(fields):
    fields['config']['rule']['edges'][0]['weight'] = 1

  _rewritten(copied / 'config.json', write)
  directory.claim(copied, config)


@pytest.mark.parametrize('part', ['', 'optimizer', 'space', 'rule.edges[0]'])
def test_a_field_that_is_not_known_is_named_with_both_versions(copied, part):
  def add(fields):
    fields['version'] = '9.1.0'
    inner = fields['config']
    if part == 'rule.edges[0]':
      inner = inner['rule']['edges'][0]
    elif part:
      inner = inner[part]
    inner['tempo'] = 1

  _rewritten(copied / 'config.json', add)
  path = f'config.{part}.tempo'.replace('..', '.')
  for use in (
    lambda: directory.load_config(copied),
    lambda: directory.claim(copied, tiny.config()),
  ):
    with pytest.raises(errors.UserError) as refused:
      use()
    line = str(refused.value)
    assert line.startswith(f'{copied}/config.json: {path}: got')
    assert '9.1.0' in line and bignas_jax.__version__ in line


def test_a_newer_format_is_named_with_both_versions(copied):
  _rewritten(
    copied / 'config.json',
    lambda fields: fields.update(format=2, version='9.1.0'),
  )
  with pytest.raises(errors.UserError) as refused:
    directory.load_config(copied)
  line = str(refused.value)
  assert line.startswith(f'{copied}/config.json: format: got')
  assert '9.1.0' in line and bignas_jax.__version__ in line


def test_what_is_written_now_has_a_format(tmp_path):
  directory.claim(epath.Path(tmp_path), tiny.config())
  fields = json.loads((tmp_path / 'config.json').read_text())
  assert fields['format'] == directory.FORMAT
  assert set(fields) >= {'version', 'seed', 'config_sha256', 'config'}


def _leaves(value, path=()):
  """Paths of all that is in nested dicts and lists, the dicts too."""
  if isinstance(value, dict | list):
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in pairs:
      yield (*path, name)
      yield from _leaves(inner, (*path, name))


def _told(path):
  text = ''.join(f'[{s}]' if isinstance(s, int) else f'.{s}' for s in path)
  return text.removeprefix('.')


FIELDS = json.loads((GOLDEN / 'config.json').read_text())
TOLD = [p for p in _leaves(FIELDS) if p[0] not in ('seed',)]
_WRONG = {'an object': {'x': 0}, 'true': True, 'a list': [[]], 'null': None}


@pytest.mark.parametrize('wrong', _WRONG)
def test_whatever_is_wrong_in_config_json_is_one_line(copied, wrong):
  """Each field in turn, but where a value of this type is right."""
  path = copied / 'config.json'
  for place in TOLD:
    fields = json.loads((GOLDEN / 'config.json').read_text())
    inner = fields
    for step in place[:-1]:
      inner = inner[step]
    if type(inner[place[-1]]) is type(_WRONG[wrong]):
      continue
    if place[-1] == 'expand_conv' and wrong == 'true':
      continue  # null in this file
    inner[place[-1]] = _WRONG[wrong]
    path.write_text(json.dumps(fields))
    with pytest.raises(errors.UserError) as refused:
      directory.load_config(copied)
    line = str(refused.value)
    assert line.startswith(f'{path}: ') and '\n' not in line
    assert _told(place) in line, line


def test_whatever_is_missing_in_config_json_is_a_default_or_one_line(copied):
  path = copied / 'config.json'
  for place in TOLD:
    fields = json.loads((GOLDEN / 'config.json').read_text())
    inner = fields
    for step in place[:-1]:
      inner = inner[step]
    del inner[place[-1]]
    path.write_text(json.dumps(fields))
    try:
      directory.load_config(copied)
    except errors.UserError as error:
      assert str(error).startswith(f'{path}: ')
      assert '\n' not in str(error)


# What child.json means.


def test_a_child_of_a_newer_version_is_named_with_both_versions(
  tmp_path, capsys
):
  child = pathlib.Path(
    shutil.copytree(GOLDEN / 'children/best', tmp_path / 'x')
  )
  for change, words in (
    (lambda f: f.update(format=2), 'format: got'),
    (lambda f: f['network'].update(tempo=1), 'network.tempo: got'),
    (lambda f: f['data'].update(tempo=1), 'data.tempo: got'),
  ):
    shutil.copy(GOLDEN / 'children/best/child.json', child)
    _rewritten(child / 'child.json', change)
    _rewritten(
      child / 'child.json', lambda f: f['source'].update(version='9.1.0')
    )
    module = importlib.import_module('bignas_jax.evaluate')
    assert cli.status(module.main, [f'--child={child}']) == 2
    told = capsys.readouterr().err
    assert 'child.json: ' + words in told and told.count('\n') == 1
    assert '9.1.0' in told and bignas_jax.__version__ in told


# The other files that are read back.

_ROLLBACKS = [{'at': 3, 'to': 2, 'draw': 3, 'reason': 'a loss is nan'}]
_CHILD = json.loads((GOLDEN / 'children/best/child.json').read_text())
_CARD = json.loads((GOLDEN / 'run.json').read_text())
# What this is: how it is read, contents, and parts of which all is read.
READ: dict[str, tuple] = {
  'child.json': (
    lambda path: package.load(path.parent),
    _CHILD,
    ('input', 'arch', 'network', 'calibration', 'classes', 'class_names'),
  ),
  'run.json': (run_card._sessions, _CARD, ()),
  'rollbacks.json': (
    lambda path: rollbacks.read(path.parent),
    _ROLLBACKS,
    (0,),
  ),
  'prepared.json': (
    lambda path: shards._manifest(path.parent),
    {'format': 1, 'files': {'a': {'images': 3, 'made_of': {'bytes': 7}}}},
    (),
  ),
  'figures.json': (
    lambda path: schema.convert(
      compiler_reports.Report, files.read_json(path), f'{path}:'
    ),
    {'compile_s': 1.5, 'peak_bytes': 3, 'flops': 1.0, 'problem': ''},
    ('compile_s', 'peak_bytes', 'flops', 'problem'),
  ),
}


@pytest.mark.parametrize('name', READ)
def test_whatever_is_wrong_in_a_file_is_one_line_that_names_it(tmp_path, name):
  """Never a KeyError; of what is not read, anything goes."""
  read, contents, parts = READ[name]
  path = epath.Path(tmp_path / name)
  shutil.copy(GOLDEN / 'children/best/model.safetensors', tmp_path)
  path.write_text(json.dumps(contents))
  assert read(path)
  refused = 0
  for place in _leaves(contents):
    for wrong in [*_WRONG.values(), 'missing', -1, 1e400]:
      changed = json.loads(json.dumps(contents))
      inner = changed
      for step in place[:-1]:
        inner = inner[step]
      left_out = type(inner[place[-1]]) is type(wrong) or wrong == 'missing'
      if left_out:
        del inner[place[-1]]
      else:
        inner[place[-1]] = wrong
      path.write_text(json.dumps(changed))
      try:
        read(path)
      except errors.UserError as error:
        refused += 1
        # Of batch norms that are folded there are no statistics.
        other = str(error).endswith('the arrays of its child.json')
        assert other or str(error).startswith(f'{path}'), error
        assert '\n' not in str(error)
      else:
        another = wrong == {'x': 0} and not left_out
        assert place[0] not in parts or not another, place
  assert refused > len(list(_leaves(contents)))


def test_stored_values_are_as_strict_as_any():
  with pytest.raises(errors.UserError, match=r'^x: images: got 0'):
    stored.convert(config_lib.Calibration, {'images': 0}, 'x:', '0.1.0')
  found = stored.convert(config_lib.Calibration, {}, 'x:', '0.1.0')
  assert schema.check(found) == config_lib.Calibration()
