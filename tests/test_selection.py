"""Search algorithms on scores that are known in advance."""

import functools
import itertools

import pytest

from bignas_jax import arch as arch_lib
from bignas_jax import archive, counting, errors, selection, spaces
from bignas_jax.selection import Limits

SPACE = spaces.MNIST
COST = functools.cache(functools.partial(counting.cost, SPACE))


def _macs(arch):
  return COST(arch).macs


class _Recorder:
  """Scores by a formula, and remembers the order of asking."""

  def __init__(self, formula):
    self.formula, self.asked = formula, []

  def __call__(self, arch):
    self.asked.append(arch)
    return self.formula(arch)


def _coarse_to_fine(score, limits, seed=0, mutants=40):
  selection.coarse_to_fine(
    SPACE,
    score,
    lambda arch: limits.fit(COST(arch)),
    _macs,
    grid=selection.coarse_grid(SPACE, 4, 2, 4),
    mutants=mutants,
    mutation=0.2,
    seed=seed,
  )


def test_the_papers_grid_has_160_skeletons():
  grid = selection.coarse_grid(spaces.BIGNAS, 4, 2, 4)
  assert len(grid) == 5 * 4 * 2 * 4
  assert all(arch_lib.contains(spaces.BIGNAS, arch) for arch in grid)
  assert arch_lib.smallest(spaces.BIGNAS) in grid
  assert arch_lib.biggest(spaces.BIGNAS) in grid


def test_fine_steps_improve_on_the_grid():
  # Best at the most cost within the limit, which lies in the grid's widest gap.
  grid = selection.coarse_grid(SPACE, 4, 2, 4)
  costs = sorted(map(_macs, grid))
  _, below, above = max((b - a, a, b) for a, b in itertools.pairwise(costs))
  limit = (below + above) / 2
  score = _Recorder(_macs)
  _coarse_to_fine(score, Limits(max_macs=limit))
  coarse = max(_macs(arch) for arch in score.asked if arch in set(grid))
  fine = max(_macs(arch) for arch in score.asked)
  assert coarse == below < fine <= limit


def test_nothing_over_a_limit_is_ever_evaluated():
  limits = Limits(max_macs=0.9e6, max_params=60_000, min_macs=0.5e6)
  for search in (
    lambda score: _coarse_to_fine(score, limits),
    lambda score: selection.random(
      SPACE, score, lambda a: limits.fit(COST(a)), evaluations=50, seed=0
    ),
  ):
    score = _Recorder(_macs)
    search(score)
    assert len(score.asked) == len(set(score.asked)) > 20
    assert all(limits.fit(COST(arch)) for arch in score.asked)


def test_searches_repeat_by_seed():
  asked = []
  for seed in (0, 0, 1):
    score = _Recorder(lambda arch: -_macs(arch))
    _coarse_to_fine(score, Limits(max_macs=1e6), seed)
    asked.append(score.asked)
  assert asked[0] == asked[1] != asked[2]


def test_random_search_uses_its_evaluations_up():
  score = _Recorder(_macs)
  selection.random(SPACE, score, lambda a: True, evaluations=33, seed=5)
  assert len(score.asked) == 33


@pytest.mark.parametrize(
  'limits, field, bound',
  [
    (Limits(max_macs=1000), '--max_macs', 'smallest'),
    (Limits(max_params=10), '--max_params', 'smallest'),
    (Limits(min_macs=1e9), '--min_macs', 'biggest'),
  ],
)
def test_infeasible_limits_name_the_nearest_possible(limits, field, bound):
  with pytest.raises(errors.UserError, match=field) as refused:
    selection.check_limits(limits, COST, SPACE)
  cost = COST(getattr(arch_lib, bound)(SPACE))
  nearest = cost.params if 'params' in field else cost.macs
  assert str(nearest) in str(refused.value)


def test_contradictory_limits_are_refused():
  with pytest.raises(errors.UserError, match='--min_macs'):
    selection.check_limits(Limits(min_macs=2e6, max_macs=1e6), COST, SPACE)


def test_a_gap_between_children_ends_the_search():
  with pytest.raises(errors.UserError, match='random children fits'):
    selection.random(SPACE, _macs, lambda a: False, evaluations=1, seed=0)


def test_front_holds_those_that_no_other_beats():
  points = [(1, 5), (2, 4), (2, 6), (3, 6), (4, 9), (1, 3)]
  assert selection.front(points) == [(1, 5), (2, 6), (4, 9)]


def test_archive_is_read_back(tmp_path):
  path = tmp_path / 'search' / 'archive.csv'
  entry = archive.Entry(
    arch_lib.biggest(SPACE), 3, 2, 0.5, 500, 512, 0, 'random', 10
  )
  archive.Archive(path, SPACE).append(entry)
  assert archive.Archive(path, SPACE).entries == [entry]


def test_damaged_archive_is_named_by_line(tmp_path):
  path = tmp_path / 'archive.csv'
  path.write_text('arch,macs\n{},x\n')
  with pytest.raises(errors.UserError, match=r'archive\.csv line 2'):
    archive.Archive(path, SPACE)
