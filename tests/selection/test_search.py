"""Searches of a trained run: what is asked, looked up, kept and refused."""

import dataclasses
import json
import os
import pathlib
import resource
import shutil

import cv2
import jax
import numpy as np
import pytest
import tiny
from etils import epath

import bignas_jax
from bignas_jax import cli, search
from bignas_jax.data import sources
from bignas_jax.data.sources import Data
from bignas_jax.runs import restore
from bignas_jax.runs.archive import Archive
from bignas_jax.selection import extraction
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.strategies import predictor
from bignas_jax.strategies.problem import Search
from bignas_jax.supernet import evaluation
from bignas_jax.system import locks
from bignas_jax.training import loop
from bignas_jax.values import errors

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
  loop.train(config, base / 'run')
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
          raise errors.Preempted('here')
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

  def noting(space, scores, *others):
    counts.append(len(scores))
    return fit(space, scores, *others)

  monkeypatch.setattr(predictor, 'fit', noting)
  return counts


def test_children_scored_without_a_damaged_image_are_known(
  run, capsys, interrupted, learnt
):
  asked = '--strategy=random', '--evaluations=5'
  interrupted.left = 3
  assert status(run, *asked) == errors.PREEMPTED
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
  assert status(run, *learning) == errors.PREEMPTED
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


def test_several_limits_are_answered_from_one_archive(
  run, trained, tmp_path, capsys, interrupted
):
  """Interrupted in the second search, or one after another: the same."""
  asked = ['--strategy=random', '--evaluations=4']
  both = [*asked, '--max_macs=13e3', '--max_macs=1e9', '--min_params=1']
  interrupted.left = 5
  assert status(run, *both) == errors.PREEMPTED
  search_directory = run / 'search'
  assert len([*(search_directory / 'begun').iterdir()]) == 2
  assert not (search_directory / 'recommended.json').exists()
  interrupted.left = None
  found = searched(capsys, run, *both)
  assert not [*(search_directory / 'begun').iterdir()]
  other = pathlib.Path(shutil.copytree(trained, tmp_path / 'other'))
  one = searched(capsys, other, *asked, '--max_macs=13e3', '--min_params=1')
  alone = json.loads((other / 'search' / 'recommended.json').read_text())
  assert searched(capsys, other, *both)['recommended'] == found['recommended']
  names = ('seconds', 'looked_up')
  (mine,) = (search_directory / 'results').glob('random-max_macs_13000-*')
  first = json.loads(mine.read_text())
  assert first | dict.fromkeys(names) == one | dict.fromkeys(names)
  tight, loose = found['recommended']
  assert [e['limits']['max_macs'] for e in (tight, loose)] == [13e3, 1e9]
  assert {e['limits']['min_params'] for e in (tight, loose)} == {1}
  (only,) = alone['recommended']
  assert only['arch'] == one['arch'] and only['macs'] == one['macs']
  entries = Archive(epath.Path(search_directory / 'archive.csv'), SPACE).entries
  for entry in (tight, loose):
    fitting = [e for e in entries if e.macs <= entry['limits']['max_macs']]
    held_out = entry['accuracy']['float32']['held_out']
    assert held_out['top1'] == max(e.top1 for e in fitting)
  written = json.loads((search_directory / 'recommended.json').read_text())
  assert written['recommended'] == found['recommended']
  chosen = extraction.choose(epath.Path(run), SPACE, 'recommended:2')
  assert arch_lib.to_dict(chosen) == loose['arch']


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
  assert found == errors.FAILED
  *_, error = capsys.readouterr().err.splitlines()
  assert error.startswith('error: no room for') and 'archive.csv' in error
  assert archive(run) == before
  found = searched(capsys, run, '--strategy=random', '--evaluations=11')
  assert found['looked_up'] == 9
  assert archive(run).startswith(before)


@pytest.mark.parametrize(
  ('option', 'words'),
  [
    ('--max_macs=nan', "got 'nan'; allowed: a finite number"),
    ('--max_macs=inf', "got 'inf'; allowed: a finite number"),
    ('--min_params=-1', '--min_params: got -1.0'),
    ('--max_macs=many', '--max_macs'),
    ('--min_macs=1e999', '--min_macs=1e999: got inf'),
    ('--evaluations=0', '--evaluations=0: got 0'),
    ('--evaluations=2.5', '--evaluations'),
    ('--seed=-1', '--seed=-1: got -1'),
    ('--objectives=macs,', "search.objectives: got ''"),
    ('--objectives=latency_ms', '--latency_table'),
    ('--latency_table=nowhere.json', 'nowhere.json'),
    ('--memory_batch=0', '--memory_batch=0: got 0'),
    ('--memory_precision=int4', "--memory_precision: got 'int4'"),
  ],
)
def test_what_cannot_be_asked_is_one_line(trained, capsys, option, words):
  capsys.readouterr()
  assert status(trained, option) == 2
  told = capsys.readouterr()
  assert told.out == ''
  assert told.err.count('\n') == 1 and words in told.err
  assert not (trained / 'search').exists()


MISTAKES = [
  (lambda run, _: bignas_jax.load_run(5), 'workdir: got 5; allowed: a path'),
  (lambda run, _: bignas_jax.load_run(None), 'workdir: got None'),
  (lambda run, _: bignas_jax.load_run(b'a'), "workdir: got b'a'"),
  (lambda run, _: bignas_jax.load_run('no/run'), 'no/run'),
  (lambda run, _: bignas_jax.load_run(run.workdir, data=3), 'data: got 3'),
  (lambda run, _: bignas_jax.load_child(['a']), 'child: got'),
  (lambda run, _: bignas_jax.load_child('no/child'), 'no/child'),
  (lambda run, _: run.arch(None), 'arch: got None; allowed: an Arch'),
  (lambda run, _: run.arch(7), 'arch: got 7'),
  (lambda run, _: run.arch('bigest'), 'did you mean biggest?'),
  (lambda run, _: run.arch('{"arch": ' * 5000), 'valid JSON'),
  (lambda run, _: run.arch('best'), 'searched run'),
  (lambda run, _: run.arch({'resolution': 8}), 'keys'),
  (lambda run, _: run.arch({'arch': 3}), 'arch: got 3'),
  (lambda run, _: run.arch(_changed(width=3)), 'arch.width: got 3'),
  (lambda run, _: run.arch(_changed(width=(8, 8))), 'arch.width: got'),
  (lambda run, _: run.arch(_changed(depth=('1',))), 'arch.depth'),
  (lambda run, _: run.arch(_changed(resolution=None)), 'arch.resolution'),
  (lambda run, _: run.sample(-1), 'n: got -1; allowed: a whole number >= 0'),
  (lambda run, _: run.sample(2.5), 'n: got 2.5'),
  (lambda run, _: run.sample('3'), "n: got '3'"),
  (lambda run, _: run.sample(1, seed=-1), 'seed: got -1'),
  (lambda run, _: run.sample(1, seed=None), 'seed: got None'),
  (lambda run, _: run.costs({}), 'arch'),
  (lambda run, _: run.evaluate('smallest', 'train'), 'split'),
  (lambda run, _: run.evaluate('smallest', ['test']), 'split'),
  (lambda run, _: run.evaluate(3.5), 'arch'),
  (lambda run, _: run.search(None), '--strategy: got None'),
  (lambda run, _: run.search(['random']), '--strategy'),
  (lambda run, _: run.search('radnom'), 'did you mean random?'),
  (lambda run, _: run.search(max_macs=float('nan')), 'max_macs: got nan'),
  (lambda run, _: run.search(max_macs='1e6'), "max_macs: got '1e6'"),
  (lambda run, _: run.search(max_mac=1e6), 'max_mac: got'),
  (lambda run, _: run.search(evaluatoins=3), 'did you mean evaluations?'),
  (lambda run, _: run.search(evaluations='3'), 'search.evaluations'),
  (lambda run, _: run.search(evaluations=True), 'search.evaluations'),
  (lambda run, _: run.search(seed=1.5), 'search.seed: got 1.5'),
  (lambda run, _: run.search(objectives='macs'), 'search.objectives'),
  (lambda run, _: run.search(objectives=[1]), 'search.objectives'),
  (lambda run, _: run.search(memory_batch=0), '--memory_batch: got 0'),
  (lambda run, _: run.search(memory_precision=[8]), '--memory_precision'),
  (lambda run, _: bignas_jax.list_models(3), 'pattern: got 3'),
  (lambda run, _: run.arch('table:1'), 'there is no'),
  (lambda run, _: run.arch('recommended:1'), 'there is no'),
  (lambda run, _: run.search(latency_table=5), 'latency_table: got 5'),
  (lambda run, _: run.search(latency_table='no/table'), 'no/table'),
  (lambda run, _: run.extract('smallest', None), 'out: got None'),
  (lambda run, _: run.extract('smallest', run.workdir), 'a child package'),
  (lambda run, there: run.extract('smallest', there / 'config.json'), 'out'),
  (lambda run, _: run.extract(None, 'no/child'), 'arch: got None'),
]


def _changed(**fields):
  return dataclasses.replace(arch_lib.smallest(SPACE), **fields)


def test_a_notebooks_mistakes_are_the_commands_errors(trained):
  run = bignas_jax.load_run(trained)
  before = sorted(trained.rglob('*'))
  for mistake, words in MISTAKES:
    with pytest.raises(errors.UserError) as caught:
      mistake(run, trained)
    assert words in str(caught.value) and '\n' not in str(caught.value)
  assert sorted(trained.rglob('*')) == before


def test_a_childs_images_are_checked(trained, tmp_path):
  run = bignas_jax.load_run(str(trained))
  child = run.extract(run.sample(1)[0], tmp_path / 'child')
  right = np.zeros((2, 9, 9, 1), np.uint8)
  assert child(right).shape == (2, 10)
  for images in (
    right[0],
    right[..., 0],
    right.astype(np.float32),
    [[1]],
    None,
  ):
    with pytest.raises(errors.UserError, match=r'images: got .*uint8 \[batch'):
      child(images)
  path = tmp_path / 'child' / 'child.json'
  info = json.loads(path.read_text())
  for wrong in (
    None,
    {},
    {'channels': 1, 'mean': [0], 'std': [0]},
    {'mean': 3},
  ):
    path.write_text(json.dumps(info | {'input': wrong}))
    with pytest.raises(errors.UserError, match=r'child\.json: input'):
      bignas_jax.load_child(tmp_path / 'child')


def test_a_run_that_has_gone_on_is_told(run, capsys):
  loaded = bignas_jax.load_run(run)
  older = dataclasses.replace(loaded, _run=loaded._run._replace(step=7))
  found = older.search('random', evaluations=1)
  assert found['step'] == 1
  told = capsys.readouterr().err
  assert 'warning: this was of step 1' in told and 'of step 7' in told
  assert loaded.arch(found) == loaded.arch('best')


def test_other_weights_of_a_step_are_searched_anew(run, capsys, monkeypatch):
  """As after a rollback; what was found of the older ones is kept."""
  asked = '--strategy=random', '--evaluations=3'
  searched(capsys, run, *asked)
  before, load = archive(run), restore.load

  def trained_again(*arguments):
    found = load(*arguments)
    params = jax.tree.map(lambda leaf: 2 * leaf, found.params)
    return found._replace(params=params)

  monkeypatch.setattr(restore, 'load', trained_again)
  assert status(run, *asked) == 0
  told = capsys.readouterr()
  assert told.err.count('step 1 has other weights') == 1
  assert json.loads(told.out)['looked_up'] == 0
  assert (run / 'search' / 'archive.1.csv').read_text() == before
  assert searched(capsys, run, *asked)['looked_up'] == 3
  assert len([*(run / 'search' / 'results').iterdir()]) == 2
