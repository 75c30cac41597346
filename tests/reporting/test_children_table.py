"""The table of children: budgets, what answers them, and the file."""

import csv
import io

import numpy as np
import pytest
import tiny
from etils import epath

from bignas_jax.costs import counting
from bignas_jax.reporting import children_table
from bignas_jax.runs.archive import Entry
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions, zoo
from bignas_jax.strategies import additive
from bignas_jax.values import errors

SPACE = zoo.MNIST
SMALLEST, BIGGEST = arch_lib.smallest(SPACE), arch_lib.biggest(SPACE)
RNG = np.random.default_rng(3)
SHARES = [
  {choice: 0.02 * RNG.random() * i for i, choice in enumerate(gene.choices)}
  for gene in decisions.genes(SPACE)
]


def additive_top1(arch):
  return 0.6 + additive.predict(SPACE, SHARES, arch)


def entry(arch, top1, strategy='random', top5=None):
  cost = counting.cost(SPACE, arch)
  some = cost.macs, cost.params, top1, 500, 64, 0, strategy, 9, top5
  return Entry(arch, *some)


def some(number, seed=0):
  rng = np.random.default_rng(seed)
  return list(dict.fromkeys(arch_lib.sample(SPACE, rng) for _ in range(number)))


def test_budgets_span_the_space():
  budgets = children_table.budgets(SPACE)
  macs = [counting.cost(SPACE, arch).macs for arch in (SMALLEST, BIGGEST)]
  assert 5 <= len(budgets) <= 10 and budgets == sorted(set(budgets))
  assert macs[0] <= budgets[0] < 1.01 * macs[0]
  assert macs[1] <= budgets[-1] < 1.01 * macs[1]


def test_each_budget_has_its_best_child_once():
  entries = [entry(arch, additive_top1(arch)) for arch in some(40)]
  rows = children_table.make(SPACE, entries)
  assert len(rows) > 3
  for row in rows:
    within = [e for e in entries if e.macs <= row.budget]
    assert row.top1 == max(e.top1 for e in within)
    assert row.basis == 'held_out'
  archs = [row.arch for row in rows]
  assert len(set(archs)) == len(archs)
  assert [row.top1 for row in rows] == sorted({row.top1 for row in rows})
  assert children_table.make(SPACE, []) == []


def test_block_scores_answer_what_was_not_evaluated():
  """All of what was evaluated is big, and scores are sums of shares."""
  base = [BIGGEST, *additive.replacements(SPACE, BIGGEST)]
  found = [entry(arch, additive_top1(arch), 'additive') for arch in base]
  rows = children_table.make(SPACE, found)
  least = min(e.macs for e in found)
  predicted = [row for row in rows if row.basis == 'predicted']
  assert {row.basis for row in rows if row.budget < least} == {'predicted'}
  assert predicted and not {row.arch for row in predicted} & set(base)
  for row in predicted:
    assert counting.cost(SPACE, row.arch).macs <= row.budget
    assert row.top1 == pytest.approx(additive_top1(row.arch), abs=1e-3)
  unscored = [e._replace(strategy='random') for e in found]
  rows = children_table.make(SPACE, unscored)
  assert {row.basis for row in rows} == {'held_out'}


def test_a_prediction_must_be_better_by_its_standard_error():
  """Noise makes shares uncertain."""
  noise = np.random.default_rng(0)
  found = [
    entry(arch, float(noise.uniform(0.2, 0.8)), 'additive') for arch in some(60)
  ]
  scores = {e.arch: e.top1 for e in found}
  shares = additive.fit(SPACE, scores)
  error = additive.standard_error(SPACE, shares, scores)
  assert 0.1 < error < 0.3
  rows = children_table.make(SPACE, found)
  for row in rows:
    best = [e.top1 for e in found if e.macs <= row.budget]
    if row.basis == 'predicted' and best:
      assert row.top1 - error > max(best)
    if len(best) > 20:
      assert (row.basis, row.top1) == ('held_out', max(best))
  assert 'held_out' in {row.basis for row in rows}


@pytest.fixture
def path(tmp_path):
  return epath.Path(tmp_path / 'children.csv')


ROWS = [
  children_table.Row(500_000, SMALLEST, 0.9125, 0.99, 'held_out'),
  children_table.Row(3_000_000, BIGGEST, 0.975, None, 'predicted', 'a/b,c'),
]


def test_a_file_has_timms_columns_and_units(path):
  children_table.write(path, tiny.config(), SPACE, ROWS)
  one, two = csv.DictReader(io.StringIO(path.read_text()))
  assert (one['model'], one['top1'], one['top1_err']) == (
    *('mnist_1', '91.250', '8.750'),
  )
  assert (one['top5'], two['top5'], two['top5_err']) == ('99.000', '', '')
  cost = counting.cost(SPACE, SMALLEST)
  assert float(one['param_count']) == cost.params / 1e6
  assert (one['img_size'], one['crop_pct']) == ('28', '1.000')
  assert one['interpolation'] == 'bicubic'
  assert int(one['macs']) == cost.macs
  assert children_table.read(path, SPACE) == ROWS
  assert children_table.child(path, SPACE, '2') == BIGGEST


@pytest.mark.parametrize('text', ['0', '3', '-1', 'x', '', '1.0', '02'])
def test_a_child_that_is_not_in_the_table_is_named(path, text):
  with pytest.raises(errors.UserError, match=r'there is no .*children\.csv'):
    children_table.child(path, SPACE, text)
  children_table.write(path, tiny.config(), SPACE, ROWS)
  with pytest.raises(errors.UserError, match='table:1 to table:2'):
    children_table.child(path, SPACE, text)


@pytest.mark.parametrize(
  ('old', 'new', 'words'),
  [
    ('91.250', '191.250', 'child 1: top1: got 1.9'),
    ('91.250', 'good', "child 1: top1: got 'good'"),
    ('500000', 'nan', 'child 1: budget: got nan'),
    ('""resolution"": 32', '""resolution"": 33', 'child 2: arch'),
    ('budget', 'limit', 'search again'),
    (',"a/b,c"', '', 'child 2: cells'),
    ('"a/b,c"', '"a', 'unexpected end'),
  ],
)
def test_a_damaged_table_is_named(path, old, new, words):
  children_table.write(path, tiny.config(), SPACE, ROWS)
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new))
  with pytest.raises(errors.UserError) as caught:
    children_table.read(path, SPACE)
  assert words in str(caught.value) and str(path) in str(caught.value)
  assert '\n' not in str(caught.value)
