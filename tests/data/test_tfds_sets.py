"""A set that TensorFlow Datasets has prepared, as the data of a run."""

import dataclasses
import json
import pickle
import shutil
import subprocess
import sys

import pytest
import tfds_sets
import tiny

from bignas_jax import cli, evaluate
from bignas_jax.data import decode, identity, sources
from bignas_jax.methods.loss_graph import Rule
from bignas_jax.runs import config as config_lib
from bignas_jax.training import loop
from bignas_jax.values import errors


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  directory = tmp_path_factory.mktemp('tensorflow_datasets')
  tfds_sets.prepare(tfds_sets.Shades, directory)
  return directory


def data(directory, **changes):
  fields = {
    'name': 'tfds:shades',
    'directory': str(directory),
    'held_out': 6,
    'augment': 'crop',
    'mean': (0.5,) * 3,
    'std': (0.25,) * 3,
  }
  return sources.Data(**fields | changes)


def test_images_labels_names_and_splits_are_the_sets(prepared):
  splits = sources.load(data(prepared), 3)
  assert [len(split) for split in splits] == [18, 6, 9, 0]
  assert splits.train.classes == tfds_sets.NAMES
  wanted = sorted(
    tfds_sets.pixels(i).tobytes() for i in range(tfds_sets.IMAGES['train'])
  )
  found = []
  for split in splits.train, splits.held_out:
    for i in range(len(split)):
      image, label = split[i]
      shown = decode.decode(image)
      found.append(shown.tobytes())
      assert shown.mean() // 80 == label, split.name(i)
  assert sorted(found) == wanted
  again = pickle.loads(pickle.dumps(splits.train))
  assert again[3][1] == splits.train[3][1]
  assert again.digest() == splits.train.digest() != splits.held_out.digest()


def test_a_version_may_be_named(prepared):
  named = sources.load(data(prepared, name='tfds:shades:1.0.0'), 3)
  unnamed = sources.load(data(prepared), 3)
  assert identity.describe(named) == identity.describe(unnamed)


@pytest.fixture(scope='module')
def config(prepared):
  space = dataclasses.replace(tiny.QUICK, channels=3, classes=3)
  return tiny.config(
    space=space,
    data=data(prepared),
    rule=Rule(dropout=0.0),
    steps=4,
    batch_size=8,
    eval_every=4,
    eval_batch_size=8,
    calibration=config_lib.Calibration(images=16, batch_size=8),
  )


@pytest.fixture(scope='module')
def trained(config, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  return workdir, loop.train(config, workdir)


def test_it_trains_resumes_and_is_evaluated(trained, config, tmp_path, capsys):
  workdir, result = trained
  shutil.copytree(workdir, tmp_path / 'again')
  shutil.rmtree(tmp_path / 'again' / 'checkpoints' / '4')
  resumed = loop.train(config, tmp_path / 'again')
  assert resumed | {'workdir': ''} == result | {'workdir': ''}
  assert 'resuming from step 2' in capsys.readouterr().err
  arguments = [f'--workdir={workdir}', '--arch=biggest']
  assert cli.status(evaluate.main, arguments) == 0
  found = json.loads(capsys.readouterr().out)
  assert found['images'] == 9
  assert found['top1'] == result['eval/biggest/top1']


def test_training_needs_no_tensorflow(prepared):
  """In a process of its own, which reads an image of each split."""
  code = (
    'import sys\n'
    'import test_tfds_sets\n'
    'from bignas_jax.data import sources\n'
    'for split in sources.load(test_tfds_sets.data(sys.argv[1]), 3)[:3]:\n'
    '  split[0]\n'
    'sys.exit("tensorflow" in sys.modules)\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code, prepared], env=tiny.environment(), check=False
  )
  assert done.returncode == 0


def refused(*words, **changes):
  with pytest.raises(errors.UserError) as caught:
    sources.load(data(**changes), 3)
  text = str(caught.value)
  assert '\n' not in text
  for word in words:
    assert word in text


def test_what_is_not_there_is_named(prepared, tmp_path):
  refused('data.name', 'tfds:shaeds', name='tfds:shaeds', directory=prepared)
  refused('data.name', name='tfds:', directory=prepared)
  refused('data.name', name='tfds:shades:9.9.9', directory=prepared)
  command = 'tfds build shades --file_format=array_record'
  refused('data.directory', command, directory=tmp_path)
  refused('data.name', 'tfds:NAME', name='imagenet', directory=prepared)


def test_a_missing_file_is_named(prepared, tmp_path):
  shutil.copytree(prepared, tmp_path / 'copy')
  for file in (tmp_path / 'copy').rglob('*test.array_record*'):
    file.unlink()
  refused('data.directory', 'all files', directory=tmp_path / 'copy')


def test_a_set_without_labels_is_refused(tmp_path):
  tfds_sets.prepare(tfds_sets.Captions, tmp_path)
  words = 'image classification'
  refused('data.name', words, name='tfds:captions', directory=tmp_path)
