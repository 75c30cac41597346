"""A toy that every learner of a distribution can be tried on.

14 decisions have 8 choices each, whose utilities are random numbers from 0
to 1. The reward of an architecture is the mean utility of its choices and a
little noise. A learner's score is the utility of its most probable
architecture: 0 is that of a random one, 1 that of the best.

  PYTHONPATH=.:tests .venv/bin/python -m planted
"""

import functools
from collections.abc import Callable, Iterator

import numpy as np

from bignas_jax.policies import distributions, mdenas, parsec
from bignas_jax.spaces import arch as arch_lib

DECISIONS, CHOICES, NOISE = 14, 8, 0.01
LAYOUT = distributions.factorised([CHOICES] * DECISIONS)
EVERY = np.ones(DECISIONS, bool)

# Draws -> their rewards.
Reward = Callable[[np.ndarray], np.ndarray]
# Yields (number of evaluations so far, weights of all choices).
Learner = Callable[[Reward, np.random.Generator], Iterator]


def by_mdenas(reward, rng, *, rule='paper', kind='last', rate=0.01):
  probability = distributions.probabilities(distributions.uniform(LAYOUT))
  epochs, accuracy = np.zeros_like(probability, int), 0 * probability
  done = 0
  while True:
    picks = distributions.draw(probability, 1, rng)
    epochs, accuracy = mdenas.recorded(
      epochs, accuracy, picks[0], EVERY, float(reward(picks)[0]), kind
    )
    probability = mdenas.updated(probability, epochs, accuracy, rate, rule)
    done += 1
    yield done, probability


def by_parsec(reward, rng, *, samples=8, temperature=0.02, rate=1.0):
  """The rewards are log-likelihoods."""
  logits, done = distributions.uniform(LAYOUT), 0
  while True:
    probability = distributions.probabilities(logits)
    picks = distributions.draw(probability, samples, rng)
    logits = logits + rate * parsec.gradient(
      logits, picks, reward(picks), temperature
    )
    done += samples
    yield done, logits


def by_reinforce(reward, rng, *, rate=3.0, decay=0.9):
  """The control: the reward less a running mean weighs log-probabilities."""
  logits, mean, done = distributions.uniform(LAYOUT), None, 0
  while True:
    picks = distributions.draw(distributions.probabilities(logits), 1, rng)
    value = reward(picks)
    mean = value if mean is None else mean
    logits = logits + distributions.weighted_gradient(
      logits, picks, rate * (value - mean)
    )
    mean = decay * mean + (1 - decay) * value
    done += 1
    yield done, logits


LEARNERS = {
  'MDENAS, formula of the paper': by_mdenas,
  'MDENAS, formula, running mean': functools.partial(by_mdenas, kind='mean'),
  'MDENAS, rule of the code': functools.partial(by_mdenas, rule='code'),
  'MDENAS, code, running mean': functools.partial(
    by_mdenas, rule='code', kind='mean'
  ),
  'PARSEC, 8 samples': by_parsec,
  'REINFORCE': by_reinforce,
}


def scores(learner: Learner, evaluations, seed: int) -> list[float]:
  """Returns the scores after these numbers of evaluations, at least."""
  utility = arch_lib.generator(seed, 0).random((DECISIONS, CHOICES))
  rng = arch_lib.generator(seed, 1)
  number = np.arange(DECISIONS)

  def reward(picks):
    noise = NOISE * rng.normal(size=len(picks))
    return utility[number, picks].mean(1) + noise

  low, high = utility.mean(), utility.max(1).mean()
  found = []
  for done, weight in learner(reward, rng):
    if done >= evaluations[len(found)]:
      best = utility[number, distributions.most_probable(weight)].mean()
      found.append(float((best - low) / (high - low)))
    if len(found) == len(evaluations):
      return found
  raise AssertionError('a learner never ends')


def main(seeds: int = 10, evaluations=(100, 500, 2000)):
  for name, learner in LEARNERS.items():
    rows = [scores(learner, evaluations, seed) for seed in range(seeds)]
    for number, row in zip(evaluations, np.transpose(rows), strict=True):
      print(f'{name}, {number}: {row.mean():.2f} +- {row.std(ddof=1):.2f}')


if __name__ == '__main__':
  main()
