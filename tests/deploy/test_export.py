"""Exports: every format computes what the child does, in its own runtime."""

import functools
import hashlib
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import typing

import jax
import networks
import numpy as np
import onnx
import pytest
import reference
import safetensors.numpy
import tiny
from etils import epath

from bignas_jax import cli, export
from bignas_jax.costs import counting
from bignas_jax.deploy import export as export_lib
from bignas_jax.deploy import folding, graph, parity, saved_model, stablehlo
from bignas_jax.deploy import onnx as onnx_lib
from bignas_jax.deploy import package as package_lib
from bignas_jax.operations import ops
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import block_kinds, pinning, zoo
from bignas_jax.spaces.stage import Stage
from bignas_jax.supernet import network as network_lib

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / 'docs' / 'serving.md'
HAS_TENSORFLOW = importlib.util.find_spec('tensorflow')
HAS_LITERT = all(
  importlib.util.find_spec(name)
  for name in ('ai_edge_litert', 'ai_edge_quantizer')
)
TENSORFLOW = pytest.param(
  'saved_model',
  marks=pytest.mark.skipif(
    not HAS_TENSORFLOW, reason="needs the extra 'tf': make exports"
  ),
)
LITERT = pytest.param(
  'tflite',
  marks=pytest.mark.skipif(
    not HAS_LITERT, reason="needs the extra 'tflite': make exports"
  ),
)
COREML = pytest.param(
  'coreml',
  marks=pytest.mark.skipif(
    not importlib.util.find_spec('coremltools'),
    reason="needs the extra 'coreml': make exports",
  ),
)


@pytest.fixture(scope='module')
def package(tmp_path_factory):
  """A package whose images are resized."""
  seeds = range(100)
  children = (networks.random_child(tiny.SPACE, seed) for seed in seeds)
  child = next(c for c in children if c.arch.resolution == 10)
  where = epath.Path(tmp_path_factory.mktemp('package')) / 'child'
  package_lib.save(where, child)
  return where


# The law.


@pytest.mark.parametrize('name', networks.LITTLE)
def test_a_plain_network_is_the_child(name):
  """In float64: folding and the plain network say what the reference says."""
  space = networks.LITTLE[name]
  variables = {
    'params': networks.random_params(space),
    'batch_stats': networks.random_stats(space),
  }
  images = networks.random_images(space, 18)[0]
  with jax.enable_x64(True):
    for arch in networks.archs_of(space, 2, seed=5):
      expected, _ = reference.child(
        space, arch, variables['params'], images, variables['batch_stats']
      )
      own = network_lib.slice_child(
        space, networks.cast(variables, 'float64'), arch
      )
      folded, own = folding.fold(pinning.pin(space, arch), own)
      shape = images.shape[1:]
      network = graph.Network(folded, own['params'], shape, 'float32', (), ())
      found = jax.jit(stablehlo.function(network))(images)
      assert found.dtype == np.float64
      networks.assert_close(found, expected, 1e-10)


# Also layers of one operation, and of parallel members, which are folded; these
# have convolutions of groups of channels, too.
_MORE = networks.ONE_OF, networks.PARALLEL, networks.LITE
EXPORTED = networks.LITTLE | {space.name: space for space in _MORE}


@functools.cache
def expected_logits(name, seed):
  """A child, images, and what it says of them, in float32."""
  child = networks.random_child(EXPORTED[name], seed)
  images = networks.random_images(child.space, 18, 5)[0].astype(np.float32)
  network = graph.network(child)
  logits = jax.jit(stablehlo.function(network))(images)
  return network, images, np.asarray(logits)


@pytest.mark.parametrize('names', ['onnx', TENSORFLOW, LITERT, COREML])
@pytest.mark.parametrize('space', EXPORTED)
def test_graphs_of_random_children(tmp_path, space, names):
  for seed in (0, 1):
    network, images, expected = expected_logits(space, seed)
    for name in names.split(','):
      made, where = export_lib.FORMATS[name], tmp_path / f'{name}{seed}'
      where.mkdir()
      made.write(network, where)
      run = made.load(where)
      # Any number of images; the first one is what LiteRT begins with.
      for some in (slice(1, 2), slice(0, 5), slice(1, 2)):
        networks.assert_close(run(images[some]), expected[some], 1e-4)


@pytest.mark.skipif(not HAS_TENSORFLOW, reason='needs TensorFlow')
@pytest.mark.parametrize('size', [1, 4, 5])
def test_tensorflow_pools_maxima_of_the_pixels_alone(size):
  """Also of negative ones, which padding with zeros would hide."""
  x = -np.random.default_rng(0).random((2, size, size, 3), np.float32)
  library = saved_model._TensorFlow(saved_model._tensorflow())
  expected = ops.max_pool(jax.numpy.asarray(x))
  np.testing.assert_array_equal(library.max_pool(x), expected)


def test_every_kind_of_block_is_among_these_children():
  stages = [
    stage
    for name in EXPORTED
    for seed in (0, 1)
    for stage in networks.random_child(EXPORTED[name], seed).space.stages
    if max(stage.depth)
  ]
  assert {stage.block for stage in stages} == {*block_kinds.CONVS}
  for field in ('activation', 'shortcut'):
    kinds = typing.get_args(typing.get_type_hints(Stage)[field])
    assert {getattr(stage, field) for stage in stages} == {*kinds}


@pytest.mark.parametrize('space', networks.LITTLE)
def test_an_onnx_graph_has_a_conv_for_each_convolution(tmp_path, space):
  network, _, _ = expected_logits(space, 0)
  onnx_lib.write(network, tmp_path)
  nodes = onnx.load(tmp_path / onnx_lib.NAME).graph.node
  kinds = [node.op_type for node in nodes]
  convs = dense = 0
  for path, leaf in jax.tree_util.tree_leaves_with_path(network.params):
    names = [key.key for key in path]
    count = len(leaf) if 'rest' in names else 1  # of stacked blocks
    if names[-1] == 'scale':  # of a batch norm that follows no convolution
      convs += count
    if names[-1] == 'kernel':
      is_dense = {'se', 'last_conv', 'classifier'} & {*names}
      dense += count * bool(is_dense)
      convs += count * (not is_dense)
  assert kinds.count('Conv') == convs
  assert kinds.count('Gemm') + kinds.count('MatMul') == dense
  assert kinds.count('Transpose') == 1
  assert not {'Slice', 'Pad', 'BatchNormalization', 'If', 'Loop'} & {*kinds}


_ALONE = """
import sys, numpy as np
from jax import export
images, logits = np.load(sys.argv[2]).values()
run = export.deserialize(bytearray(open(sys.argv[1], 'rb').read()))
assert set(run.platforms) == {'cpu', 'tpu', 'cuda'}
for some in slice(0, 5), slice(1, 2):
  found = np.asarray(run.call(images[some]))
  assert abs(found - logits[some]).max() <= 1e-4 * abs(logits).max()
assert not {'bignas_jax', 'flax'} & set(sys.modules)
print('done')
"""


def test_stablehlo_needs_nothing_of_ours(tmp_path):
  child = networks.random_child(tiny.SPACE)
  size = child.arch.resolution
  images = networks.random_images(tiny.SPACE, size, 5)[0].astype(np.float32)
  net = network_lib.Supernet(child.space)
  logits = np.asarray(jax.jit(net.apply)(child.variables, images))
  stablehlo.write(graph.network(child), tmp_path)
  np.savez(tmp_path / 'a.npz', images=images, logits=logits)
  kept = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
  done = subprocess.run(
    [sys.executable, '-c', _ALONE, stablehlo.NAME, 'a.npz'],
    cwd=tmp_path,
    env=kept,
    capture_output=True,
    text=True,
  )
  assert done.stdout.strip() == 'done', done.stderr


# The command.


def run(capsys, *arguments):
  """Status, what is on stdout, lines on stderr."""
  capsys.readouterr()
  status = cli.status(export.main, arguments)
  captured = capsys.readouterr()
  return status, captured.out, captured.err.strip().splitlines()


def everything(directory):
  return {
    str(path.relative_to(directory)): path.read_bytes()
    for path in pathlib.Path(directory).rglob('*')
    if path.is_file()
  }


@pytest.mark.parametrize(
  'names', ['stablehlo,onnx', TENSORFLOW, LITERT, COREML]
)
@pytest.mark.parametrize('preprocess', [False, True])
def test_artifacts_and_their_manifest(
  package, tmp_path, capsys, names, preprocess
):
  arguments = [f'--child={package}', f'--format={names}', f'--out={tmp_path}/o']
  arguments += ['--images=50'] + ['--preprocess'] * preprocess
  status, out, _ = run(capsys, *arguments)
  assert status == 0
  result = json.loads(out)
  written = everything(tmp_path / 'o')
  manifest = json.loads(written.pop('export.json'))
  assert manifest.items() <= result.items() and result['verified']
  assert everything(tmp_path).keys() == {
    f'o/{name}' for name in [*written, 'export.json']
  }
  size = 12 if preprocess else 10
  assert manifest['input']['shape'] == ['batch', size, size, 1]
  assert manifest['reference']['images'] == 50
  sizes = {}
  for name, entry in manifest['formats'].items():
    assert entry['max_abs_diff'] <= 1e-4 * manifest['reference']['logits_scale']
    assert entry['top1_agreement'] == 1 and entry['images'] == 50
    assert entry['versions']
    for file, said in entry['files'].items():
      assert said['bytes'] == len(written[file])
      assert said['sha256'] == hashlib.sha256(written[file]).hexdigest()
      sizes[file] = said['bytes']
    assert entry['bytes'] == sum(f['bytes'] for f in entry['files'].values())
    assert name in names
  assert sizes.keys() == written.keys()
  for place in (str(ROOT), str(tmp_path)):
    assert not [n for n, made in written.items() if place.encode() in made]
  digests = {
    name: hashlib.sha256((package / name).read_bytes()).hexdigest()
    for name in ('child.json', 'model.safetensors')
  }
  assert manifest['child']['sha256'] == digests
  if preprocess and names != 'coreml':  # whose client needs a Mac
    check_clients(tmp_path, names.split(','))


def check_clients(directory, names):
  """What docs/serving.md shows, in a process without this package."""
  clients = re.findall(r'```python\n(.*?)```', DOCS.read_text(), re.DOTALL)
  images = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 1), np.uint8)
  np.save(directory / 'images.npy', images)
  (directory / 'o').rename(directory / 'export')
  kept = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
  for name in names:
    made = export_lib.FORMATS[name]
    (client,) = (c for c in clients if f'export/{made.NAME}' in c)
    logits = made.load(directory / 'export')(images)
    done = subprocess.run(
      [sys.executable, '-c', client],
      cwd=directory,
      env=kept,
      capture_output=True,
      text=True,
    )
    assert done.stdout.strip() == str(logits.argmax(-1)), done.stderr


def test_formats_of_one_child_gather(package, tmp_path, capsys):
  other = tmp_path / 'other'
  package_lib.save(epath.Path(other), networks.random_child(tiny.QUICK))
  where = f'--out={tmp_path}/o'
  for arguments, formats, files in (
    ([f'--child={package}', '--format=onnx', '--int8'], {'onnx'}, 2),
    ([f'--child={package}', '--format=stablehlo'], {'onnx', 'stablehlo'}, 3),
    ([f'--child={package}', '--format=onnx'], {'onnx', 'stablehlo'}, 2),
    ([f'--child={other}', '--format=stablehlo'], {'stablehlo'}, 1),
  ):
    status, _, _ = run(capsys, *arguments, '--images=20', where)
    assert status == 0
    written = everything(tmp_path / 'o')
    manifest = json.loads(written.pop('export.json'))
    assert set(manifest['formats']) == formats
    listed = {n for e in manifest['formats'].values() for n in e['files']}
    assert written.keys() == listed and len(listed) == files


@pytest.mark.parametrize(
  'names',
  [
    'onnx',
    LITERT,
  ],
)
def test_smaller_artifacts_say_what_they_lose(package, tmp_path, capsys, names):
  arguments = [f'--child={package}', f'--format={names}', f'--out={tmp_path}/o']
  both = '--int8', '--float16'
  status, out, _ = run(capsys, *arguments, '--images=50', *both)
  assert status == 0
  entry = json.loads(out)['formats'][names]
  for precision, difference in (('int8', 0.3), ('float16', 0.003)):
    small = entry[precision]
    file = tmp_path / 'o' / small['file']
    assert small['file'] in entry['files']
    assert small['bytes'] == file.stat().st_size
    assert small['top1_loss'] == pytest.approx(entry['top1'] - small['top1'])
    assert small['max_abs_diff'] > entry['max_abs_diff']  # it is another file
    assert small['max_diff_over_scale'] < difference
  assert entry['float16']['bytes'] < entry['bytes']
  assert entry['int8']['calibration_images'] == 20


@pytest.mark.parametrize('names', ['onnx', LITERT, COREML])
@pytest.mark.parametrize('space', EXPORTED)
def test_weights_in_float16(tmp_path, space, names):
  """Halves the weights' bytes, and rounds each to 11 bits."""
  network, images, expected = expected_logits(space, 0)
  made = export_lib.FORMATS[names]
  made.halve(network, tmp_path)
  found = made.load(tmp_path, made.FLOAT16_NAME)(images)
  networks.assert_close(found, expected, 5e-3)
  made.write(network, tmp_path)
  with pytest.raises(AssertionError):
    networks.assert_close(found, made.load(tmp_path)(images), 1e-5)


def test_what_differs_is_not_written(package, tmp_path, capsys, monkeypatch):
  def off(*arguments):
    right = load(*arguments)
    return lambda images: right(images) + 0.1

  load = stablehlo.load
  monkeypatch.setattr(stablehlo, 'load', off)
  arguments = ['--format=stablehlo', f'--out={tmp_path}/o', '--images=20']
  status, out, lines = run(capsys, f'--child={package}', *arguments)
  assert status == 1
  assert not json.loads(out)['formats']['stablehlo']['verified']
  assert 'nothing was written' in lines[-1]
  assert list(tmp_path.iterdir()) == []


def test_a_tie_may_be_decided_in_another_way(tmp_path, capsys, monkeypatch):
  """Of two logits that rounding exchanges, neither is wrong."""

  def rounded(*arguments):
    right = load(*arguments)

    def run(images):
      logits = np.array(right(images))
      logits[:, 1] += 0.9e-4 * abs(logits).max()
      return logits

    return run

  child = networks.random_child(tiny.QUICK)
  classifier = child.variables['params']['classifier']
  for array in classifier.values():
    array[..., 1] = array[..., 0]
  classifier['bias'][:2] += 9  # they are the highest
  package_lib.save(epath.Path(tmp_path / 'child'), child)
  load = stablehlo.load
  monkeypatch.setattr(stablehlo, 'load', rounded)
  arguments = ['--format=stablehlo', f'--out={tmp_path}/o', '--images=50']
  status, out, lines = run(capsys, f'--child={tmp_path}/child', *arguments)
  assert status == 0, lines
  entry = json.loads(out)['formats']['stablehlo']
  assert entry['ties'] > 0 and entry['top1_agreement'] == 1
  assert f'{entry["ties"]} ties left out' in lines[-1]


def test_agreement_is_of_all_images_that_are_no_ties():
  child = np.array([[1.0, 0.9, 0.0], [1.0, 0.5, 0.0], [0.0, 0.4, 2.0]])
  samples = parity.Samples([np.zeros(3)], child, np.array([1, 0, 1]))

  def compared(logits, tie):
    return parity.compare(lambda images: np.array(logits), samples, tie)

  flipped = child[:, [1, 0, 2]]  # all but the last image's
  for tie, ties, agreement in ((0, 0, 1 / 3), (0.2, 1, 1 / 2), (0.6, 2, 1)):
    found = compared(flipped, tie)
    assert (found['ties'], found['top1_agreement']) == (ties, agreement)
    assert found['top1'] == 1 / 3, 'of all images'
  assert compared(child, 9)['ties'] == 3
  assert compared(child, 9)['top1_agreement'] == 1
  nothing = parity.Samples([np.zeros(1)], np.zeros((1, 2)), np.zeros(1))
  for off, over in ((0.0, 0.0), (1.0, float('inf'))):
    found = parity.compare(lambda x, off=off: np.full((1, 2), off), nothing)
    assert found['max_diff_over_scale'] == over
  one_class = parity.Samples([np.zeros(1)], np.ones((1, 1)), np.zeros(1))
  assert parity.compare(lambda x: np.ones((1, 1)), one_class)['ties'] == 0


def refused(capsys, arguments, *words):
  status, out, lines = run(capsys, *arguments)
  assert (status, out, len(lines)) == (2, '', 1), lines
  for word in words:
    assert word in lines[0], lines[0]


@pytest.mark.parametrize(
  'arguments, words',
  [
    (['--format=onxn'], ['--format', 'did you mean onnx?', 'saved_model']),
    (['--format=onnx,'], ['--format', 'one of']),
    (['--format=stablehlo', '--int8'], ['--int8', 'onnx or tflite']),
    (['--format=stablehlo', '--float16'], ['--float16', 'or coreml']),
    (['--format=onnx', '--images=0'], ['--images', 'a whole number >= 1']),
    ([], ['--format']),
  ],
)
def test_mistakes(package, tmp_path, capsys, arguments, words):
  base = [f'--child={package}', f'--out={tmp_path}/o']
  refused(capsys, [*base, *arguments], *words)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  'name, module, extra',
  [
    ('onnx', 'onnx', 'onnx'),
    ('onnx', 'onnxruntime', 'onnx'),
    ('saved_model', 'tensorflow', 'tf'),
    ('tflite', 'ai_edge_litert', 'tflite'),
    ('tflite', 'ai_edge_quantizer', 'tflite'),
    ('coreml', 'coremltools', 'coreml'),
  ],
)
def test_a_missing_extra(
  package, tmp_path, capsys, monkeypatch, name, module, extra
):
  if name == 'tflite' and not HAS_LITERT:
    module = 'ai_edge_litert'  # which is looked for first
  monkeypatch.setitem(sys.modules, module, None)
  arguments = [f'--child={package}', f'--format={name}', f'--out={tmp_path}/o']
  refused(capsys, arguments, name, module, f"pip install -e '.[{extra}]'")
  assert list(tmp_path.iterdir()) == []


def test_a_target_that_cannot_be_written(package, tmp_path, capsys):
  file = tmp_path / 'file'
  file.write_text('mine')
  closed = tmp_path / 'closed'
  closed.mkdir(mode=0o555)
  targets = [file, file / 'below', '/proc/nowhere', '/sys/nowhere']
  targets += [closed, closed / 'below'] * (os.geteuid() != 0)
  for target in targets:
    arguments = [f'--child={package}', '--format=onnx', f'--out={target}']
    refused(capsys, arguments, '--out', str(target), 'written to')
  assert file.read_text() == 'mine'
  assert sorted(tmp_path.iterdir()) == [closed, file]


@pytest.fixture
def nothing_done(monkeypatch):
  """Fails the test if an export is begun."""

  def begun(*arguments):
    pytest.fail('it has begun to compare')

  monkeypatch.setattr(parity, 'samples', begun)


@pytest.mark.usefixtures('nothing_done')
@pytest.mark.parametrize(
  'out', ['.', 'CHILD', 'link', 'dangling', 'CHILD/../a']
)
def test_places_that_are_no_directories_of_exports(
  package, tmp_path, capsys, monkeypatch, out
):
  monkeypatch.chdir(tmp_path)
  shutil.copytree(package, 'a')
  pathlib.Path('link').symlink_to('a')
  pathlib.Path('dangling').symlink_to('nowhere')
  before = everything(tmp_path)
  out = out.replace('CHILD', str(tmp_path / 'a'))
  refused(capsys, ['--child=a', '--format=onnx', f'--out={out}'], '--out')
  assert everything(tmp_path) == before


@pytest.mark.usefixtures('nothing_done')
@pytest.mark.parametrize(
  'name', ['model.onnx', 'model.int8.onnx', 'model.stablehlo', 'triton/notes']
)
def test_a_file_that_we_have_not_written(package, tmp_path, capsys, name):
  mine = tmp_path / 'o' / name
  mine.parent.mkdir(parents=True)
  mine.write_text('mine')
  arguments = [
    '--format=onnx,stablehlo,triton',
    '--int8',
    f'--out={tmp_path}/o',
  ]
  refused(capsys, [f'--child={package}', *arguments], '--out', name)
  assert everything(tmp_path) == {f'o/{name}': b'mine'}


def test_one_that_has_changed_since(package, tmp_path, capsys, monkeypatch):
  """Others stay where they are, and formats that are not exported again."""
  arguments = [f'--child={package}', f'--out={tmp_path}/o', '--images=20']
  assert run(capsys, *arguments, '--format=onnx')[0] == 0
  (tmp_path / 'o/model.onnx').write_bytes(b'quantised by hand')
  (tmp_path / 'o/notes').write_bytes(b'mine')
  before = everything(tmp_path)
  refused(capsys, [*arguments, '--format=onnx'], '--out', 'model.onnx')
  assert everything(tmp_path) == before
  assert run(capsys, *arguments, '--format=stablehlo')[0] == 0
  after = everything(tmp_path)
  assert before.items() - after.items() == {
    ('o/export.json', before['o/export.json'])
  }
  assert set(after) == {*before, 'o/model.stablehlo'}


def test_a_child_that_changes_meanwhile(package, tmp_path, capsys, monkeypatch):
  child = shutil.copytree(package, tmp_path / 'child')

  def load(directory):
    (child / 'child.json').write_bytes(
      (child / 'child.json').read_bytes() + b' '
    )
    return real(directory)

  real = stablehlo.load
  monkeypatch.setattr(stablehlo, 'load', load)
  arguments = ['--format=stablehlo', f'--out={tmp_path}/o', '--images=20']
  status, out, lines = run(capsys, f'--child={child}', *arguments)
  assert (status, out) == (2, '') and 'stays as it is' in lines[-1]
  assert not (tmp_path / 'o').exists()


@pytest.mark.parametrize(
  'text', ['{}', '[]', 'x', '{"formats": {"a": {"files": {"../a": 1}}}}']
)
def test_another_file_in_the_place_of_the_manifest(
  package, tmp_path, capsys, text
):
  (tmp_path / 'export.json').write_text(text)
  arguments = [f'--child={package}', '--format=onnx', f'--out={tmp_path}']
  refused(capsys, arguments, 'export.json')
  assert everything(tmp_path) == {'export.json': text.encode()}


def test_a_full_disk(package, tmp_path, capsys, monkeypatch):
  def full(network, directory):
    raise OSError(28, os.strerror(28))

  monkeypatch.setattr(stablehlo, 'write', full)
  arguments = [f'--child={package}', '--format=stablehlo', '--images=20']
  refused(capsys, [*arguments, f'--out={tmp_path}/o'], '--out', 'No space')
  assert list(tmp_path.iterdir()) == []


def test_a_damaged_package(package, tmp_path, capsys):
  child = tmp_path / 'child'
  child.mkdir()
  arguments = [f'--child={child}', '--format=onnx']
  refused(capsys, arguments, 'child.json')
  (child / 'child.json').write_bytes((package / 'child.json').read_bytes())
  whole = (package / 'model.safetensors').read_bytes()
  (child / 'model.safetensors').write_bytes(whole[:-8])
  refused(capsys, arguments, 'model.safetensors', 'undamaged')
  assert not (child / 'export').exists()


# By path in `child.json`: what may stand there in its place.
_FIELDS = {
  'format': (True,),  # which is 1 in Python
  'network': (),
  'network.name': ('x',),
  'network.classes': (),
  'network.stages': (),
  'arch': (),
  'arch.width': (),
  'input': (),
  'input.image_size': (),
  'input.mean': (),
  'input.std': (),
  'input.channels': (),
  'input.resolution': (),
  'classes': (None,),
  'class_names': ([], None),
  'calibration': (None,),
  'calibration.images': (),
  'data': (),
  'data.name': (),
  'data.eval_crop': (),
}


@pytest.mark.parametrize('field', _FIELDS)
def test_a_field_of_another_type(package, tmp_path, capsys, field):
  child = shutil.copytree(package, tmp_path / 'child')
  right = json.loads((child / 'child.json').read_text())
  *outer, last = field.split('.')
  arguments = [f'--child={child}', '--format=stablehlo', '--images=5']
  for wrong in (None, 'x', -3, 1.5, True, [], ['a', 5], {}, {'b': 'c'}):
    if wrong in _FIELDS[field]:
      continue
    changed = json.loads(json.dumps(right))
    inner = changed
    for name in outer:
      inner = inner[name]
    inner[last] = wrong
    (child / 'child.json').write_text(json.dumps(changed))
    refused(capsys, arguments, 'child.json')
  assert set(everything(child)) == set(everything(package))


def test_weights_of_another_type(package, tmp_path, capsys):
  child = shutil.copytree(package, tmp_path / 'child')
  path = child / 'model.safetensors'
  arrays = safetensors.numpy.load_file(path)
  half = {k: v.astype(np.float16) for k, v in arrays.items()}
  path.write_bytes(safetensors.numpy.save(half))
  arguments = [f'--child={child}', '--format=onnx']
  refused(capsys, arguments, 'model.safetensors', 'other arrays')
  path.write_bytes(path.read_bytes().replace(b'"F16"', b'"F8X"'))
  refused(capsys, arguments, 'model.safetensors', 'undamaged')


def test_a_child_of_the_big_space_is_as_big_as_its_parameters(tmp_path):
  """Within a tenth; statistics, or biases for them, and the header included."""
  arch = arch_lib.smallest(zoo.BIGNAS)
  shapes = network_lib.shapes(pinning.pin(zoo.BIGNAS, arch))
  variables = {
    'params': jax.tree.map(lambda s: np.zeros(s.shape, np.float32), shapes),
    'batch_stats': jax.tree.map(
      lambda s: np.ones(s.shape, np.float32),
      network_lib.stats_shapes(pinning.pin(zoo.BIGNAS, arch)),
    ),
  }
  space = pinning.pin(zoo.BIGNAS, arch)
  params = counting.cost(space, arch).params
  for fold in (False, True):
    where = epath.Path(tmp_path) / str(fold)
    if fold:
      space, variables = folding.fold(space, variables)
    package_lib.save(where, package_lib.Child(arch, space, variables, {}))
    size = (where / 'model.safetensors').stat().length
    assert size <= 1.1 * 4 * params
