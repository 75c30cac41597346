"""Search algorithms on scores that are known in advance."""

import dataclasses
import itertools

import numpy as np
import pytest

from bignas_jax.costs import limits as limits_lib
from bignas_jax.costs.limits import Limits
from bignas_jax.selection import child_costs
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions, presets, zoo
from bignas_jax.strategies import (
  additive,
  coarse_to_fine,
  evolution,
  nsga2,
  predictor,
  table,
)
from bignas_jax.strategies import problem as problem_lib
from bignas_jax.strategies.problem import Problem, Search
from bignas_jax.values import errors, schema

SPACE = zoo.MNIST
COSTS = child_costs.of(SPACE)
# It answers by a score of its own, in other spaces, and has tests of its own.
STRATEGIES = {
  name: strategy
  for name, strategy in table.STRATEGIES.items()
  if name != 'batch_norm_scales'
}
# Greedy slimming passes through children that break the limits, ends where the
# limits hold, and has tests of its own.
WITHIN = sorted({*STRATEGIES} - {'greedy'})


def _macs(arch):
  return COSTS(arch)['macs']


def _smooth(arch):
  """Grows with cost, but not by cost alone."""
  rng = np.random.default_rng(list(map(abs, arch_lib.read(SPACE, arch))))
  return (_macs(arch) ** 0.3 + arch.depth[1] + rng.normal(0, 0.3)) / 100


_HIDDEN = arch_lib.read(SPACE, arch_lib.sample(SPACE, np.random.default_rng(5)))


def _near(arch):
  """The share of decisions that are those of one hidden child."""
  pairs = zip(arch_lib.read(SPACE, arch), _HIDDEN, strict=True)
  return float(np.mean([a == b for a, b in pairs]))


class _Recorder:
  """Scores by a formula, and remembers the order of asking."""

  def __init__(self, formula):
    self.formula, self.asked = formula, []

  def __call__(self, arch):
    self.asked.append(arch)
    return self.formula(arch)


FREE = Limits()


def problem(score, limits=FREE):
  return Problem(
    space=SPACE,
    score=score,
    costs=COSTS,
    fits=lambda arch: limits.fit(COSTS(arch)),
    start=limits_lib.feasible(SPACE, COSTS, limits),
  )


def asked_by(strategy, formula=_smooth, limits=FREE, **settings):
  """Which children it evaluates, in order."""
  score = _Recorder(formula)
  settings = Search(**{'evaluations': 40, 'mutants': 20, **settings})
  STRATEGIES[strategy](problem(score, limits), settings)
  return score.asked


def test_the_papers_grid_has_160_skeletons():
  grid = coarse_to_fine.grid(zoo.BIGNAS, Search())
  assert len(grid) == 5 * 4 * 2 * 4
  assert all(arch_lib.contains(zoo.BIGNAS, arch) for arch in grid)
  assert arch_lib.smallest(zoo.BIGNAS) in grid
  assert arch_lib.biggest(zoo.BIGNAS) in grid


def test_fine_steps_improve_on_the_grid():
  # Best at the most cost within the limit, which lies in the grid's widest gap.
  grid = coarse_to_fine.grid(SPACE, Search())
  costs = sorted(map(_macs, grid))
  _, below, above = max((b - a, a, b) for a, b in itertools.pairwise(costs))
  limit = (below + above) / 2
  limits = Limits(most={'macs': limit})
  asked = asked_by('coarse_to_fine', _macs, limits, mutants=40)
  coarse = max(_macs(arch) for arch in asked if arch in set(grid))
  fine = max(map(_macs, asked))
  assert coarse == below < fine <= limit


NARROW = Limits(
  most={'macs': 0.9e6, 'params': 60_000, 'activation_bytes': 35_000},
  least={'macs': 0.5e6},
)


@pytest.mark.parametrize('strategy', WITHIN)
def test_nothing_over_a_limit_is_ever_evaluated(strategy):
  asked = asked_by(strategy, limits=NARROW, evaluations=24)
  assert len(asked) == len(set(asked)) > 20
  assert all(NARROW.fit(COSTS(arch)) for arch in asked)


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_searches_repeat_by_seed(strategy):
  few = {'limits': Limits(most={'macs': 1e6}), 'evaluations': 20}
  first, again, other = (
    asked_by(strategy, seed=seed, **few) for seed in (0, 0, 1)
  )
  assert first == again
  # In a space this small, additive scores are solved whatever the seed.
  assert first != other or strategy in ('additive', 'greedy')


@pytest.mark.parametrize('strategy', sorted({*WITHIN} - {'coarse_to_fine'}))
def test_evaluations_are_used_up_and_no_more(strategy):
  for n in (1, 33):
    assert len(asked_by(strategy, evaluations=n)) == n


@pytest.mark.parametrize('strategy', WITHIN)
def test_a_limit_that_one_child_keeps_ends_the_search(strategy):
  smallest = arch_lib.smallest(SPACE)
  limits = Limits(most={'macs': _macs(smallest)})
  assert asked_by(strategy, limits=limits) == [smallest]


@pytest.mark.parametrize('strategy', ['evolution', 'predictor'])
def test_strategies_beat_chance(strategy):
  # Chance has twice as many evaluations.
  best = {
    name: [
      max(
        map(_near, asked_by(name, _near, evaluations=n, population=8, seed=s))
      )
      for s in range(2)
    ]
    for name, n in ((strategy, 40), ('random', 80))
  }
  assert min(best[strategy]) > max(best['random'])


SINGLES = sum(len(gene.choices) - 1 for gene in decisions.genes(SPACE))


def test_additive_scores_are_solved_exactly():
  """From single replacements, the next child is the best of all."""
  asked = asked_by('additive', _near, evaluations=SINGLES + 2)
  base = arch_lib.biggest(SPACE)
  singles = asked[: SINGLES + 1]
  assert set(singles) == {base, *additive.replacements(SPACE, base)}
  assert _near(asked[-1]) == 1


@pytest.mark.parametrize('macs', [0.6e6, 0.9e6, 1.5e6])
def test_another_limit_is_answered_from_the_archive(macs):
  """By one evaluation, of the best child that keeps it."""
  archived = {
    arch: _near(arch) for arch in asked_by('additive', _near, evaluations=16)
  }
  limits, score = Limits(most={'macs': macs}), _Recorder(_near)
  again = problem(score, limits)._replace(archived=archived)
  additive.search(again, Search(evaluations=1))
  fitting = [a for a in arch_lib.every(SPACE) if limits.fit(COSTS(a))]
  (chosen,) = score.asked
  assert _near(chosen) == max(map(_near, fitting))


def test_evolution_keeps_the_best_of_each_bin():
  archs = sorted({*coarse_to_fine.grid(SPACE, Search())}, key=_macs)
  scored = {arch: _smooth(arch) for arch in archs}
  parents = evolution.best_of_bins(problem(_smooth), scored, 4)
  width = (_macs(archs[-1]) - _macs(archs[0])) / 4
  bins = {
    arch: min(int((_macs(arch) - _macs(archs[0])) / width), 3) for arch in archs
  }
  expected = {
    max((a for a in archs if bins[a] == i), key=scored.__getitem__)
    for i in set(bins.values())
  }
  assert set(parents) == expected
  assert [scored[a] for a in parents] == sorted(
    (scored[a] for a in parents), reverse=True
  )


def test_nsga2_finds_the_front_of_two_objectives():
  # Every child of the space is known; the front is what nothing dominates.
  whole = _hypervolume(arch_lib.every(SPACE))
  for seed in range(3):
    found, chance = (
      _hypervolume(asked_by(name, evaluations=200, seed=seed))
      for name in ('nsga2', 'random')
    )
    assert chance < found <= whole
    assert found > 0.9 * whole


def test_nsga2_leaves_children_of_unknown_costs_out():
  """At one resolution the latency is not known."""
  limits = Limits(required=('latency_ms',))

  def costs(arch):
    known = arch.resolution != 28
    found = COSTS(arch)
    return {**found, 'latency_ms': found['macs'] / 1e6 if known else np.inf}

  score = _Recorder(_smooth)
  nsga2.search(
    Problem(
      space=SPACE,
      score=score,
      costs=costs,
      fits=lambda arch: limits.fit(costs(arch)),
      start=limits_lib.feasible(SPACE, costs, limits),
    ),
    Search(evaluations=60, objectives=('latency_ms', 'params')),
  )
  assert len(score.asked) == 60
  assert 28 not in {arch.resolution for arch in score.asked}


def _hypervolume(archs):
  """Under the front's staircase, above the worst score, up to the dearest."""
  worst, end = _smooth(arch_lib.smallest(SPACE)), arch_lib.biggest(SPACE)
  front = problem_lib.front([(_macs(a), _smooth(a)) for a in archs])
  costs = [cost for cost, _ in front] + [_macs(end)]
  steps = zip(itertools.pairwise(costs), front, strict=True)
  return sum((b - a) * (score - worst) for (a, b), (_, score) in steps)


def test_predictor_learns_what_was_known_before():
  drawn = problem_lib.draw(problem(_near), 100, arch_lib.generator(9))
  settings = Search(evaluations=10, population=3)
  best = []
  for known in ({}, {arch: _near(arch) for arch in drawn}):
    score = _Recorder(_near)
    predictor.search(problem(score)._replace(archived=known), settings)
    best.append(max(map(_near, score.asked)))
  assert best[1] > best[0]


def test_quality_of_predictions_is_that_of_children_not_learnt_from():
  archs = problem_lib.draw(problem(_smooth), 120, arch_lib.generator(3))
  found = predictor.quality(SPACE, {arch: _smooth(arch) for arch in archs})
  assert found['children'] == 120 and found['rank_correlation'] > 0.8
  rng = np.random.default_rng(0)
  noise = predictor.quality(SPACE, {arch: rng.random() for arch in archs})
  assert abs(noise['rank_correlation']) < 0.3  # nothing to learn
  assert predictor.quality(SPACE, {archs[0]: 0.5}) is None


@pytest.mark.parametrize(
  'field, value', [('evaluations', 0), ('mutation', 0.0), ('population', 1)]
)
def test_settings_out_of_range_are_named(field, value):
  with pytest.raises(errors.UserError, match=f'^search.{field}'):
    schema.check(Search(**{field: value}), 'search')


def test_published_networks_of_the_space_are_evaluated_too(monkeypatch):
  inside = arch_lib.smallest(SPACE)
  named = {
    'inside': presets.Preset(SPACE.name, inside, 1, None, 0.5, 'a paper'),
    'outside': presets.Preset(
      SPACE.name,
      dataclasses.replace(inside, resolution=999),
      1,
      None,
      0.5,
      'a paper',
    ),
    'elsewhere': presets.Preset('bignas', inside, 1, None, 0.5, 'a paper'),
  }
  monkeypatch.setattr(presets, 'PRESETS', named)
  assert table.published(SPACE) == [inside]
  settings = Search(evaluations=5)
  for fits, expected in ((True, 6), (False, 5)):
    found = table.planned('random', SPACE, lambda _, f=fits: f, settings)
    assert found == expected


def test_front_holds_those_that_no_other_beats():
  points = [(1, 5), (2, 4), (2, 6), (3, 6), (4, 9), (1, 3)]
  assert problem_lib.front(points) == [(1, 5), (2, 6), (4, 9)]
