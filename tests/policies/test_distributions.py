"""Learnt distributions over architectures, and the rules that change them."""

import collections
import itertools
import math

import networks
import numpy as np
import planted
import pytest

from bignas_jax.policies import distributions, mdenas, parsec
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions
from bignas_jax.values import errors

LAYOUT = distributions.factorised((2, 3))
# Probabilities (1/4, 3/4) and (1/2, 1/4, 1/4): each architecture occurs so
# often among `ALL` as 16 draws have it on average.
LOGITS = np.array([[0, math.log(3), -math.inf], [math.log(2), 0, 0]])
EVERY = np.array([*itertools.product(range(2), range(3))])
OFTEN = np.outer([1, 3], [2, 1, 1]).ravel() * 2
ALL = EVERY.repeat(OFTEN, axis=0)
LIKELIHOOD = np.array([0.9, 0.2, 0.5, 0.1, 0.7, 0.3])
# Three decisions, some of which are to be joined.
THREE = distributions.factorised((2, 3, 4))


def random_logits(factors, seed=0):
  rng = arch_lib.generator(seed)
  logits = distributions.uniform(factors)
  return logits + rng.normal(size=logits.shape)


def slope(function, logits, step=1e-5):
  """The gradient by central differences; 0 for padding."""
  result = np.zeros_like(logits)
  for place in zip(*np.isfinite(logits).nonzero(), strict=True):
    sides = []
    for sign in (1, -1):
      moved = logits.copy()
      moved[place] += sign * step
      sides.append(function(moved))
    result[place] = (sides[0] - sides[1]) / (2 * step)
  return result


def every_pick(factors):
  lengths = [math.prod(factors.shape(i)) for i in range(len(factors.groups))]
  return np.array([*itertools.product(*map(range, lengths))])


# Distributions.


def test_probabilities_are_those_of_all_architectures_and_add_up():
  logits, every = random_logits(THREE), every_pick(THREE)
  logs = distributions.log_probability(logits, every)
  assert len(every) == 24 and np.exp(logs).sum() == pytest.approx(1)
  probability = distributions.probabilities(logits)
  product = [probability[range(3), pick].prod() for pick in every]
  np.testing.assert_allclose(np.exp(logs), product)
  entropy = -(np.exp(logs) * logs).sum()
  assert distributions.entropy(logits) == pytest.approx(entropy)
  best = every[logs.argmax()]
  assert (distributions.most_probable(logits) == best).all()


def test_the_entropy_of_the_start_is_the_sum_of_logs():
  expected = math.log(2) + math.log(3) + math.log(4)
  start = distributions.uniform(THREE)
  assert distributions.entropy(start) == pytest.approx(expected)


def test_draws_are_as_frequent_as_their_probabilities():
  probability = distributions.probabilities(LOGITS)
  picks = distributions.draw(probability, 8000, arch_lib.generator(3, 4))
  again = distributions.draw(probability, 8000, arch_lib.generator(3, 4))
  assert (picks == again).all()
  for group, row in enumerate(probability):
    share = np.bincount(picks[:, group], minlength=3) / 8000
    assert (abs(share - row) <= 5 * np.sqrt(row * (1 - row) / 8000)).all()


def test_probabilities_below_0_are_never_drawn():
  probability = np.array([[-0.1, 0.6, 0.5], [0.0, 0.0, 1.0]])
  picks = distributions.draw(probability, 1000, arch_lib.generator(0))
  assert {*picks[:, 0]} == {1, 2} and {*picks[:, 1]} == {2}


def test_a_joint_of_summed_logits_is_the_same_distribution():
  """Also where it joins a group that was itself joined, in another order."""
  logits = random_logits(THREE)
  two, of_two = distributions.joined(THREE, logits, [(2, 0), (1,)])
  assert two.groups == ((2, 0), (1,)) and of_two.shape == (2, 8)
  one, of_one = distributions.joined(two, of_two, [(1, 0)])
  assert one.groups == ((1, 2, 0),) and of_one.shape == (1, 24)
  for factors, joint in ((two, of_two), (one, of_one)):
    picks = every_pick(factors)
    separate = [distributions.positions(factors, pick) for pick in picks]
    assert len({tuple(pick) for pick in separate}) == 24
    np.testing.assert_allclose(
      distributions.log_probability(joint, picks),
      distributions.log_probability(logits, np.array(separate)),
    )
    entropy = distributions.entropy(joint)
    assert entropy == pytest.approx(distributions.entropy(logits))


@pytest.mark.parametrize('name', ['little_one_of', 'little_mobilenet_v1'])
def test_architectures_are_drawn_and_read(name):
  space = (networks.LITTLE | {'little_one_of': networks.ONE_OF})[name]
  factors = distributions.of_space(space)
  start = distributions.probabilities(distributions.uniform(factors))
  rng, missing = arch_lib.generator(5), 0
  for pick in distributions.draw(start, 50, rng):
    one = distributions.arch(space, factors, pick)
    arch_lib.check(space, one)
    matters = distributions.matters(space, one)
    chosen = distributions.chosen(space, one)
    assert (chosen == pick)[matters].all()
    missing += (~matters).any()
    # Whatever does not matter gives the same architecture.
    other = np.where(matters, pick, 0)
    assert distributions.arch(space, factors, other) == one
  assert bool(missing) == space.per_block


def test_what_matters_is_what_makes_architectures_differ():
  """`count` says how many there are, by another formula."""
  space = networks.ONE_OF
  sizes = [len(gene.choices) for gene in decisions.genes(space)]
  total = 0.0
  for one in arch_lib.every(space):
    absent = ~distributions.matters(space, one)
    total += math.prod(itertools.compress(sizes, absent))
  assert total == math.prod(sizes)


# MDENAS.

EPOCHS = np.array([[10, 15, 10, 5]])
ACCURACY = np.array([[0.45, 0.12, 0.56, 0.30]])
RULES = {
  'code': [0.25, 0.22, 0.27, 0.26],
  'paper': [0.26, 0.22, 0.26, 0.26],
}


@pytest.mark.parametrize('rule', RULES)
def test_mdenas_by_hand(rule):
  start = np.full((1, 4), 0.25)
  after = mdenas.updated(start, EPOCHS, ACCURACY, 0.01, rule)
  np.testing.assert_allclose(after, [RULES[rule]], atol=1e-15)
  assert (start == 0.25).all()


@pytest.mark.parametrize('rule', RULES)
def test_mdenas_keeps_sums_and_padding(rule):
  rng, factors = arch_lib.generator(6), distributions.factorised((2, 5))
  probability = distributions.probabilities(distributions.uniform(factors))
  epochs, accuracy = np.zeros_like(probability, int), 0 * probability
  for _ in range(200):
    (pick,) = distributions.draw(probability, 1, rng)
    epochs, accuracy = mdenas.recorded(
      epochs, accuracy, pick, np.array([True, True]), rng.random()
    )
    probability = mdenas.updated(probability, epochs, accuracy, 0.05, rule)
    np.testing.assert_allclose(probability.sum(1), 1)
  assert (probability[0, 2:] == 0).all() and (epochs[0, 2:] == 0).all()
  assert (probability.min() < 0) == (rule == 'paper')


def test_accuracies_are_the_last_or_the_mean():
  pick, matters = np.array([1, 0, 2]), np.array([True, False, True])
  zeros = np.zeros((3, 3))
  for kind, expected in (('last', 0.8), ('mean', 0.5)):
    epochs, accuracy = zeros.astype(int), zeros
    for value in (0.2, 0.5, 0.8):
      epochs, accuracy = mdenas.recorded(
        epochs, accuracy, pick, matters, value, kind
      )
    assert epochs.tolist() == [[0, 3, 0], [0, 0, 0], [0, 0, 3]]
    np.testing.assert_allclose(accuracy, epochs / 3 * expected)


# PARSEC.


def log_marginal(logits):
  prior = np.exp(distributions.log_probability(logits, EVERY))
  return np.log(prior @ LIKELIHOOD)


def marginals(weight):
  """The probability of each choice if architectures have these."""
  result = np.zeros((2, 3))
  for pick, one in zip(EVERY, weight / weight.sum(), strict=True):
    result[[0, 1], pick] += one
  return result


def test_parsec_of_all_architectures_is_posterior_less_prior():
  gradient = parsec.gradient(
    LOGITS, ALL, np.log(LIKELIHOOD.repeat(OFTEN, axis=0))
  )
  exact = marginals(OFTEN * LIKELIHOOD) - marginals(OFTEN)
  np.testing.assert_allclose(gradient, exact, atol=1e-12)
  np.testing.assert_allclose(slope(log_marginal, LOGITS), exact, atol=1e-9)
  assert abs(exact).max() > 0.1


def expected_update(likelihood, samples):
  """The mean update, over all numbers of draws of four architectures."""
  factors = distributions.factorised((2, 2))
  logits, every = LOGITS[:, :2], every_pick(factors)
  prior = np.exp(distributions.log_probability(logits, every))
  total = np.zeros((2, 2))
  for ends in itertools.combinations(range(samples + 3), 3):
    often = np.diff([-1, *ends, samples + 3]) - 1
    chance = math.factorial(samples) * math.prod(
      p**n / math.factorial(n) for p, n in zip(prior, often, strict=True)
    )
    picks, log = every.repeat(often, axis=0), np.log(likelihood)
    total += chance * parsec.gradient(logits, picks, log.repeat(often))
  exact = distributions.weighted_gradient(
    logits, every, prior * likelihood / (prior @ likelihood)
  )
  return total, abs(total - exact).max()


def test_the_bias_of_parsec_goes_to_0():
  likelihood = np.array([0.9, 0.2, 0.1, 0.6])
  biases = [expected_update(likelihood, number)[1] for number in (2, 4, 8, 16)]
  assert biases[0] > 0.05
  for more, less in itertools.pairwise(biases):
    assert less < 0.65 * more


def test_equal_likelihoods_teach_nothing_on_average():
  update, _ = expected_update(np.full(4, 0.3), 3)
  np.testing.assert_allclose(update, 0, atol=1e-12)


def test_one_sample_is_refused():
  with pytest.raises(errors.UserError, match='at least 2'):
    parsec.gradient(LOGITS, EVERY[:1], np.zeros(1))


def test_a_temperature_keeps_weights_from_one_sample():
  log = np.array([-500.0, -400.0, -450.0])  # of a batch; exp of it is 0
  assert parsec.weights(log).max() == 1
  warm = parsec.weights(log, 100.0)
  np.testing.assert_allclose(warm / warm[1], np.exp((log + 400) / 100))
  assert warm.sum() == pytest.approx(1)


# FP-NAS.


def test_fp_nas_draws_as_many_samples_as_the_entropy_says():
  start = distributions.uniform(planted.LAYOUT)
  assert parsec.samples(start) == math.ceil(14 * math.log(8) / 4) == 8
  assert parsec.samples(start, 1.0) == 30
  certain = np.where(np.arange(8) == 3, 50.0, start)
  assert parsec.samples(certain) == 2


def test_the_cost_gradient_of_all_architectures_is_exact():
  macs = np.array([50.0, 80.0, 200.0, 90.0, 150.0, 400.0])

  def log_cost(logits):
    prior = np.exp(distributions.log_probability(logits, EVERY))
    return np.log(prior @ np.maximum(0, macs / 100 - 1))

  of_all = macs.repeat(OFTEN, axis=0)
  gradient = parsec.cost_gradient(LOGITS, ALL, of_all, 100)
  np.testing.assert_allclose(gradient, slope(log_cost, LOGITS), atol=1e-8)
  assert abs(gradient).max() > 0.1
  under = parsec.cost_gradient(LOGITS, ALL, of_all, 400)
  assert (under == 0).all()


# What each learns.


def test_what_is_learnt_from_a_shared_reward():
  """MDENAS barely learns by its formula, and does with a running mean."""
  ends = collections.defaultdict(list)
  for seed, (name, learner) in itertools.product(
    range(2), planted.LEARNERS.items()
  ):
    ends[name] += planted.scores(learner, (200,), seed)
  score = {name: np.mean(values) for name, values in ends.items()}
  assert score['MDENAS, formula of the paper'] < 0.4
  assert score['MDENAS, formula, running mean'] > 0.5
  assert score['MDENAS, code, running mean'] > 0.5
  assert score['PARSEC, 8 samples'] > 0.7
  assert score['REINFORCE'] > 0.75
