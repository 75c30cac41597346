"""Commands from end to end, and what they say to a mistake."""

import csv
import importlib
import json
import re
import shutil
import subprocess
import sys

import chex
import numpy as np
import pytest
import safetensors.numpy
import tiny

import bignas_jax
from bignas_jax import cli
from bignas_jax.costs import counting, latency, latency_tables
from bignas_jax.data import pipeline, sources
from bignas_jax.deploy import package
from bignas_jax.runs import directory as directory_lib
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import zoo
from bignas_jax.spaces.arch import from_dict
from bignas_jax.supernet import network
from bignas_jax.values import errors

_CONFIG = """
import tiny


def get_config():
  return tiny.config({changes})
"""


def _command(name):
  return importlib.import_module(f'bignas_jax.{name}').main


def _config(directory, changes='space=tiny.QUICK_TWO'):
  path = directory / 'config.py'
  path.write_text(_CONFIG.format(changes=changes))
  return path


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run of a few steps, searched, with one child extracted."""
  base = tmp_path_factory.mktemp('run')
  run = base / 'run'
  for name, *arguments in (
    ('main', f'--config={_config(base)}', f'--workdir={run}'),
    ('search', f'--workdir={run}', '--max_macs=40000'),
    ('extract', f'--workdir={run}', f'--out={run}/children/best'),
    ('report', f'--workdir={run}'),
  ):
    assert cli.status(_command(name), arguments) == 0, name
  return run


def test_result_is_one_json_object_on_the_last_line(trained, capsys):
  arguments = [f'--child={trained}/children/best']
  assert cli.status(_command('evaluate'), arguments) == 0
  out = capsys.readouterr().out.splitlines()
  assert len(out) == 1
  result = json.loads(out[0])
  info = json.loads((trained / 'children/best/child.json').read_text())
  assert result['images'] == 1000 and result['split'] == 'test'
  assert result['top1'] == info['accuracy']['top1']


def test_child_package_keeps_its_contract(trained):
  child = package.load(trained / 'children' / 'best')
  info = child.info
  assert info['format'] == 1 and info['space'] == 'tiny'
  assert info['macs'] <= 40000
  assert info['parity']['max_abs_diff'] <= 1e-4
  assert info['parity']['images'] > 0
  assert info['accuracy']['split'] == 'test'
  assert info['calibration'] == {'images': 64, 'seed': 0}
  assert set(info['source']) == {'step', 'config_sha256', 'version'}
  cost = counting.cost(child.space, child.arch)
  assert (info['macs'], info['params']) == (cost.macs, cost.params)
  weights = trained / 'children' / 'best' / 'model.safetensors'
  arrays = safetensors.numpy.load_file(weights)
  sizes = {k: v.size for k, v in arrays.items()}
  params = sum(n for k, n in sizes.items() if k.startswith('params.'))
  assert params == info['params']
  # Statistics are as many as scales and biases; then there is the header.
  stats = sum(n for k, n in sizes.items() if k.startswith('batch_stats.'))
  assert weights.stat().st_size <= 4 * (params + stats) + 150 * len(arrays)


def test_a_folded_child_is_the_same_child(trained, tmp_path, capsys):
  arguments = [f'--workdir={trained}', f'--out={tmp_path}/child', '--fold']
  arguments += ['--license=MIT']
  assert cli.status(_command('extract'), arguments) == 0
  capsys.readouterr()
  kept = package.load(trained / 'children' / 'best').info
  info = package.load(tmp_path / 'child').info
  assert (kept['batch_norm'], info['batch_norm']) == ('kept', 'folded')
  assert ('license' in kept, info['license']) == (False, 'MIT')
  same = ('arch', 'params', 'macs', 'accuracy')
  assert [info[k] for k in same] == [kept[k] for k in same]
  assert 0 < info['parity']['max_abs_diff'] <= 1e-4
  arrays = safetensors.numpy.load_file(tmp_path / 'child/model.safetensors')
  assert {k.rpartition('.')[2] for k in arrays} == {'kernel', 'bias'}
  assert cli.status(_command('evaluate'), [f'--child={tmp_path}/child']) == 0
  result = json.loads(capsys.readouterr().out)
  assert result['top1'] == kept['accuracy']['top1']


def test_supernet_and_package_agree(trained, capsys):
  results = []
  for arguments in (
    [f'--child={trained}/children/best'],
    [f'--workdir={trained}', '--arch=best'],
  ):
    assert cli.status(_command('evaluate'), arguments) == 0
    results.append(json.loads(capsys.readouterr().out))
  assert results[0]['top1'] == results[1]['top1']
  assert 'uncalibrated_top1' in results[1]


def test_a_child_is_tuned_on_its_own(trained, tmp_path, capsys):
  """At rate 0, so that what comes out is what came out of the supernet."""
  child, run = trained / 'children' / 'best', tmp_path / 'run'
  config = _config(tmp_path, 'space="", policy="alone"')
  for name, *arguments in (
    (
      *('main', f'--config={config}', f'--workdir={run}'),
      *(f'--config.init_from={child}', '--config.schedule.peak=0'),
    ),
    ('extract', f'--workdir={run}', f'--out={run}/children/best'),
    ('report', f'--workdir={run}'),
  ):
    assert cli.status(_command(name), arguments) == 0, name
  capsys.readouterr()
  before, after = map(package.load, (child, run / 'children' / 'best'))
  chex.assert_trees_all_equal(
    after.variables['params'], before.variables['params']
  )
  assert after.info['accuracy'] == before.info['accuracy']
  assert after.info['input'] == before.info['input']
  images = np.random.default_rng(0).normal(
    size=(8, before.arch.resolution, before.arch.resolution, 1)
  )
  logits = [
    network.Supernet(c.space).apply(c.variables, images.astype(np.float32))
    for c in (before, after)
  ]
  np.testing.assert_allclose(*logits, atol=1e-4)
  assert np.abs(logits[0]).max() > 0.1


def test_search_repeats_from_its_archive(trained, capsys):
  best = (trained / 'search' / 'best.json').read_text()
  archive = (trained / 'search' / 'archive.csv').read_text()
  arguments = [f'--workdir={trained}', '--max_macs=40000']
  assert cli.status(_command('search'), arguments) == 0
  again = json.loads(capsys.readouterr().out)
  assert again['arch'] == json.loads(best)['arch']
  assert (trained / 'search' / 'archive.csv').read_text() == archive
  assert again['split'] == 'held_out' and again['images'] == 500
  # An interrupted search: half an archive leads to the same child.
  half = archive.splitlines(keepends=True)[:4]
  (trained / 'search' / 'archive.csv').write_text(''.join(half))
  assert cli.status(_command('search'), arguments) == 0
  assert json.loads(capsys.readouterr().out)['arch'] == again['arch']
  assert (trained / 'search' / 'archive.csv').read_text() == archive


def test_random_search_is_the_control(trained, capsys):
  arguments = [f'--workdir={trained}', '--strategy=random']
  assert cli.status(_command('search'), arguments) == 0
  assert json.loads(capsys.readouterr().out)['evaluated'] == 6


def test_cost_needs_no_weights(capsys):
  arguments = ['--space=bignas', '--arch=smallest']
  assert cli.status(_command('cost'), arguments) == 0
  result = json.loads(capsys.readouterr().out)
  assert (result['macs'], result['params']) == (217632640, 3844372)


def test_cost_shows_how_children_spread(capsys):
  arguments = ['--space=mnist', '--bucket_macs=500000']
  assert cli.status(_command('cost'), arguments) == 0
  result = json.loads(capsys.readouterr().out)
  space, buckets = zoo.get('mnist'), result['buckets']
  assert sum(bucket['share'] for bucket in buckets) == pytest.approx(1)
  for bucket in buckets:
    arch = arch_lib.from_dict(space, bucket['arch'])
    macs = counting.cost(space, arch).macs
    assert bucket['from'] <= macs < bucket['to'] == bucket['from'] + 500_000
  both = ['--arch=smallest', '--bucket_macs=9']
  for given, words in (([], 'got 0 of them'), (both, 'got 2 of them')):
    assert cli.status(_command('cost'), ['--space=mnist', *given]) == 2
    told = f'error: --arch, --bucket_macs: {words}; allowed: exactly one\n'
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(
  'name',
  ['main', 'search', 'extract', 'export', 'evaluate', 'cost', 'list', 'report'],
)
def test_help(name, capsys):
  with pytest.raises(SystemExit) as done:
    _command(name)(['--help'])
  assert done.value.code == 0
  assert f'python -m bignas_jax.{name}' in capsys.readouterr().out


def _refused(capsys, name, arguments, *words):
  """Status 2 and one line that has all the words."""
  capsys.readouterr()
  status = cli.status(_command(name), arguments)
  captured = capsys.readouterr()
  assert status == 2, captured
  assert captured.out == ''
  lines = captured.err.strip().splitlines()
  assert len(lines) == 1, lines
  for word in words:
    assert word in lines[0], lines[0]


@pytest.mark.parametrize(
  'override, words',
  [
    ('--config.stepz=3', ['stepz', 'did you mean steps?']),
    ('--config.rule.dropuot=0', ['dropuot', 'did you mean dropout?']),
    ('--config.steps=many', ['steps', 'whole number']),
    ('--config.steps=2.5', ['steps', 'whole number']),
    ('--config.steps=0', ['steps', '>= 1']),
    ('--config.rule.dropout=1.5', ['rule.dropout', '< 1']),
    ('--config.space=mnits', ['mnits', 'did you mean mnist?']),
    ('--config.dtype=float16', ['dtype', 'bfloat16']),
    ('--config.optimizer.name=adam', ['adam', 'rmsprop']),
    ('--config.data.name=mnist', ['data.name', 'mnist5k']),
    ('--config.data.held_out=9999', ['data.held_out']),
    ('--config.data.name=image_folder', ['data.directory']),
    ('--config.batch_size=6', ['batch_size', 'multiple of the 4 devices']),
    ('--config.bn_group_size=5', ['bn_group_size', 'divisor']),
    ('--config.calibration.images=33', ['calibration.images', 'multiple']),
    ('--config.rule.regularised=bigest', ['regularised', 'mean biggest?']),
    ("--config.layout.axes=('a','a')", ['layout.axes', 'different names']),
    ('--config.layout.sizes=(3,)', ['layout.sizes', 'product of 4']),
    ('--config.layout.sizes=(2,2)', ['layout.sizes', "('data',)"]),
    ("--config.layout.rules=(('*','data'),)", ['layout.rules', 'regular']),
    ("--config.layout.rules=(('a','b'),)", ['layout.rules', "('data',)"]),
    ("--config.layout.rules=('a',)", ['layout.rules', '2 values']),
    ('--config.steps', ['Missing value', '--config.steps']),
    ('--workdri=3', ['workdri', 'Did you mean: workdir']),
  ],
)
def test_bad_config_is_named_and_nothing_written(
  tmp_path, capsys, override, words
):
  run = tmp_path / 'run'
  arguments = [f'--config={_config(tmp_path)}', f'--workdir={run}', override]
  _refused(capsys, 'main', arguments, *words)
  assert not run.exists()


def test_config_file_with_a_misspelt_field(tmp_path, capsys):
  path = _config(tmp_path, 'stepz=3')
  arguments = [f'--config={path}', f'--workdir={tmp_path}/run']
  _refused(capsys, 'main', arguments, 'stepz', '--config')
  assert not (tmp_path / 'run').exists()


def test_missing_config_file(tmp_path, capsys):
  arguments = ['--config=nowhere.py', f'--workdir={tmp_path}/run']
  _refused(capsys, 'main', arguments, 'nowhere.py', 'get_config')


def test_too_few_classes(tmp_path, capsys):
  changes = 'space=__import__("dataclasses").replace(tiny.SPACE, classes=9)'
  path = _config(tmp_path, changes)
  arguments = [f'--config={path}', f'--workdir={tmp_path}/run']
  _refused(capsys, 'main', arguments, 'space.classes')
  assert not (tmp_path / 'run').exists()


def test_work_directory_of_another_config(trained, tmp_path, capsys):
  arguments = [f'--config={_config(tmp_path)}', f'--workdir={trained}']
  arguments.append('--config.seed=9')
  _refused(capsys, 'main', arguments, 'seed (0 there, 9 here)')


@pytest.mark.parametrize('name', ['search', 'extract', 'evaluate', 'report'])
@pytest.mark.parametrize('there', [False, True])
def test_no_run_in_the_work_directory(tmp_path, capsys, name, there):
  run = tmp_path / 'run'
  if there:
    run.mkdir()
  extra = [f'--out={tmp_path}/child'] if name == 'extract' else []
  if name != 'search' and name != 'report':
    extra.append('--arch=biggest')
  _refused(capsys, name, [f'--workdir={run}', *extra], 'workdir', 'config.json')
  assert not (tmp_path / 'child').exists()
  assert not there or list(run.iterdir()) == []


def test_a_run_without_checkpoints(tmp_path, capsys):
  config = tiny.config()
  splits = sources.load(config.data, config.space.channels)
  directory_lib.claim(tmp_path / 'run', config, splits)
  arguments = [f'--workdir={tmp_path}/run']
  _refused(capsys, 'search', arguments, 'checkpoint')


def test_infeasible_limit(trained, capsys):
  before = (trained / 'search' / 'archive.csv').read_text()
  arguments = [f'--workdir={trained}', '--max_macs=10']
  _refused(capsys, 'search', arguments, '--max_macs', '10')
  assert (trained / 'search' / 'archive.csv').read_text() == before


def test_unknown_strategy(trained, capsys):
  arguments = [f'--workdir={trained}', '--strategy=evolutoin']
  _refused(capsys, 'search', arguments, '--strategy', 'coarse_to_fine')


def test_best_before_a_search(trained, tmp_path, capsys):
  run = tmp_path / 'run'
  shutil.copytree(trained, run, ignore=shutil.ignore_patterns('search'))
  arguments = [f'--workdir={run}', f'--out={tmp_path}/child']
  _refused(capsys, 'extract', arguments, 'best', 'best.json')


def test_architecture_outside_its_space(trained, tmp_path, capsys):
  best = json.loads((trained / 'search' / 'best.json').read_text())['arch']
  best['width'][1] = 12
  arguments = [f'--workdir={trained}', f'--out={tmp_path}/child']
  arguments.append(f'--arch={json.dumps(best)}')
  _refused(capsys, 'extract', arguments, 'width[1]', '8, 16')
  assert not (tmp_path / 'child').exists()


def test_unknown_space(capsys):
  arguments = ['--space=bigmas', '--arch=smallest']
  _refused(capsys, 'cost', arguments, 'bigmas', 'did you mean bignas?')
  arguments = ['--space=bigmas']
  _refused(capsys, 'list', arguments, 'bigmas', 'did you mean bignas?')


@pytest.mark.parametrize(
  ('arch', 'words'),
  [
    ('bignas_s', ['in space tiny one of biggest, smallest', 'space bignas']),
    ('bigest', ["arch: got 'bigest'", 'did you mean biggest?']),
  ],
)
@pytest.mark.parametrize('name', ['extract', 'evaluate'])
def test_what_is_no_arch_of_the_runs_space(trained, capsys, name, arch, words):
  arguments = [f'--workdir={trained}', f'--arch={arch}']
  arguments += [f'--out={trained}/no'] if name == 'extract' else []
  _refused(capsys, name, arguments, *words)
  assert not (trained / 'no').exists()


def test_an_unknown_preset_is_one_line_and_status_2(capsys):
  arguments = ['--space=bignas', '--arch=bignas_l']
  _refused(capsys, 'cost', arguments, 'bignas_l', 'did you mean bignas_s?')
  arguments = ['--space=bignas', '--arch=attentive_nas_a0']
  _refused(capsys, 'cost', arguments, 'a preset of space attentive_nas')


@pytest.mark.parametrize(
  'damage, words',
  [
    (lambda d: (d / 'child.json').unlink(), ['child.json']),
    (lambda d: (d / 'child.json').write_text('{'), ['JSON']),
    (lambda d: (d / 'child.json').write_text('{"format": 9}'), ['format 1']),
    (lambda d: (d / 'model.safetensors').unlink(), ['model.safetensors']),
    (
      lambda d: (d / 'model.safetensors').write_bytes(
        (d / 'model.safetensors').read_bytes()[:-100]
      ),
      ['model.safetensors', 'undamaged'],
    ),
    (
      lambda d: safetensors.numpy.save_file(
        {'params.x': np.zeros(3)}, d / 'model.safetensors'
      ),
      ['other arrays'],
    ),
  ],
)
def test_damaged_child(trained, tmp_path, capsys, damage, words):
  child = tmp_path / 'child'
  shutil.copytree(trained / 'children' / 'best', child)
  damage(child)
  _refused(capsys, 'evaluate', [f'--child={child}'], *words)


def test_a_child_off_by_more_than_the_tolerance_is_not_written(
  trained, tmp_path, capsys, monkeypatch
):
  from bignas_jax.selection import extraction

  off = extraction.Parity(max_abs_diff=2e-4, logits_scale=1.0, images=1)
  monkeypatch.setattr(extraction, '_difference', lambda *_: off)
  arguments = [f'--workdir={trained}', f'--out={tmp_path}/child']
  _refused(capsys, 'extract', arguments, '0.0002')
  assert not (tmp_path / 'child').exists()


def test_a_child_needs_no_supernet(trained):
  """A fresh process without checkpoints computes the same logits."""
  child = trained / 'children' / 'best'
  program = f"""
import pathlib, numpy as np
from bignas_jax.deploy import package as child
from bignas_jax.supernet import network as supernet
c = child.load(pathlib.Path({str(child)!r}))
net = supernet.Supernet(c.space)
size = c.info['input']['resolution']
logits = net.apply(c.variables, np.zeros((2, size, size, 1), np.float32))
print(logits.shape)
"""
  done = subprocess.run(
    [sys.executable, '-c', program], capture_output=True, text=True
  )
  assert done.stdout.strip() == '(2, 10)', done.stderr


def test_arch_of_child_is_its_space(trained):
  child = package.load(trained / 'children' / 'best')
  assert from_dict(child.space, child.info['arch']) == child.arch


def test_the_same_from_a_notebook(trained, tmp_path):
  directory = tmp_path / 'run'
  shutil.copytree(trained, directory)
  run = bignas_jax.load_run(str(directory))
  found = run.search('random', evaluations=3, max_macs=40000)
  assert found['evaluated'] == 3 and found['macs'] <= 40000
  assert found['costs'] == run.costs(found['arch'])
  assert run.evaluate('best').top1 == found['top1']
  assert all(run.arch(arch) == arch for arch in run.sample(5))
  child = run.extract(found['arch'], str(tmp_path / 'child'))
  test = bignas_jax.load_child(str(tmp_path / 'child')).info['accuracy']
  assert run.evaluate(child.arch, 'test').top1 == test['top1']
  config = directory_lib.load_config(directory)
  images = sources.load(config.data, 1).test
  size = child.info['input']['image_size']
  batches = pipeline.eval_batches(
    images, config.data, batch_size=200, resolution=size
  )
  right = [
    (child(batch['image']).argmax(-1) == batch['label']).mean()
    for batch in batches
  ]
  assert np.mean(right) == pytest.approx(test['top1'])


def test_a_notebooks_mistakes_are_named(trained):
  run = bignas_jax.load_run(str(trained))
  for mistake, name in (
    (lambda: run.search('random', evaluatoins=3), 'evaluatoins'),
    (lambda: run.search('random', max_mac=3), 'max_mac'),
    (lambda: run.evaluate('best', 'train'), 'split'),
    (lambda: run.arch({'resolution': 3}), 'arch'),
    (lambda: bignas_jax.load_child(str(trained)), 'child'),
  ):
    with pytest.raises(errors.UserError, match=name):
      mistake()


def test_latency_is_limited_by_a_table(trained, tmp_path, capsys):
  space, about = (
    tiny.QUICK_TWO,
    {'runtime': 'jax', 'batch': 1, 'device': 'a clock'},
  )
  parts = latency.all_layers(space, (8, 12))
  times = {part: 0.1 * part.width_out for part in parts}
  path = tmp_path / 'table.json'
  about |= {'versions': {}, 'estimate': False}
  latency_tables.save(path, space, (8, 12), about, times, latency.Fit())
  table = latency_tables.load(path, space)
  children = arch_lib.every(space)
  measured = [arch for arch in children if arch.resolution in (8, 12)]
  least = min(map(table.predict, measured))
  run = tmp_path / 'run'
  shutil.copytree(trained, run, ignore=lambda *_: ['children'])
  arguments = [f'--workdir={run}', '--strategy=random']
  limit = f'--max_latency_ms={1.3 * least}'
  _refused(capsys, 'search', [*arguments, limit], '--latency_table')
  arguments.append(f'--latency_table={path}')
  never = f'--max_latency_ms={0.9 * least}'
  _refused(capsys, 'search', [*arguments, never], f'{least:.10g}'[:8])
  assert cli.status(_command('search'), [*arguments, limit]) == 0
  best = json.loads(capsys.readouterr().out)
  assert best['arch']['resolution'] in (8, 12)  # nothing is known of 10
  assert best['costs']['latency_ms'] <= 1.3 * least
  assert best['latency']['device'] == 'a clock'
  # A second, slower device; each of both with two limits.
  other = tmp_path / 'other.json'
  about |= {'device': 'another clock'}
  slower = {part: 2 * ms for part, ms in times.items()}
  latency_tables.save(other, space, (8, 12), about, slower, latency.Fit())
  arguments = [f'--workdir={run}', '--strategy=random', '--evaluations=4']
  arguments += [f'--latency_table={file}' for file in (path, other)]
  words = 'another clock (jax): --max_latency_ms'
  _refused(capsys, 'search', [*arguments, limit], words)
  arguments += [f'--max_latency_ms={factor * least}' for factor in (2.6, 4)]
  assert cli.status(_command('search'), arguments) == 0
  printed = capsys.readouterr()
  found = json.loads(printed.out.splitlines()[-1])['recommended']
  devices = [entry['device'] for entry in found]
  assert devices == ['a clock'] * 2 + ['another clock'] * 2
  for entry in found:
    assert entry['predicted_ms'] <= entry['limits']['max_latency_ms']
    (line,) = re.findall(f'{entry["child"]}: top-1 .*', printed.err)
    assert line.endswith(f'on {entry["device"]} (jax))')
    assert entry['file'] is entry['measured_ms'] is None
  _extracted_and_timed(run, found[2], capsys)


def _extracted_and_timed(run, entry, capsys):
  """Extracts a recommended child; the lists say what was made of it."""
  out = run / 'children' / 'third'
  arguments = [f'--workdir={run}', f'--out={out}', f'--arch={entry["child"]}']
  assert cli.status(_command('extract'), arguments) == 0
  extracted = json.loads(capsys.readouterr().out)
  assert extracted['arch'] == entry['arch']
  row = {'device': 'another clock', 'runtime': 'jax', 'batch': 1}
  measured = {'rows': [row | {'median_ms': 7.0, 'least_ms': 6.0}]}
  (out / 'latency.json').write_text(json.dumps(measured))
  text = (run / 'search' / 'recommended.json').read_text()
  record = json.loads(text)
  for one in record['recommended']:  # as in a table of the fastest runs
    one['statistic'] = 'least'
  (run / 'search' / 'recommended.json').write_text(json.dumps(record))
  assert cli.status(_command('report'), [f'--workdir={run}']) == 0
  text = (run / 'search' / 'recommended.json').read_text()
  after = json.loads(text)['recommended'][2]
  file = 'children/third/model.safetensors'
  assert (after['file'], after['measured_ms']) == (file, 6.0)
  assert after['bytes'] == (run / file).stat().st_size
  test = after['accuracy']['float32']['test']
  assert test['top1'] == extracted['accuracy']['top1']
  lines = (run / 'search' / 'children.csv').read_text().splitlines()
  table = list(csv.DictReader(lines))
  files = {
    row['file'] for row in table if json.loads(row['arch']) == entry['arch']
  }
  assert files <= {file} and table  # the best child may be the cheapest
  page = (run / 'report.html').read_text()
  assert file in page and 'another clock' in page
  capsys.readouterr()
  wrong = [*arguments[:2], '--arch=recommended:9']
  _refused(capsys, 'extract', wrong, 'recommended:1 to recommended:4')
