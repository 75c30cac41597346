"""Tables as they are built: what is measured is what a child consists of."""

import dataclasses
import importlib.util
import itertools
import json

import jax
import networks
import numpy as np
import pytest
import tiny
from etils import epath

from bignas_jax import benchmark, cli
from bignas_jax.costs import latency, latency_tables
from bignas_jax.deploy import package, stablehlo
from bignas_jax.perf import (
  engines,
  latency_table,
  layer_estimates,
  timing,
  workloads,
)
from bignas_jax.perf.latency_table import Wanted
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning
from bignas_jax.system import process
from bignas_jax.values import errors

SPACE = dataclasses.replace(
  tiny.SPACE, resolution=(8, 10), train_resolution=(8, 10)
)
ABOUT = {
  'runtime': 'jax',
  'batch': 1,
  'device': 'a device',
  'versions': {},
  'estimate': False,
}
needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None, reason='pip install libtpu'
)


def blocks_of(child, arch):
  """A child's weights, one entry for each of its parts."""
  params = child.params
  own = [params['stem']]
  for i, depth in enumerate(arch.depth):
    stage = params[f'stage{i + 1}']
    own.append(stage['first'])
    for j in range(depth - 1):
      own.append(jax.tree.map(lambda stacked, j=j: stacked[j], stage['rest']))
  last = ('head', 'classifier')
  return [*own, {name: params[name] for name in last if name in params}]


@pytest.mark.parametrize(
  'space', [*networks.LITTLE.values(), networks.SHARED], ids=lambda s: s.name
)
def test_parts_one_after_the_other_are_the_child(space):
  rng = np.random.default_rng(0)
  arch = arch_lib.biggest(space)
  # Blocks of the same members, which stay a stage.
  arch = dataclasses.replace(arch, parallel=arch_lib.smallest(space).parallel)
  child = workloads.of_child(space, arch)
  weights = blocks_of(child, arch)
  parts = [workloads.of_layer(space, p) for p in latency.measured(space, arch)]
  library = stablehlo.Jax()

  def whole(images):
    return child.run(library, child.params, images)

  def in_parts(images):
    x = images
    for part, own in zip(parts, weights, strict=True):
      assert x.shape[1:] == part.shape
      like = jax.tree.map(np.shape, part.params)
      assert like == jax.tree.map(np.shape, own)
      x = part.run(library, own, x)
      assert x.shape[1:] == part.shape_out
    return x

  images = rng.standard_normal((2, *child.shape), np.float32)
  expected, found = jax.jit(lambda x: (whole(x), in_parts(x)))(images)
  assert np.abs(expected).max() > 0
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def weights(wanted):
  """Thousands of numbers in a piece: a child has those of its parts."""
  return {
    name: sum(leaf.size for leaf in jax.tree.leaves(piece.params)) / 1e3
    for name, piece in wanted.items()
  }


def wanted(**changes):
  base = Wanted(SPACE, (8, 10), ABOUT, children=5, fitted=6, seed=0)
  return base._replace(**changes)


def test_what_adds_up_is_predicted(tmp_path):
  path = epath.Path(tmp_path / 'table.json')
  result = latency_table.build(path, wanted(), weights)
  assert result['median_error'] < 1e-9 and result['rank_correlation'] > 0.99
  assert result['fit']['scale'] == pytest.approx(1)
  table = latency_tables.load(path, SPACE)
  assert len(result['children']) == 5
  for row in result['children']:
    arch = arch_lib.from_dict(SPACE, row['arch'])
    assert table.predict(arch) == row['predicted_ms']
    child = weights({0: workloads.of_child(SPACE, arch)})[0]
    assert row['measured_ms'] == child
  kept = json.loads(path.read_text())['evaluation']
  assert kept['median_error'] == result['median_error']


def test_overheads_of_parts_and_networks_are_found(tmp_path):
  """A program of a part pays for a call that a part of a network does not."""

  def measure(wanted):
    found = weights(wanted)
    return {
      name: 3 + 0.5 * found[name] if piece.whole else 2 + found[name]
      for name, piece in wanted.items()
    }

  path = epath.Path(tmp_path / 'table.json')
  result = latency_table.build(path, wanted(), measure)
  assert result['median_error'] < 1e-9
  fit = [result['fit'][name] for name in latency.Fit._fields]
  np.testing.assert_allclose(fit, [3, -1, 0.5], rtol=1e-6)


def test_children_that_are_evaluated_took_no_part():
  fitted, evaluated = latency_table.children(wanted())
  assert (len(set(fitted)), len(set(evaluated))) == (6, 5)
  assert not {*fitted} & {*evaluated}
  assert {a.resolution for a in fitted + evaluated} == {8, 10}
  other = latency_table.children(wanted(seed=1))
  assert other != (fitted, evaluated)
  fewer, _ = latency_table.children(wanted(resolutions=(8,)))
  assert {a.resolution for a in fewer} == {8}
  with pytest.raises(errors.UserError, match=r'--children: got 50; .*at most'):
    latency_table.children(wanted(resolutions=(8,), children=50))


def test_parts_that_are_there_are_kept(tmp_path, monkeypatch):
  """A build that was killed goes on; a wider one measures what is new."""
  monkeypatch.setattr(latency_table, '_AT_ONCE', 5)
  path = epath.Path(tmp_path / 'table.json')
  seen = []

  def measure(wanted):
    if len(seen) == 2:
      raise KeyboardInterrupt
    seen.append(list(wanted))
    return weights(wanted)

  with pytest.raises(KeyboardInterrupt):
    latency_table.build(path, wanted(resolutions=(8,)), measure)
  with pytest.raises(errors.UserError, match='a finished table'):
    latency_tables.load(path, SPACE)
  result = latency_table.build(path, wanted(resolutions=(8,)), weights)
  assert result['kept'] == 10
  before = json.loads(path.read_text())['parts_ms']

  result = latency_table.build(path, wanted(), weights)
  assert result['kept'] == len(before) < result['parts']
  after = json.loads(path.read_text())['parts_ms']
  assert before.items() <= after.items()

  other = wanted(about=ABOUT | {'device': 'another'})
  with pytest.raises(
    errors.UserError, match=r"device: got 'a device'; allowed"
  ):
    latency_table.build(path, other, weights)


def measured_before(wanted):
  raise AssertionError('something was measured')


@pytest.mark.parametrize('content', [b'mine', b'', b'{"format": 1}', b'[]'])
def test_what_is_no_table_is_left_alone(tmp_path, content):
  path = epath.Path(tmp_path / 'table.json')
  path.write_bytes(content)
  with pytest.raises(errors.UserError) as refused:
    latency_table.build(path, wanted(), measured_before)
  assert str(path) in str(refused.value) and '\n' not in str(refused.value)
  assert path.read_bytes() == content


def test_places_are_looked_at_before_parts_are_measured(tmp_path):
  for place in (tmp_path, '/proc/table.json', '/dev/null'):
    with pytest.raises(errors.UserError, match=f'^--out: got .*{place}'):
      latency_table.build(epath.Path(place), wanted(), measured_before)
  new = epath.Path(tmp_path / 'a' / 'b' / 'table.json')
  assert latency_table.build(new, wanted(), weights)['out'] == str(new)


def test_one_process_at_a_time_builds_a_table(tmp_path):
  path = epath.Path(tmp_path / 'table.json')

  def measure(pieces):
    with pytest.raises(errors.UserError, match=r'--out.*builds table\.json'):
      latency_table.build(path, wanted(), measured_before)
    return weights(pieces)

  latency_table.build(path, wanted(), measure)
  latency_table.build(path, wanted(), weights)


def test_parts_of_fewer_rounds_are_not_kept(tmp_path):
  path = epath.Path(tmp_path / 'table.json')
  latency_table.build(path, wanted(), weights)  # says nothing of rounds
  more = wanted(about=ABOUT | {'rounds': 31})
  assert latency_table.build(path, more, weights)['kept'] > 0
  other = wanted(about=ABOUT | {'rounds': 5})
  with pytest.raises(errors.UserError, match='rounds: got 31; allowed: 5'):
    latency_table.build(path, other, measured_before)


def test_programs_take_turns():
  calls = []
  runs = {name: (lambda name=name: calls.append(name)) for name in 'ab'}
  found = timing.interleave(runs, 2)
  assert calls[:4] == ['a', 'a', 'b', 'b']
  changes = sum(x != y for x, y in itertools.pairwise(calls))
  assert changes == 5  # three rounds of two
  # The first round and the first run of each visit are not counted.
  assert sum(map(len, found.values())) == len(calls) - 4 - 4


def a_child(path):
  arch = arch_lib.smallest(SPACE)
  piece = workloads.of_child(SPACE, arch)
  space = dataclasses.replace(pinning.pin(SPACE, arch), bn_epsilon=None)
  info = {
    'arch': arch_lib.to_dict(arch),
    'input': {
      'resolution': 8,
      'image_size': 12,
      'channels': 1,
      'mean': [0.5],
      'std': [0.25],
    },
    'classes': 10,
    'calibration': {'images': 8, 'seed': 0},
    'data': {},
    'macs': 7,
  }
  variables = {'params': piece.params, 'batch_stats': {}}
  package.save(path, package.Child(arch, space, variables, info))


@pytest.mark.parametrize('names', ['jax', 'jax,onnx'])
def test_a_child_is_timed(tmp_path, names):
  a_child(epath.Path(tmp_path / 'child'))
  child = f'--child={tmp_path / "child"}'
  result = benchmark.main(
    ['child', child, '--batch=1,3', f'--runtime={names}', '--rounds=2']
  )
  found = [(row['runtime'], row['batch']) for row in result['rows']]
  assert found == [(name, n) for name in names.split(',') for n in (1, 3)]
  for row in result['rows']:
    assert 0 < row['least_ms'] <= row['median_ms'] <= row['p90_ms']
    assert row['images_per_s'] == 1e3 * row['batch'] / row['median_ms']
  assert result['versions']['jax'] == jax.__version__
  assert not (tmp_path / 'child/latency.json').exists()


def test_what_a_child_took_is_kept_on_request(tmp_path, capsys):
  a_child(epath.Path(tmp_path / 'child'))
  command = ['child', f'--child={tmp_path}/child', '--rounds=1', '--keep']
  result = benchmark.main(command)
  kept = json.loads((tmp_path / 'child/latency.json').read_text())
  assert kept == result
  (tmp_path / 'child').rename(tmp_path / 'gone')
  assert cli.status(benchmark.main, command) == 2
  assert (
    'allowed: a directory that can be written to' in capsys.readouterr().err
  )


@pytest.mark.parametrize('text', ['{"mine": 1}', '[1]', 'mine', ''])
def test_another_file_in_the_place_of_what_is_kept(tmp_path, capsys, text):
  """Before anything is measured: there is no child yet."""
  (tmp_path / 'latency.json').write_text(text)
  command = ['child', f'--child={tmp_path}', '--rounds=1', '--keep']
  assert cli.status(benchmark.main, command) == 2
  assert 'latency.json' in capsys.readouterr().err
  assert (tmp_path / 'latency.json').read_text() == text


@pytest.mark.parametrize('name', ['jax', 'onnx'])
def test_a_runtime_computes_each_piece(name):
  arch = arch_lib.smallest(SPACE)
  wanted = workloads.of_layers(SPACE, latency.measured(SPACE, arch)[:2])
  wanted['child'] = workloads.of_child(SPACE, arch)
  for called, run in engines.prepare(name, wanted, 2).items():
    out, piece = np.asarray(run.start()), wanted[called]
    assert np.isfinite(out).all()
    if run.repeats == 1:
      assert out.size == 2 * np.prod(piece.shape_out)
    else:  # other images, for the next repeat
      assert out.shape == (2, *piece.shape)


def test_a_table_is_built_by_command(tmp_path, capsys):
  out = tmp_path / 'table.json'
  space = dataclasses.replace(tiny.QUICK, name='quick')
  result = latency_table.table(
    space,
    epath.Path(out),
    resolutions=[8],
    batch=2,
    runtime='jax',
    rounds=1,
    statistic='median',
    children=1,
    fitted=3,
    seed=0,
    topology=None,
  )
  fields = json.loads(out.read_text())
  assert fields['threads'] == process.cores()
  assert result['children'][0]['measured_ms'] > 0
  assert latency_tables.load(epath.Path(out), space).about['batch'] == 2
  capsys.readouterr()
  command = ['table', '--space=mnist', f'--out={out}']
  for option, text in (
    ('--resolutions=28,29', '--resolutions: got 29; allowed: some of 28'),
    ('--runtime=torch', "--runtime: got 'torch'; allowed: one of jax"),
    ('--rounds=0', '--rounds=0: got 0'),
    ('--topology=v8:1x1', '--topology'),
    ('--seed=0', "space: got 'quick'; allowed: mnist"),
  ):
    assert cli.status(benchmark.main, [*command, option]) == 2
    message = capsys.readouterr().err
    assert text in message and message.count('\n') == 1


@needs_libtpu
def test_a_compilers_word_is_an_estimate(tmp_path):
  space, out = dataclasses.replace(tiny.QUICK), epath.Path(tmp_path / 'v.json')
  part = workloads.of_layer(space, latency.all_layers(space, [8])[0])
  found = layer_estimates.milliseconds('v5e:2x2', 4, {'stem': part})
  assert 0 < found['stem'] < 1
  about = ABOUT | {'estimate': True}
  some = Wanted(space, (8,), about, children=1, fitted=2, seed=0)
  result = latency_table.build(out, some, weights)
  assert latency_tables.load(out, space).estimate and result['estimate']
  assert 'measured' not in out.read_text() + json.dumps(result)


def test_a_space_that_there_is_not_is_one_line(tmp_path, capsys):
  arguments = ['table', f'--space={tmp_path}/run', f'--out={tmp_path}/a.json']
  assert cli.status(benchmark.main, arguments) == 2
  told = capsys.readouterr().err
  assert "allowed: a run's directory, or one of attentive_nas" in told
  assert told.count('\n') == 1
