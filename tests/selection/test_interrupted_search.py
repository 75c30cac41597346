"""Searches of real files, on scores that are known in advance."""

import functools
import json
import math
import pathlib
import tempfile

import hypothesis
import numpy as np
import pytest
from etils import epath
from hypothesis import strategies as st

from bignas_jax.costs import latency, latency_tables
from bignas_jax.costs.limits import Limits
from bignas_jax.runs.archive import Archive
from bignas_jax.selection import questions
from bignas_jax.selection import search as search_lib
from bignas_jax.selection import task as task_lib
from bignas_jax.selection.scorer import Basis
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import zoo
from bignas_jax.strategies import table as table_lib
from bignas_jax.strategies.problem import Search
from bignas_jax.supernet import evaluation

SPACE = zoo.MNIST
BASIS = Basis(step=9, calibration_images=64)


FREE = Limits()


def task(strategy, table=None, limits=FREE, **settings):
  return task_lib.checked(
    SPACE, strategy, Search(**settings), task_lib.Request(limits, table)
  )


quick_task = functools.cache(task)  # the same costs for all examples


def score(arch):
  """Differs from child to child, and takes no time."""
  rng = np.random.default_rng(arch_lib.read(SPACE, arch))
  return evaluation.Score(float(rng.uniform(0.2, 0.9)), 1.0, 499)


def search(directory, what, evaluate=score):
  """As `search.search` does; the answer."""
  directory = epath.Path(directory)
  asked = what.question(9, weights='some')
  archive = Archive(directory / 'archive.csv', SPACE)
  before = questions.begin(directory, asked, len(archive.entries))
  found = search_lib.find(
    what, archive, before, evaluate, BASIS, pause=lambda: None
  )
  result = search_lib.answer(what, found, asked)
  questions.finish(directory, asked, result)
  return result


@pytest.fixture(scope='module')
def table(tmp_path_factory):
  """Latencies at 32 pixels alone."""
  path = epath.Path(tmp_path_factory.mktemp('table') / 'table.json')
  about = {'runtime': 'jax', 'batch': 1, 'device': 'a clock', 'versions': {}}
  parts = latency.all_layers(SPACE, (32,))
  times = {part: 0.1 * part.width_out for part in parts}
  latency_tables.save(
    path, SPACE, (32,), about | {'estimate': False}, times, latency.Fit()
  )
  return latency_tables.load(path, SPACE)


SETTINGS = {
  'evaluations': 10,
  'population': 6,
  'mutants': 4,
  'candidates': 8,
  'depth_presets': 2,
  'kernel_presets': 1,
}


class Killed(BaseException):
  """Ends a search as a signal does."""


def dying(after):
  """An evaluation of which only so many succeed."""
  left = iter(range(after))

  def evaluate(arch):
    if next(left, None) is None:
      raise Killed
    return score(arch)

  return evaluate


@functools.cache
def uninterrupted(strategy):
  """The archive and the answer, where another search has been before."""
  with tempfile.TemporaryDirectory() as directory:
    search(directory, quick_task('random', evaluations=5, seed=7))
    found = search(directory, quick_task(strategy, **SETTINGS))
    return pathlib.Path(directory, 'archive.csv').read_bytes(), found


def plain(found, *left_out):
  """An answer without what tells of the sittings that it took."""
  names = ('seconds', 'looked_up', *left_out)
  return {name: value for name, value in found.items() if name not in names}


# One evaluation, in other spaces.
SEVERAL = sorted({*table_lib.STRATEGIES} - {'batch_norm_scales'})


@pytest.mark.parametrize('strategy', SEVERAL)
@hypothesis.settings(max_examples=6)
@hypothesis.given(
  kills=st.lists(
    st.tuples(
      st.integers(0, 6),  # children until it is killed
      st.integers(0, 60),  # bytes of the last line that were not written
      st.booleans(),  # whether another question is asked then
    ),
    min_size=1,
    max_size=4,
  )
)
def test_a_search_that_is_killed_anywhere_ends_as_if_it_had_not(
  strategy, kills
):
  archive, wanted = uninterrupted(strategy)
  what, others = quick_task(strategy, **SETTINGS), 0
  with tempfile.TemporaryDirectory() as directory:
    search(directory, quick_task('random', evaluations=5, seed=7))
    path = pathlib.Path(directory, 'archive.csv')
    for after, cut, other in kills:
      before = path.read_bytes()
      try:
        found = search(directory, what, dying(after))
        break
      except Killed:
        content = path.read_bytes()
        path.write_bytes(content[: max(len(before), len(content) - cut)])
      if other:
        others += 1
        search(directory, quick_task('random', evaluations=4, seed=10 + others))
    else:
      found = search(directory, what)
    if not others:
      assert path.read_bytes() == archive
      assert plain(found) == plain(wanted)
    assert plain(found, 'order') == plain(wanted, 'order')
    best = json.loads(pathlib.Path(directory, 'best.json').read_text())
    assert best == json.loads(json.dumps(found))
    assert not list(pathlib.Path(directory, 'begun').iterdir())


def archived(directory):
  return Archive(epath.Path(directory) / 'archive.csv', SPACE).entries


def test_a_trajectory_is_continued_and_answers_keep_the_limits(tmp_path):
  """A better child that breaks the limits is evaluated, but no answer."""
  before = 0
  for macs in (1.6e6, 1.4e6, 1.6e6):
    what = task('greedy', limits=Limits(most={'macs': macs}))
    found = search(tmp_path, what)
    entries = archived(tmp_path)
    fitting = [entry for entry in entries if entry.macs <= macs]
    assert found['macs'] <= macs
    if macs == 1.6e6 and not before:
      assert found['top1'] == max(entry.top1 for entry in fitting)
      assert len(fitting) < len(entries)
      first = found
    new = len(entries) - before
    assert found['evaluated'] - found['looked_up'] == new
    before = len(entries)
  assert new == 0 and found['arch'] == first['arch']


def test_children_of_unknown_latency_are_no_parents(tmp_path, table):
  settings = {'evaluations': 40, 'objectives': ('latency_ms',)}
  found = search(tmp_path, task('nsga2', table, **settings))
  assert {e.arch.resolution for e in archived(tmp_path)} == {32}
  assert math.isfinite(found['costs']['latency_ms'])


def test_a_latency_that_is_not_known_is_null(tmp_path, table):
  """A search that does not ask for it may choose any resolution."""
  what = task('random', table, evaluations=30)
  found = search(
    tmp_path,
    what,
    lambda arch: score(arch)._replace(top1=1 - arch.resolution / 100),
  )
  assert found['arch']['resolution'] < 32
  assert found['costs']['latency_ms'] is None

  def refuse(text):
    raise AssertionError(text)

  text = (tmp_path / 'best.json').read_text()
  assert json.loads(text, parse_constant=refuse) == found
