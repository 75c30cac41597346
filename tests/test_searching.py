"""Searches of a trained run: what is asked, looked up, kept and refused."""

import dataclasses
import json
import os
import pathlib
import resource
import shutil

import cv2
import numpy as np
import pytest
import tiny

from bignas_jax import arch as arch_lib
from bignas_jax import (
  cli,
  evaluation,
  extraction,
  locks,
  predictor,
  search,
  sources,
  training,
)
from bignas_jax.selection import Search
from bignas_jax.sources import Data

SPACE = dataclasses.replace(
  tiny.QUICK,
  stem_width=(8, 16),
  stages=(dataclasses.replace(tiny.QUICK.stages[0], width=(8, 12, 16)),),
  head_width=(16, 20, 24),
)


def run_config(directory):
  """Two steps on an image folder."""
  return tiny.config(
    space=SPACE,
    data=Data(
      name='image_folder',
      directory=str(directory),
      held_out=40,
      augment='crop',
      mean=(0.5,),
      std=(0.25,),
      max_damaged=0.05,
    ),
    policy='alone',  # compiles less
    steps=1,
    eval_every=1,
    batch_size=8,
    eval_batch_size=40,
    calibration=evaluation.Calibration(images=16, batch_size=8),
    search=Search(evaluations=6, population=2, mutants=2),
  )


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run, one of whose held-out images cannot be decoded."""
  base = tmp_path_factory.mktemp('searched')
  rng = np.random.default_rng(0)
  for split, count in (('train', 80), ('test', 20)):
    for i in range(count):
      path = base / 'images' / split / str(i % 4) / f'{i}.jpg'
      path.parent.mkdir(parents=True, exist_ok=True)
      pixels = rng.normal(60 * (i % 4), 30, (12, 12)).clip(0, 255)
      path.write_bytes(cv2.imencode('.jpg', pixels.astype(np.uint8))[1])
  config = run_config(base / 'images')
  held_out = sources.load(config.data, 1).held_out
  pathlib.Path(held_out.name(3)).write_bytes(b'no image')
  training.train(config, base / 'run')
  return base / 'run'


@pytest.fixture
def run(trained, tmp_path):
  """A copy that a test may change."""
  return pathlib.Path(shutil.copytree(trained, tmp_path / 'run'))


def status(workdir, *arguments):
  return cli.status(search.main, [f'--workdir={workdir}', *arguments])


def searched(capsys, workdir, *arguments):
  """The result that the command prints."""
  capsys.readouterr()
  assert status(workdir, *arguments) == 0
  return json.loads(capsys.readouterr().out)


def archive(workdir):
  return (workdir / 'search' / 'archive.csv').read_text()


class Interrupted:
  """Ends an evaluation as SIGTERM does, after `left` of them."""

  def __init__(self, monkeypatch):
    self.left, self._score = None, evaluation.Evaluator.score
    interrupted = self

    def score(evaluator, params, arch):
      if interrupted.left is not None:
        if interrupted.left == 0:
          raise cli.Preempted('here')
        interrupted.left -= 1
      return interrupted._score(evaluator, params, arch)

    monkeypatch.setattr(evaluation.Evaluator, 'score', score)


@pytest.fixture
def interrupted(monkeypatch):
  return Interrupted(monkeypatch)


@pytest.fixture
def learnt(monkeypatch):
  """How many children predictors learnt from."""
  counts, fit = [], predictor.fit

  def noting(space, scores, seed):
    counts.append(len(scores))
    return fit(space, scores, seed)

  monkeypatch.setattr(predictor, 'fit', noting)
  return counts


def test_children_scored_without_a_damaged_image_are_known(
  run, capsys, interrupted, learnt
):
  asked = '--strategy=random', '--evaluations=5'
  interrupted.left = 3
  assert status(run, *asked) == cli.PREEMPTED
  begun = archive(run)
  assert begun.count('\n') == 1 + 3
  interrupted.left = None
  found = searched(capsys, run, *asked)
  assert found['images'] == 39
  assert (found['evaluated'], found['looked_up']) == (5, 3)
  assert archive(run).startswith(begun)
  again = searched(capsys, run, *asked)
  assert (again['evaluated'], again['looked_up']) == (5, 5)
  assert again | {'seconds': 0, 'looked_up': 0} == found | {
    'seconds': 0,
    'looked_up': 0,
  }
  predicted = searched(capsys, run, '--strategy=predictor', '--evaluations=3')
  assert predicted['evaluated'] == 3
  assert learnt[0] > 5, 'what was known before is learnt from'


def test_two_searches_of_one_run_are_refused(run, capsys):
  (run / 'search').mkdir()
  place = run / 'search' / '.lock'
  with locks.hold(place, 'workdir', 'another'):
    assert status(run) == 2
  told = capsys.readouterr().err
  assert told.count('\n') == 1
  assert 'workdir: got' in told and 'no other search is running' in told
  assert os.listdir(run / 'search') == ['.lock']


def test_a_place_that_cannot_be_written_is_refused_at_once(run, capsys):
  (run / 'search').symlink_to('/proc/search')
  assert status(run) == 2
  told = capsys.readouterr().err
  assert told.count('\n') == 1
  assert 'workdir: got' in told and 'written to' in told


def test_each_question_has_its_answer(run, capsys, interrupted):
  """Another question in between, and a search goes on where it was."""
  learning = '--strategy=predictor', '--evaluations=5', '--max_macs=13e3'
  interrupted.left = 3
  assert status(run, *learning) == cli.PREEMPTED
  (begun,) = (run / 'search' / 'begun').iterdir()
  interrupted.left = None
  between = searched(capsys, run, '--strategy=random', '--evaluations=4')
  assert begun.exists()
  results = run / 'search' / 'results'
  (other,) = results.iterdir()
  assert other.name.startswith('random-')
  assert json.loads(other.read_text()) == between
  found = searched(capsys, run, *learning)
  assert found['looked_up'] >= 3 and not begun.exists()
  mine = results / begun.name
  assert mine.name.startswith('predictor-max_macs_13000-')
  assert {*results.iterdir()} == {mine, other}
  best = json.loads((run / 'search' / 'best.json').read_text())
  assert best == json.loads(mine.read_text()) == found
  assert json.loads(other.read_text()) == between
  arch = extraction.choose(run, SPACE, str(other))
  assert arch_lib.to_dict(arch) == between['arch']


def test_another_number_of_counted_images_is_said_once(
  run, capsys, monkeypatch
):
  searched(capsys, run, '--strategy=random', '--evaluations=2')
  score = evaluation.Evaluator.score
  monkeypatch.setattr(
    evaluation.Evaluator,
    'score',
    lambda *arguments: score(*arguments)._replace(images=40),
  )
  assert status(run, '--strategy=random', '--evaluations=6') == 0
  told = capsys.readouterr().err
  assert told.count('40 held-out images are counted, and were 39') == 1


def test_a_full_disk_is_one_line_and_the_archive_stays(run, capsys):
  searched(capsys, run, '--strategy=random', '--evaluations=9')
  before = archive(run)
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 30, limits[1]))
  try:
    found = status(run, '--strategy=random', '--evaluations=11')
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert found == cli.FAILED
  told = capsys.readouterr()
  assert told.err.count('\n') == 1
  assert 'no room for' in told.err and 'archive.csv' in told.err
  assert archive(run) == before
  found = searched(capsys, run, '--strategy=random', '--evaluations=11')
  assert found['looked_up'] == 9
  assert archive(run).startswith(before)


@pytest.mark.parametrize(
  ('option', 'words'),
  [
    ('--max_macs=nan', '--max_macs: got nan; allowed: a number >= 0'),
    ('--max_macs=inf', '--max_macs: got inf; allowed: a finite number'),
    ('--min_params=-1', '--min_params: got -1.0'),
    ('--max_macs=many', '--max_macs'),
    ('--min_macs=1e999', '--min_macs: got inf'),
    ('--evaluations=0', 'search.evaluations: got 0'),
    ('--evaluations=2.5', '--evaluations'),
    ('--seed=-1', 'search.seed: got -1'),
    ('--objectives=macs,', "search.objectives: got ''"),
    ('--objectives=latency_ms', '--latency_table'),
    ('--latency_table=nowhere.json', 'nowhere.json'),
  ],
)
def test_what_cannot_be_asked_is_one_line(trained, capsys, option, words):
  capsys.readouterr()
  try:
    found = status(trained, option)
  except SystemExit as done:
    found = done.code
  told = capsys.readouterr()
  assert found == 2 and told.out == ''
  assert told.err.count('\n') == 1 and words in told.err
  assert not (trained / 'search').exists()
