"""Verdicts follow the fixed rule: numbers in, a table out."""

import numpy as np
import pytest
import scipy.stats

from bignas_jax.claims import arms, tables, verdicts

BASE = (0.60, 0.62, 0.61)


@pytest.mark.parametrize(
  ('second', 'margin', 'verdict'),
  [
    ((0.50, 0.53, 0.51), 0.0, 'shows'),
    ((0.70, 0.71, 0.71), 0.0, 'contradicts'),
    ((0.50, 0.70, 0.60), 0.0, 'does not show'),
    # No worse than a point: enough data, too noisy, and surely worse.
    ((0.601, 0.619, 0.611), 0.01, 'shows'),
    ((0.55, 0.68, 0.61), 0.01, 'does not show'),
    ((0.70, 0.71, 0.71), 0.01, 'contradicts'),
    ((0.605, 0.625, 0.615), 0.01, 'contradicts'),
    # No spread at all.
    (BASE, 0.0, 'does not show'),
    (BASE, 0.01, 'shows'),
    ((0.5, 0.52, 0.51), 0.0, 'shows'),
  ],
)
def test_the_verdict_is_that_of_the_rule(second, margin, verdict):
  assert verdicts.compare(BASE, second, margin)['verdict'] == verdict


def test_few_seeds_have_no_verdict():
  for seeds in range(3):
    result = verdicts.compare(BASE[:seeds], (0.1, 0.1, 0.1)[:seeds], 0.0)
    assert result['verdict'] == 'not enough seeds'
    assert ('difference' in result) == (seeds > 0)
    assert ('p' in result) == (seeds > 1)


def test_the_test_is_scipys_paired_one():
  rng = np.random.default_rng(0)
  for _ in range(20):
    first, second = rng.normal(0.6, 0.02, size=(2, 5))
    ours = verdicts.compare([*first], [*second], 0.0)
    test = scipy.stats.ttest_rel(first, second)
    low, high = test.confidence_interval(0.95)
    numbers = [ours[name] for name in ('p', 'low', 'high')]
    np.testing.assert_allclose(numbers, [test.pvalue, low, high], rtol=1e-5)
    assert (ours['verdict'] == 'does not show') == (test.pvalue >= 0.05)
    assert ours['first']['sd'] == pytest.approx(np.std(first, ddof=1))


def test_a_claim_of_no_effect_errs_as_rarely_as_it_says():
  """A claim that is false by its margin is shown by 2.5 % of experiments."""
  rng, shown = np.random.default_rng(0), 0
  for _ in range(200):
    first = rng.normal(0.6, 0.01, size=3)
    second = first + 0.01 + rng.normal(0, 0.01, size=3)
    shown += verdicts.compare([*first], [*second], 0.01)['verdict'] == 'shows'
  assert shown <= 13  # of 200: more have a probability below 1e-3


def measured():
  """Two arms, of which one has a seed that the other has not."""
  base = {
    seed: {'smallest': value, 'random': value + 0.05, 'biggest': value + 0.1}
    for seed, value in enumerate(BASE)
  }
  labels = {
    seed: {'smallest': value - 0.1 - 0.01 * seed, 'random': value + 0.06}
    for seed, value in enumerate((*BASE, 0.9))
  }
  return {'baseline': base, 'labels': labels}


def test_rows_pair_the_seeds_that_both_arms_have():
  smallest, random = verdicts.rows(measured(), ['d'])
  assert [smallest['children'], random['children']] == ['smallest', 'random']
  assert smallest['arms'] == ['baseline', 'labels']
  assert smallest['seeds'] == random['seeds'] == [0, 1, 2]
  assert smallest['difference'] == pytest.approx(0.11)
  assert smallest['first']['values'] == list(BASE)
  assert [smallest['verdict'], random['verdict']] == ['shows', 'contradicts']
  for row in verdicts.rows(measured(), ['a', 'h']):
    assert row['seeds'] == [] and row['verdict'] == 'not enough seeds'


def test_the_table_says_what_the_numbers_say():
  result = {
    'steps': 6,
    'batch_size': 16,
    'seeds': 4,
    'random_children': 3,
    'level': 0.05,
    'arms': {'baseline': 'as it is'},
    'missing': ['baseline, seed 3'],
    'claims': verdicts.rows(measured(), ['d', 'e', 'f']),
  }
  lines = tables.markdown(result).splitlines()
  cells = [line.strip('| ').split(' | ') for line in lines if '|' in line]
  assert {len(row) for row in cells} == {len(cells[0])}
  smallest = dict(zip(cells[0], cells[2], strict=True))
  assert smallest == {
    'claim': '(d)',
    'children': 'smallest',
    'arms': 'baseline, labels',
    'first, %': '61.00 ± 1.00',
    'second, %': '50.00 ± 1.00',
    'difference': '+11.00',
    'interval': '+8.52 to +13.48',
    'p': '0.003',
    'seeds': '0, 1, 2',
    'verdict': 'shows',
  }
  assert dict(zip(cells[0], cells[4], strict=True)) == {
    'claim': '(e)',
    'children': 'smallest',
    'arms': 'baseline: smallest, smallest_uncalibrated',
    **dict.fromkeys(cells[0][3:9], '-'),
    'verdict': 'not enough seeds',
  }
  assert '- baseline, seed 3' in lines
  (margin,) = [line for line in lines if line.startswith('- (f)')]
  assert margin.endswith('(within 1 point)')


def test_every_claim_compares_arms_that_exist():
  assert verdicts.arms_of([*verdicts.CLAIMS]) == [*arms.ARMS]
  assert verdicts.arms_of(['e', 'd']) == ['baseline', 'labels']
