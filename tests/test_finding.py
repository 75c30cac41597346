"""Searches of real files, on scores that are known in advance."""

import json
import math

import numpy as np
import pytest
from etils import epath

from bignas_jax import arch as arch_lib
from bignas_jax import (
  evaluation,
  latency,
  latency_tables,
  limits,
  questions,
  searching,
  spaces,
)
from bignas_jax.archive import Archive
from bignas_jax.scoring import Basis
from bignas_jax.selection import Search

SPACE = spaces.MNIST
BASIS = Basis(step=9, calibration_images=64)


def task(strategy, table=None, bounds=None, **settings):
  asked = limits.from_dict(bounds or {})
  return searching.checked(SPACE, strategy, Search(**settings), asked, table)


def score(arch):
  """Differs from child to child, and takes no time."""
  rng = np.random.default_rng(arch_lib.read(arch))
  return evaluation.Score(float(rng.uniform(0.2, 0.9)), 1.0, 499)


def search(directory, what, evaluate=score):
  """As `searching.search` does; the answer."""
  directory = epath.Path(directory)
  archive, asked = Archive(directory / 'archive.csv', SPACE), what.question(9)
  before = questions.begin(directory, asked, len(archive.entries))
  found = searching.find(
    what, archive, before, evaluate, BASIS, pause=lambda: None
  )
  result = searching.answer(what, found, asked)
  questions.finish(directory, asked, result)
  return result


@pytest.fixture(scope='module')
def table(tmp_path_factory):
  """Latencies at 32 pixels alone."""
  path = epath.Path(tmp_path_factory.mktemp('table') / 'table.json')
  about = {'runtime': 'jax', 'batch': 1, 'device': 'a clock', 'versions': {}}
  parts = latency.all_parts(SPACE, (32,))
  times = {part: 0.1 * part.width_out for part in parts}
  latency_tables.save(
    path, SPACE, (32,), about | {'estimate': False}, times, latency.Fit()
  )
  return latency_tables.load(path, SPACE)


def archived(directory):
  return Archive(epath.Path(directory) / 'archive.csv', SPACE).entries


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
