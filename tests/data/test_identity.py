"""Data are known by their names and labels, wherever they lie."""

import json
import pathlib
import shutil

import cv2
import numpy as np
import pytest
import tiny

import bignas_jax
from bignas_jax import cli, evaluate, export, extract, search
from bignas_jax.data import folders, identity, sources
from bignas_jax.runs import directory as directory_lib
from bignas_jax.training import loop
from bignas_jax.values import errors

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden/run_0_1_0'
PARTS = ('classes', 'train', 'held_out', 'test')


def settings(directory, **changes) -> sources.Data:
  fields = {'held_out': 6, 'augment': 'crop', 'mean': (0.13,), 'std': (0.31,)}
  fields |= {'name': 'image_folder', 'directory': str(directory)} | changes
  return sources.Data(**fields)


def config(directory):
  """Two steps of one small network on a folder of images."""
  return tiny.config(
    space=tiny.QUICK,
    arch='biggest',
    policy='alone',
    data=settings(directory),
    steps=2,
    batch_size=4,
    eval_every=2,
    eval_batch_size=8,
  )


def images(root: pathlib.Path) -> pathlib.Path:
  """Three classes of eight training and four test images."""
  rng = np.random.default_rng(0)
  for split, count in ('train', 8), ('test', 4):
    for name in 'cat', 'dog', 'owl':
      (root / split / name).mkdir(parents=True)
      for i in range(count):
        pixels = rng.integers(0, 256, (9, 9), np.uint8)
        cv2.imwrite(str(root / split / name / f'{i}.png'), pixels)
  return root


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run, its child, and where their images lie."""
  root = tmp_path_factory.mktemp('trained')
  loop.train(config(images(root / 'data')), root / 'run')
  command = [f'--workdir={root / "run"}', f'--out={root / "child"}']
  assert cli.status(extract.main, command) == 0
  return root


@pytest.fixture
def moved(trained, tmp_path):
  """The same images elsewhere, where a test may change them."""
  return shutil.copytree(trained / 'data', tmp_path / 'moved')


def said(capsys, module, *options) -> tuple[int, str, dict]:
  """Status of a command, its last line for a person, and its result."""
  status = cli.status(module.main, list(map(str, options)))
  out, err = capsys.readouterr()
  lines = err.splitlines()
  return status, lines[-1] if lines else '', json.loads(out or '{}')


def written(run: pathlib.Path) -> set[pathlib.Path]:
  """All files of a run but for locks."""
  return {p for p in run.rglob('*') if p.is_file() and p.name != '.lock'}


def described(directory, **changes) -> dict:
  data = settings(directory, **changes)
  return identity.describe(sources.load(data, 1))


# What it is.


def test_it_is_of_names_and_labels(trained, moved):
  """Not of the path, nor of contents, which would have to be read."""
  before = described(trained / 'data')
  assert set(before) == set(PARTS)
  counts = [before[split]['images'] for split in PARTS[1:]]
  assert counts == [18, 6, 12]
  assert before['classes']['names'] == ['cat', 'dog', 'owl']
  (moved / 'train' / 'cat' / '0.png').write_bytes(b'mended')
  assert described(moved) == before
  assert described(f'{moved}//.') == before

  def differing():
    return [p for p in PARTS if described(moved)[p] != before[p]]

  file = moved / 'test' / 'cat' / '0.png'
  file.rename(file.with_name('00.png'))
  assert differing() == ['test']
  file.with_name('00.png').rename(file)
  for split in 'train', 'test':
    (moved / split / 'owl').rename(moved / split / 'ant')
  assert differing() == list(PARTS)
  other = described(trained / 'data', held_out=7)
  assert [p for p in PARTS if other[p] != before[p]] == ['train', 'held_out']


def test_no_file_is_looked_at():
  """A million names are digested in seconds; these files do not exist."""
  names = [f'/nowhere/train/{i % 9}/\udcff{i}.jpg' for i in range(100_000)]
  labels = tuple(i % 9 for i in range(100_000))
  source = folders.FileSource(tuple(names), labels, ('a',) * 9, 3)
  assert len(source.digest()) == 64
  other = source.subset(range(99_999)).digest()
  assert other != source.digest()
  again = folders.FileSource(tuple(names), (*labels[:-1], 8), ('a',) * 9, 3)
  assert again.digest() != source.digest()


def test_arrays_are_known_by_their_contents():
  pixels = np.zeros((4, 8, 8, 1), np.uint8)
  labels = np.arange(4, dtype=np.int32)
  source = sources.ArraySource(pixels, labels, tuple('abcd'))
  assert source.digest() == source.subset([0, 1, 2, 3]).digest()
  others = (
    source.subset([1, 0, 2, 3]),
    sources.ArraySource(pixels + np.uint8(1), labels, tuple('abcd')),
    sources.ArraySource(pixels.reshape(4, 4, 16, 1), labels, tuple('abcd')),
  )
  assert source.digest() not in {other.digest() for other in others}


def test_differences_are_told_in_words():
  there = {
    'classes': {'count': 2, 'sha256': 'a', 'names': ['cat', 'dog']},
    'train': {'images': 12, 'sha256': 'b'},
    'held_out': {'images': 3, 'sha256': 'c'},
    'test': {'images': 4, 'sha256': 'd'},
  }
  here = {
    'classes': {'count': 3, 'sha256': 'x', 'names': ['ant', 'cat', 'dog']},
    'train': {'images': 11, 'sha256': 'y'},
    'held_out': {'images': 3, 'sha256': 'z'},
    'test': {'images': 4, 'sha256': 'd'},
  }
  assert identity.differences(there, here, PARTS) == [
    "classes: 2 there, 3 here; 'ant' is new",
    'train: 12 images there, 11 here',
    'held_out: 3 images here, as there, but others',
  ]
  assert identity.differences(here, here, PARTS) == []


# What is compared.


def test_runs_and_children_say_which_data_they_were_made_with(trained):
  wanted = described(trained / 'data')
  content = json.loads((trained / 'run' / 'config.json').read_text())
  assert content['data'] == wanted
  info = json.loads((trained / 'child' / 'child.json').read_text())
  assert info['data_identity'] == wanted
  assert info['source']['config_sha256'] == content['config_sha256']


@pytest.mark.parametrize('change', ['less', 'class'])
def test_other_data_are_refused_before_anything_is_written(
  trained, moved, capsys, change
):
  """All that uses training or held-out images; which those are has changed."""
  if change == 'less':
    (moved / 'train' / 'cat' / '0.png').unlink()
    words = 'train: 18 images there, 17 here'
  else:
    for split in 'train', 'test':
      shutil.copytree(moved / split / 'owl', moved / split / 'ant')
    words = "classes: 3 there, 4 here; 'ant' is new; train: 18 images there"
  before = written(trained / 'run')
  run, data = f'--workdir={trained / "run"}', f'--data={moved}'
  for module, *options in (
    (search, run),
    (extract, run, f'--out={trained / "refused"}'),
    (evaluate, run, '--arch=biggest'),
    (evaluate, f'--child={trained / "child"}', '--split=held_out'),
  ):
    status, line, _ = said(capsys, module, *options, data)
    assert status == 2
    assert line.startswith(f"error: data.directory: got '{moved}'; allowed: ")
    assert words in line
  for use in (
    lambda: loop.train(config(moved), trained / 'run'),
    lambda: bignas_jax.load_run(str(trained / 'run'), str(moved)),
  ):
    with pytest.raises(errors.UserError, match=words) as error:
      use()
    assert error.value.field == 'data.directory'
  assert written(trained / 'run') == before
  assert not (trained / 'refused').exists()


def test_data_that_have_moved_are_found(trained, moved, capsys, monkeypatch):
  away = trained / 'away'
  run, child = f'--workdir={trained / "run"}', f'--child={trained / "child"}'
  (trained / 'data').rename(away)
  try:
    for module, *options in (
      (evaluate, child),
      (evaluate, run, '--arch=biggest'),
      (search, run),
      (extract, run, f'--out={trained / "new"}'),
      (export, child, '--format=stablehlo'),
    ):
      status, line, _ = said(capsys, module, *options)
      assert status == 2 and '--data=DIRECTORY' in line
    result = loop.train(config(moved), trained / 'run')
    assert result['step'] == 2
    status, _, found = said(capsys, evaluate, child, f'--data={moved}')
    assert status == 0
    assert found['images'] == 12 and 'data_differs' not in found
    monkeypatch.chdir(moved.parent)
    out = trained / 'elsewhere'
    options = f'--out={out}', f'--data={moved.name}'
    status, _, found = said(capsys, extract, run, *options)
    assert status == 0 and found['data']['directory'] == str(moved)
  finally:
    away.rename(trained / 'data')


def test_a_child_may_be_tested_on_other_images_if_they_are_named(
  trained, tmp_path, capsys
):
  """Which differ from its own, as the result says; classes never may."""
  child = shutil.copytree(trained / 'child', tmp_path / 'child')
  data = shutil.copytree(trained / 'data', tmp_path / 'data')
  info = json.loads((child / 'child.json').read_text())
  info['data']['directory'] = str(data)
  (child / 'child.json').write_text(json.dumps(info))
  (data / 'test' / 'cat' / '0.png').unlink()
  words = 'test: 12 images there, 11 here'
  exporting = f'--child={child}', '--format=stablehlo', '--images=8'
  for module, *options in (
    (evaluate, f'--child={child}'),
    (export, *exporting),
  ):
    status, line, _ = said(capsys, module, *options)
    assert status == 2
    assert words in line and '--data=DIRECTORY' in line
    status = cli.status(module.main, [*options, f'--data={data}'])
    out, err = capsys.readouterr()
    assert status == 0 and 'warning: these are not the images' in err
    assert json.loads(out)['data_differs'] == [words]
  content = json.loads((child / 'export' / 'export.json').read_text())
  assert content['data_differs'] == [words]
  # Training images are nothing to a child that is tested.
  shutil.copytree(trained / 'data' / 'test', data / 'test', dirs_exist_ok=True)
  (data / 'train' / 'cat' / '0.png').unlink()
  status, _, found = said(capsys, evaluate, f'--child={child}')
  assert status == 0 and 'data_differs' not in found
  for split in 'train', 'test':
    (data / split / 'owl').rename(data / split / 'ant')
  status, line, _ = said(capsys, evaluate, f'--child={child}', f'--data={data}')
  assert status == 2 and "'ant' is new, 'owl' is missing" in line


def test_a_relative_path_means_one_place(trained, tmp_path, monkeypatch):
  shutil.copytree(trained / 'data', tmp_path / 'here' / 'data')
  images_of_others = images(tmp_path / 'there' / 'data')
  (images_of_others / 'train' / 'cat' / '0.png').unlink()
  monkeypatch.chdir(tmp_path / 'here')
  stored = loop.warm_start.resolve(config('data')).data.directory
  assert stored == str(tmp_path / 'here' / 'data')
  monkeypatch.chdir(tmp_path / 'there')
  with pytest.raises(errors.UserError, match='18 images there, 17 here'):
    loop.train(config('data'), trained / 'run')
  for path in '', 'gs://bucket/data':
    assert sources.placed(settings(path)).directory == path
  with pytest.raises(errors.UserError, match='nothing, for mnist5k') as error:
    sources.placed(settings('', name='mnist5k'), 'data')
  assert error.value.field == '--data'


def test_a_damaged_description_is_one_line(trained, tmp_path, capsys):
  child = shutil.copytree(trained / 'child', tmp_path / 'child')
  info = json.loads((child / 'child.json').read_text())
  for name, damaged in (
    ('data_identity', {}),
    ('data_identity', info['data_identity'] | {'test': {'images': 'many'}}),
    ('data_identity', []),
    ('data', info['data'] | {'held_out': None}),
    ('data', None),
  ):
    (child / 'child.json').write_text(json.dumps(info | {name: damaged}))
    status, line, _ = said(capsys, evaluate, f'--child={child}')
    assert status == 2
    assert line.startswith(f'error: child.json: {name}'), line
  run = shutil.copytree(trained / 'run', tmp_path / 'run')
  content = json.loads((run / 'config.json').read_text())
  (run / 'config.json').write_text(json.dumps(content | {'data': {}}))
  status, line, _ = said(capsys, evaluate, f'--workdir={run}', '--arch=biggest')
  assert status == 2 and line.startswith(f'error: {run}: data.classes: got')


# What was made before.


def test_older_runs_and_children_are_taken_as_they_are(
  trained, tmp_path, capsys, monkeypatch
):
  """It is said once, and whether class names, which children have, differ."""
  monkeypatch.setattr(identity, '_said', set())
  run = shutil.copytree(trained / 'run', tmp_path / 'run')
  content = json.loads((run / 'config.json').read_text())
  del content['data']
  content['config_sha256'] = 'made of other fields'
  (run / 'config.json').write_text(json.dumps(content))
  out = tmp_path / 'child'
  for _ in range(2):
    options = f'--workdir={run}', f'--out={out}'
    assert cli.status(extract.main, list(options)) == 0
  told = capsys.readouterr().err
  assert told.count('did not describe its data: they are not') == 1
  assert told.count('outputs 3 to 9 stand for nothing') == 2, 'of ten'
  info = json.loads((out / 'child.json').read_text())
  assert info['source']['config_sha256'] == 'made of other fields'
  del info['data_identity']
  (out / 'child.json').write_text(json.dumps(info))
  assert cli.status(evaluate.main, [f'--child={out}']) == 0
  told = capsys.readouterr().err
  assert told.count('did not describe its data: they are not') == 1
  info['class_names'][0] = 'ant'
  (out / 'child.json').write_text(json.dumps(info))
  monkeypatch.setattr(identity, '_said', set())
  assert cli.status(evaluate.main, [f'--child={out}']) == 0
  assert "'cat' is new, 'ant' is missing" in capsys.readouterr().err


def test_a_run_of_version_0_1_0_is_still_this_configs(tmp_path):
  run = shutil.copytree(GOLDEN, tmp_path / 'run')
  before = (run / 'config.json').read_bytes()
  loaded = directory_lib.load_config(run)
  splits = sources.load(loaded.data, 1)
  directory_lib.claim(run, loaded, splits)
  assert (run / 'config.json').read_bytes() == before
  stored = json.loads(before)['config_sha256']
  assert directory_lib.config_sha256(run, loaded) == stored
  loaded.data.held_out += 1
  with pytest.raises(errors.UserError, match='held_out'):
    directory_lib.claim(run, loaded, splits)
