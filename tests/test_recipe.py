"""The paper's recipe, from a folder of JPEG files to a child behind HTTP."""

import dataclasses
import importlib
import json

import cv2
import jax
import numpy as np
import pytest
import services
import tiny

from bignas_jax import cli
from bignas_jax.selection import extraction
from bignas_jax.strategies.problem import Search
from bignas_jax.supernet.evaluation import Calibration
from configs import imagenet

_CLASSES = 'cat', 'dog', 'owl'
_CONFIG = """
import test_recipe


def get_config():
  return test_recipe.recipe({directory!r})
"""


def recipe(directory):
  """`configs/imagenet.py` at a size for tests: bfloat16 and all else is its."""
  paper = imagenet.get_config()
  space = dataclasses.replace(
    tiny.QUICK,
    resolution=(8, 10, 12),
    train_resolution=(8, 12),
    channels=3,
    classes=len(_CLASSES),
  )
  return dataclasses.replace(
    paper,
    space=space,
    data=dataclasses.replace(
      paper.data, name='image_folder', directory=directory, held_out=8
    ),
    steps=5,
    batch_size=8,
    schedule=dataclasses.replace(
      paper.schedule, warmup_steps=2, decay_steps=2.4
    ),
    log_every=5,
    eval_every=5,
    checkpoint_every=5,
    eval_batch_size=8,
    calibration=Calibration(images=16, batch_size=16),
    search=Search(
      evaluations=2,
      mutants=1,
      depth_presets=1,
      width_presets=1,
      kernel_presets=1,
    ),
  )


@pytest.fixture(scope='module')
def images(tmp_path_factory):
  """Three classes of JPEG files."""
  rng = np.random.default_rng(0)
  root = tmp_path_factory.mktemp('images')
  for split, count in ('train', 12), ('val', 6):
    for label, name in enumerate(_CLASSES):
      folder = root / split / name
      folder.mkdir(parents=True)
      for i in range(count):
        colour = (label * 67, 40 + label * 80, 90)
        pixels = np.clip(rng.normal(colour, 25, (30, 24, 3)), 0, 255)
        cv2.imwrite(str(folder / f'{i}.jpg'), pixels.astype(np.uint8))
  return root


def _run(capsys, name, *arguments):
  """The command's result."""
  command = importlib.import_module(f'bignas_jax.{name}').main
  status = cli.status(command, list(map(str, arguments)))
  shown = capsys.readouterr()
  assert status == 0, shown.err
  return json.loads(shown.out.splitlines()[-1])


@pytest.fixture(scope='module')
def trained(images, tmp_path_factory):
  base = tmp_path_factory.mktemp('recipe')
  file = base / 'config.py'
  file.write_text(_CONFIG.format(directory=str(images)))
  from bignas_jax import main

  arguments = [f'--config={file}', f'--workdir={base}/run']
  assert cli.status(main.main, arguments) == 0
  return base / 'run'


def test_from_images_to_a_served_child(trained, images, capsys, tmp_path):
  assert jax.device_count() == 4
  assert imagenet.get_config().dtype == 'bfloat16'
  _run(capsys, 'search', f'--workdir={trained}')
  child = trained / 'children/best'
  info = _run(capsys, 'extract', f'--workdir={trained}', f'--out={child}')
  parity = info['parity']
  assert parity['max_diff_over_scale'] <= extraction.TOLERANCE
  assert parity['images'] == 18, 'as many as were compared'
  rounded = parity['bfloat16']['max_abs_diff']
  assert rounded > 10 * parity['max_abs_diff'], 'told, not refused'
  score = _run(capsys, 'evaluate', f'--child={child}')
  assert score['top1'] == info['accuracy']['top1'] and score['images'] == 18
  manifest = _run(capsys, 'export', f'--child={child}', '--format=onnx')
  assert manifest['verified']
  service = services.Service(child, tmp_path / 'log').wait()
  sent = (images / 'val/cat/0.jpg').read_bytes()
  status, answer = service.predict(sent)
  assert status == 200
  assert {c['name'] for c in answer['classes']} == set(_CLASSES)
  assert service.stop()[0] == 0


def test_logits_that_are_no_numbers_are_no_child():
  """NaN is not within any tolerance."""

  class Batches:
    split = ({'mask': np.array([True])},)

    def logits(self, value, stats, batch, arch):
      return np.array([[value]])

  for value in (np.nan, 2.0):
    ours = extraction._Weighted(Batches(), 1.0, None)
    found = extraction._difference(ours, ours._replace(params=value), None)
    assert not found.over_scale <= extraction.TOLERANCE
