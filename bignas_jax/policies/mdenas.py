"""The update rules of MDENAS (ICCV 2019).

A choice becomes likelier if it was more accurate than another choice of the
same decision after no more epochs.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

# The rule of the authors' code, or the formula of their paper.
Rule = Literal['code', 'paper']
# The accuracy of a choice: of its last epoch, or the mean over its epochs.
Accuracy = Literal['last', 'mean']


def recorded(
  epochs: Int[np.ndarray, 'decisions choices'],
  accuracy: Float[np.ndarray, 'decisions choices'],
  pick: Int[np.ndarray, 'decisions'],
  matters: Bool[np.ndarray, 'decisions'],
  value: float,
  kind: Accuracy = 'last',
) -> tuple[
  Int[np.ndarray, 'decisions choices'], Float[np.ndarray, 'decisions choices']
]:
  """Returns epochs and accuracies after one more epoch of an architecture.

  Args:
    epochs: number of epochs in which each choice was trained.
    accuracy: accuracy of each choice; 0 before its first epoch.
    pick: the architecture's choice of each decision.
    matters: whether the architecture depends on each decision. The others are
      not recorded.
    value: accuracy of the architecture.
    kind: what the accuracy of a choice is.
  """
  epochs, accuracy = epochs.copy(), accuracy.copy()
  place = np.flatnonzero(matters), pick[matters]
  epochs[place] += 1
  share = 1 / epochs[place] if kind == 'mean' else 1.0
  accuracy[place] += share * (value - accuracy[place])
  return epochs, accuracy


def updated(
  probability: Float[np.ndarray, 'decisions choices'],
  epochs: Int[np.ndarray, 'decisions choices'],
  accuracy: Float[np.ndarray, 'decisions choices'],
  rate: float = 0.01,
  rule: Rule = 'code',
) -> Float[np.ndarray, 'decisions choices']:
  """Returns the probabilities after an update; their sums stay.

  Choices that a decision has not (padding) have no epochs, accuracy 0 and
  probability 0, and keep it.

  Args:
    probability: probabilities of each decision's choices.
    epochs: number of epochs in which each choice was trained.
    accuracy: accuracy of each choice, at least 0.
    rate: probability that moves between two choices.
    rule: `code` moves no more than there is, so that no probability falls
      below 0, and compares choices of equal epochs, too; by `paper`,
      probabilities may fall below 0.
  """
  if rule == 'code':
    return _by_code(probability, epochs, accuracy, rate)
  fewer = epochs[:, :, None] < epochs[:, None, :]
  better = accuracy[:, :, None] > accuracy[:, None, :]
  wins = (fewer & better).sum(2) - (fewer & better).sum(1)
  return probability + rate * wins


def _by_code(probability, epochs, accuracy, rate):
  """Moves probability between all pairs of choices, one pair after another."""
  result = probability.copy()
  number = result.shape[1]
  for i in range(number):
    for j in range(i + 1, number):
      less = accuracy[:, i] < accuracy[:, j]
      more = accuracy[:, i] > accuracy[:, j]
      to_j = (epochs[:, i] >= epochs[:, j]) & less
      to_i = (epochs[:, i] <= epochs[:, j]) & more
      moved = to_j * np.minimum(rate, result[:, i])
      moved = moved - to_i * np.minimum(rate, result[:, j])
      result[:, i] -= moved
      result[:, j] += moved
  return result
