"""BigNAS's claims as comparisons of two arms, and the test that judges them.

The test is fixed here, before any run: a paired t-test over seeds, two-sided,
at level 0.05. Both arms of a pair have the same seed.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bignas_jax.claims.arms import BASELINE

LEVEL = 0.05
LEAST_SEEDS = 3
# How many times the evaluations of coarse-to-fine random search has, in (h).
TIMES = 5

SHOWS, CONTRADICTS = 'shows', 'contradicts'
DOES_NOT_SHOW, TOO_FEW = 'does not show', 'not enough seeds'

BIGGEST, SMALLEST, RANDOM, CHOSEN = 'biggest', 'smallest', 'random', 'chosen'
UNCALIBRATED = '_uncalibrated'  # with the statistics of the biggest child
OF_RANDOM_SEARCH = '_by_random_search'


class Side(NamedTuple):
  """One side of a comparison.

  Attributes:
    arm: name of the arm.
    suffix: what a child's name is followed by in the names of measurements.
  """

  arm: str
  suffix: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
  """A claim: the first side is more accurate than the second, or no less.

  Attributes:
    sentence: the claim in words.
    first: the side that the claim is for.
    second: the other side.
    children: names of the children that are compared, each in a row.
    margin: 0 where the first side shall be better; where it shall only be no
      worse, the difference in top-1 that does not matter.
  """

  sentence: str
  first: Side
  second: Side
  children: tuple[str, ...]
  margin: float = 0.0


_BASE, _POINT = Side(BASELINE), 0.01
CLAIMS = {
  'a': Claim(
    sentence='blocks that start as their shortcuts end more accurate than '
    'blocks with scales of 1',
    first=_BASE,
    second=Side('scales_of_one'),
    children=(BIGGEST, SMALLEST, RANDOM),
  ),
  'b': Claim(
    sentence='a constant floor of the learning rate helps small children',
    first=_BASE,
    second=Side('no_floor'),
    children=(SMALLEST, RANDOM),
  ),
  'c': Claim(
    sentence='regularising the biggest child alone is better than regularising '
    'all children',
    first=_BASE,
    second=Side('all_regularised'),
    children=(BIGGEST, SMALLEST, RANDOM),
  ),
  'd': Claim(
    sentence='in-place distillation is better for children than labels',
    first=_BASE,
    second=Side('labels'),
    children=(SMALLEST, RANDOM),
  ),
  'e': Claim(
    sentence='children are better with their own batch-norm statistics than '
    "with the biggest child's",
    first=_BASE,
    second=Side(BASELINE, UNCALIBRATED),
    children=(SMALLEST, RANDOM),
  ),
  'f': Claim(
    sentence='fine-tuning a sliced child does not help',
    first=_BASE,
    second=Side('finetuned'),
    children=(CHOSEN,),
    margin=_POINT,
  ),
  'g': Claim(
    sentence='training the chosen child from scratch does not beat its slice',
    first=_BASE,
    second=Side('scratch'),
    children=(CHOSEN,),
    margin=_POINT,
  ),
  'h': Claim(
    sentence='coarse-to-fine selection is as good as random search of '
    f'{TIMES} times its evaluations',
    first=_BASE,
    second=Side(BASELINE, OF_RANDOM_SEARCH),
    children=(CHOSEN,),
    margin=_POINT,
  ),
}

# Accuracies by arm, seed and name of a measurement.
Measured = Mapping[str, Mapping[int, Mapping[str, float]]]


def arms_of(letters: Sequence[str]) -> list[str]:
  """Returns the arms that claims compare, the baseline first."""
  sides = [(CLAIMS[one].first, CLAIMS[one].second) for one in letters]
  return list(
    dict.fromkeys([BASELINE, *(s.arm for both in sides for s in both)])
  )


def rows(measured: Measured, letters: Sequence[str]) -> list[dict[str, Any]]:
  """Returns a row for each claim and child, of the seeds that both arms have.

  Args:
    measured: what was measured of the finished runs.
    letters: the claims.
  """
  return [
    _row(measured, letter, child)
    for letter in letters
    for child in CLAIMS[letter].children
  ]


def _row(measured: Measured, letter: str, child: str) -> dict[str, Any]:
  """Returns the comparison of a claim's two sides for one of its children."""
  claim = CLAIMS[letter]
  sides = claim.first, claim.second
  by_seed = [_values(measured, side, child) for side in sides]
  seeds = sorted({*by_seed[0]} & {*by_seed[1]})
  first, second = ([values[seed] for seed in seeds] for values in by_seed)
  return {
    'claim': letter,
    'sentence': claim.sentence,
    'children': child,
    'arms': [side.arm for side in sides],
    'measurements': [child + side.suffix for side in sides],
    'margin': claim.margin,
    'seeds': seeds,
  } | compare(first, second, claim.margin)


def _values(measured: Measured, side: Side, child: str) -> dict[int, float]:
  """Returns the accuracies of one side by seed."""
  of_arm, name = measured.get(side.arm, {}), child + side.suffix
  return {seed: top1[name] for seed, top1 in of_arm.items() if name in top1}


def compare(
  first: Sequence[float], second: Sequence[float], margin: float
) -> dict[str, Any]:
  """Returns the verdict on a claim, and the numbers that it follows from.

  The difference is that of the first side less the second, seed by seed, and
  `low` and `high` are its confidence interval. `contradicts`: the interval
  lies below 0. `shows`: it lies above minus the margin and not below 0. With a
  margin of 0 these are the two signs of a significant t-test.

  Args:
    first: accuracies of the side that the claim is for, by seed.
    second: accuracies of the other side, of the same seeds.
    margin: `Claim.margin`.

  Returns:
    A dict of plain values. Numbers that need more seeds are missing.
  """
  result: dict[str, Any] = {
    'first': _summary(first),
    'second': _summary(second),
  }
  # Accuracies are shares of images: smaller differences are of rounding.
  differences = np.subtract(first, second).round(9)
  if len(differences):
    result['difference'] = float(differences.mean())
  if len(differences) < 2:
    return result | {'verdict': TOO_FEW}
  low, high, p = _interval(differences)
  result |= {'low': low, 'high': high, 'p': p}
  if len(differences) < LEAST_SEEDS:
    return result | {'verdict': TOO_FEW}
  if high < 0:
    return result | {'verdict': CONTRADICTS}
  return result | {'verdict': SHOWS if low > -margin else DOES_NOT_SHOW}


def _interval(differences: np.ndarray) -> tuple[float, float, float]:
  """Returns the confidence interval of the mean, and p of its being 0."""
  if np.ptp(differences) == 0:  # the t statistic would divide by 0
    mean = float(differences[0])
    return mean, mean, float(mean == 0)
  import scipy.stats  # takes a second, which other benchmarks need not wait

  test: Any = scipy.stats.ttest_1samp(differences, 0.0)
  low, high = test.confidence_interval(1 - LEVEL)
  return float(low), float(high), float(test.pvalue)


def _summary(values: Sequence[float]) -> dict[str, Any]:
  """Returns values, their mean, and the standard deviation of one seed."""
  summary: dict[str, Any] = {'values': list(values)}
  if len(values):
    summary['mean'] = float(np.mean(values))
  if len(values) > 1:
    summary['sd'] = float(np.std(values, ddof=1))
  return summary
