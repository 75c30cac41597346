"""How well one quantity ranks children by another: Kendall's tau."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats

LEVEL = 0.95  # of intervals
RESAMPLES = 10_000
_AT_ONCE = 500  # resamples, for their memory


def kendall(
  values: Sequence[float], truth: Sequence[float], seed: int = 0
) -> dict[str, float | None]:
  """Returns Kendall's tau-b of two quantities of the same children.

  It is the share of pairs of children that both quantities order alike, less
  the share that they order otherwise; tau-b corrects it for ties. The interval
  is the percentile bootstrap's: the children are drawn anew with replacement.

  Args:
    values: a number of each child.
    truth: what the number should rank children by.
    seed: seed of the bootstrap.

  Returns:
    A dict with `tau`; `low` and `high`, the ends of the interval; and `p`, how
    probable so large a tau of either sign is if both are unrelated. All are
    None if one of the quantities is equal for all children.
  """
  result: Any = scipy.stats.kendalltau(values, truth)
  if math.isnan(result.statistic):
    return dict.fromkeys(('tau', 'low', 'high', 'p'))
  taus = resampled(values, truth, seed)
  ends = (1 - LEVEL) / 2, (1 + LEVEL) / 2
  low, high = np.nanquantile(taus, ends)
  numbers = result.statistic, low, high, result.pvalue
  names = 'tau', 'low', 'high', 'p'
  return dict(zip(names, map(float, numbers), strict=True))


def resampled(
  values: Sequence[float], truth: Sequence[float], seed: int = 0
) -> np.ndarray:
  """Returns tau-b of each resample of the children; NaN: all are equal there.

  A resample says how often it holds each child. Sums over its pairs are then
  quadratic forms, and no pair is visited twice.
  """
  count = len(values)
  rng = np.random.default_rng(seed)
  ours, theirs = _signs(values), _signs(truth)
  taus = []
  for start in range(0, RESAMPLES, _AT_ONCE):
    number = min(_AT_ONCE, RESAMPLES - start)
    draws = rng.multinomial(count, np.full(count, 1 / count), number)
    times = draws.astype(np.float64)  # products of integers are slow
    both = _pairs(times, ours * theirs)
    untied = _pairs(times, np.abs(ours)) * _pairs(times, np.abs(theirs))
    with np.errstate(invalid='ignore'):
      taus.append(both / np.sqrt(untied))
  return np.concatenate(taus)


def _pairs(times: np.ndarray, signs: np.ndarray) -> np.ndarray:
  """Returns the sum over pairs of children of each resample."""
  return ((times @ signs) * times).sum(-1)


def _signs(values: Sequence[float]) -> np.ndarray:
  """Returns for each pair of children which of them has the larger value."""
  array = np.asarray(values, np.float64)
  return np.sign(array[:, None] - array[None, :])
