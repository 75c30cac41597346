"""Predictors of accuracy, and what is proposed by their predictions."""

import dataclasses

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from bignas_jax.selection import child_costs
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions, zoo
from bignas_jax.strategies import predicted_evolution, predictor
from bignas_jax.strategies.problem import Problem, Search
from bignas_jax.values import errors, schema

SPACE = zoo.MNIST
COSTS = child_costs.of(SPACE)
GENES = decisions.genes(SPACE)
PER_BLOCK = dataclasses.replace(SPACE, name='per_block', per_block=True)
KINDS = ('trees', 'mlp')


def sampled(number, space=SPACE, seed=0):
  rng = arch_lib.generator(seed)
  archs = (arch_lib.sample(space, rng) for _ in range(number))
  return list(dict.fromkeys(archs))


_RNG = np.random.default_rng(1)
SHARES = [dict.fromkeys(gene.choices, 0.0) for gene in GENES]
for of_gene in SHARES:
  of_gene.update((choice, _RNG.uniform(0, 0.05)) for choice in of_gene)


def additive(arch):
  """A share for each choice, at random."""
  pairs = zip(SHARES, arch_lib.read(SPACE, arch), strict=True)
  return float(sum(of_gene[value] for of_gene, value in pairs))


BEST = sum(max(of_gene.values()) for of_gene in SHARES)


def never(arch):
  raise AssertionError(arch)


def within(arch):
  return COSTS(arch)['macs'] <= 1e6


def problem(score, fits=lambda _: True):
  return Problem(SPACE, score, COSTS, fits, arch_lib.smallest(SPACE))


@pytest.mark.parametrize('space', [SPACE, PER_BLOCK], ids=lambda s: s.name)
@hypothesis.given(st.integers(0, 999))
def test_each_decision_is_one_hot(space, seed):
  archs = sampled(5, space, seed)
  rows = predictor.one_hot(space, archs)
  sizes = [len(gene.choices) for gene in decisions.genes(space)]
  blocks = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
  assert all((block.sum(1) == 1).all() for block in blocks)
  positions = np.stack([block.argmax(1) for block in blocks], 1)
  np.testing.assert_array_equal(positions, predictor.features(space, archs))


@pytest.mark.parametrize('kind', KINDS)
def test_predictions_have_the_scale_of_the_scores(kind):
  """Accuracies that differ by a thousandth are learnt as well as others."""
  archs = sampled(40)
  scores = {arch: additive(arch) for arch in archs}
  close = {arch: 0.7 + 1e-2 * score for arch, score in scores.items()}
  new = sampled(20, seed=1)
  one, other = (
    np.array(predictor.fit(SPACE, s, 0, kind)(new)) for s in (scores, close)
  )
  np.testing.assert_allclose((other - 0.7) / 1e-2, one, rtol=0.05)
  measured = [additive(arch) for arch in new]
  assert np.corrcoef(one, measured)[0, 1] > 0.7
  errors_of = predictor.predicted_error(SPACE, scores, 0, kind)
  np.testing.assert_allclose(errors_of(new), 1 - one)


def test_quality_of_a_network_is_that_of_children_not_learnt_from():
  archs = sampled(50)
  found = predictor.quality(SPACE, {a: additive(a) for a in archs}, 'mlp')
  assert found['predictor'] == 'mlp' and found['children'] == len(archs)
  assert found['rank_correlation'] > 0.8
  rng = np.random.default_rng(0)
  noise = predictor.quality(SPACE, {a: rng.random() for a in archs}, 'mlp')
  assert abs(noise['rank_correlation']) < 0.4  # nothing to learn


@hypothesis.settings(max_examples=10)
@hypothesis.given(st.integers(0, 99), st.integers(2, 20), st.booleans())
def test_an_evolution_of_predictions_keeps_limits(seed, size, narrow):
  fits = within if narrow else lambda _: True
  settings = Search(generations=6, predicted_population=size)
  predict = lambda archs: [additive(arch) for arch in archs]  # noqa: E731
  met = predicted_evolution.evolve(
    problem(never, fits), predict, settings, arch_lib.generator(seed)
  )
  assert all(fits(arch) for arch in met)
  assert met == {arch: additive(arch) for arch in met}
  assert len(met) <= size * 7


def test_an_evolution_of_predictions_finds_what_is_predicted_to_be_best():
  settings = Search(generations=30)
  predict = lambda archs: [additive(arch) for arch in archs]  # noqa: E731
  met = predicted_evolution.evolve(
    problem(never), predict, settings, arch_lib.generator(0)
  )
  assert max(met.values()) == pytest.approx(BEST)
  assert len(met) < arch_lib.count(SPACE)


def searched(kind):
  asked = []
  score = lambda arch: asked.append(arch) or additive(arch)  # noqa: E731
  settings = Search(
    evaluations=40,
    population=30,
    predictor=kind,
    proposals='evolution',
    generations=10,
  )
  predictor.search(problem(score, within), settings)
  return asked


@pytest.mark.parametrize('kind', KINDS)
def test_one_round_of_proposals_beats_what_it_learnt_from(kind):
  """Once-for-All's search: a fit to random children, then its proposals."""
  asked = searched(kind)
  assert len(asked) == len(set(asked)) == 40
  assert all(map(within, asked))
  scores = [additive(arch) for arch in asked]
  assert max(scores[30:]) > max(scores[:30])
  assert searched(kind) == asked


@pytest.mark.parametrize(
  'field, value',
  [('predictor', 'tree'), ('proposals', ''), ('parent_share', 0.0)],
)
def test_settings_that_are_no_choice_are_named(field, value):
  with pytest.raises(errors.UserError, match=f'^search.{field}'):
    schema.check(Search(**{field: value}), 'search')


@pytest.mark.parametrize('kind', KINDS)
def test_equal_scores_are_predicted_to_be_equal(kind):
  archs = sampled(4)
  predict = predictor.fit(SPACE, dict.fromkeys(archs, 0.5), 0, kind)
  assert predict(archs) == pytest.approx([0.5] * 4, abs=0.05)
