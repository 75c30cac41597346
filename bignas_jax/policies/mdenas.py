"""MDENAS (ICCV 2019): a policy that learns which choices are accurate.

A choice becomes likelier if it was more accurate than another choice of the
same decision after no more epochs.
"""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from bignas_jax.policies import distributions
from bignas_jax.policies.policies import Child, Measured, Policy, Score, State
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.values import schema

# The rule of the authors' code, or the formula of their paper.
Rule = Literal['code', 'paper']
# The accuracy of a choice: of its last epoch, or the mean over its epochs.
Accuracy = Literal['last', 'mean']


@dataclasses.dataclass(kw_only=True, slots=True)
class Settings:
  """What MDENAS depends on, in a config.

  Attributes:
    epoch_steps: number of steps of an epoch, all of which train one child.
    validation_batches: number of batches of the second split that the child is
      measured on after an epoch.
    rate: probability that moves between two choices.
    rule: the rule of the authors' `code`, or the formula of their `paper`.
    accuracy: what choices are compared by: the accuracy of the `last` epoch
      that trained them, as published, or the `mean` of all.
    replacement: whether a choice may be drawn again at any time; else each
      choice of a decision is drawn once before one is drawn again, so that K
      choices are all trained within K epochs.
  """

  epoch_steps: schema.Natural = 100
  validation_batches: schema.Natural = 10
  rate: schema.PositiveShare = 0.01
  rule: Rule = 'code'
  accuracy: Accuracy = 'last'
  replacement: bool = True


def mdenas(space: Space, settings: Settings) -> Policy:
  """Returns the policy of MDENAS: one child of a learnt distribution an epoch.

  At the end of an epoch the probabilities change by the child's accuracy on
  images of the second split, with each batch's own statistics. Epochs are
  counted by steps that were kept: after a rollback, a child is trained again
  with other images.

  Args:
    space: space that children are drawn from.
    settings: length of an epoch, and how the distribution learns.
  """
  factors = distributions.of_space(space)
  start = distributions.probabilities(distributions.uniform(factors))

  def init(seed: int) -> State:
    del seed
    used = {} if settings.replacement else {'used': np.zeros_like(start, int)}
    return used | {
      'probability': start.copy(),
      'epochs': np.zeros(start.shape, np.int64),
      'accuracy': np.zeros(start.shape),
      'done': np.zeros(2, np.int64),  # epochs, and steps of this one
    }

  def sample(
    state: State, seed: int, draw: int, score: Score | None = None
  ) -> list[Child]:
    del draw, score
    rng = arch_lib.generator(seed, int(state['done'][0]))
    weight = state['probability']
    if not settings.replacement:
      weight = unused(weight, (start > 0) & (state['used'] == 0))
    (pick,) = distributions.draw(weight, 1, rng)
    return [Child('random', distributions.arch(space, factors, pick))]

  def update(state: State, children: list[Child], measured: Measured) -> State:
    (child,), (metrics,) = children, measured
    epochs, steps = state['done']
    if steps + 1 < settings.epoch_steps:
      return state | {'done': np.array([epochs, steps + 1])}
    value = float(metrics['second_top1'])
    ended = {'done': np.array([epochs + 1, 0])}
    if not settings.replacement:
      ended['used'] = _used(space, state['used'], child.arch, start > 0)
    return ended | _after(space, settings, state, child.arch, value)

  def learnt(state: State) -> Arch:
    best = distributions.most_probable(state['probability'])
    return distributions.arch(space, factors, best)

  return Policy(
    ('random',),
    {},
    sample,
    second_batches=settings.validation_batches,
    second_every=settings.epoch_steps,
    init=init,
    update=update,
    learnt=learnt,
  )


def _after(
  space: Space, settings: Settings, state: State, arch: Arch, value: float
) -> State:
  """Returns the distribution after an epoch of this accuracy."""
  chosen = distributions.chosen(space, arch)
  matters = distributions.matters(space, arch)
  epochs, accuracy = recorded(
    state['epochs'],
    state['accuracy'],
    chosen,
    matters,
    value,
    settings.accuracy,
  )
  probability = updated(
    state['probability'], epochs, accuracy, settings.rate, settings.rule
  )
  return {'probability': probability, 'epochs': epochs, 'accuracy': accuracy}


def unused(
  probability: Float[np.ndarray, 'decisions choices'],
  left: Bool[np.ndarray, 'decisions choices'],
) -> Float[np.ndarray, 'decisions choices']:
  """Returns the weights that choices are drawn by without replacement.

  Args:
    probability: probabilities of each decision's choices.
    left: choices that were not drawn yet, one at least of each decision. If
      none of them has a probability above 0, they have equal weights.
  """
  weight = np.where(left, np.maximum(probability, 0), 0)
  return np.where(weight.any(axis=1, keepdims=True), weight, left)


def _used(
  space: Space,
  used: Int[np.ndarray, 'decisions choices'],
  arch: Arch,
  real: Bool[np.ndarray, 'decisions choices'],
) -> Int[np.ndarray, 'decisions choices']:
  """Returns which choices were drawn, after an epoch of an architecture.

  Decisions of which all choices were drawn begin again. A decision of a block
  that the architecture has not counts as not drawn.
  """
  matters = distributions.matters(space, arch)
  used = used.copy()
  used[matters, distributions.chosen(space, arch)[matters]] = 1
  used[((used == 1) | ~real).all(axis=1)] = 0
  return used


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
