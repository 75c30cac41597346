"""Evolution of the best child of each bin, on scores known in advance."""

import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np

from bignas_jax.selection import child_costs
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions, zoo
from bignas_jax.strategies import pareto_bins
from bignas_jax.strategies import problem as problem_lib
from bignas_jax.strategies.problem import Problem, Search

SPACE = zoo.MNIST
COSTS = child_costs.of(SPACE)
SMALLEST = arch_lib.smallest(SPACE)


def macs(arch):
  return COSTS(arch)['macs']


def rough(arch):
  """Grows with cost, but not by cost alone."""
  rng = np.random.default_rng(arch_lib.read(SPACE, arch))
  return (macs(arch) ** 0.3 + arch.depth[1] + rng.normal(0, 0.3)) / 100


def problem(score, fits=lambda _: True):
  return Problem(SPACE, score, COSTS, fits, SMALLEST)


def searched(seed, fits=lambda _: True, **settings):
  """The children asked for, in order."""
  asked = []

  def score(arch):
    asked.append(arch)
    return rough(arch)

  settings = Search(seed=seed, **settings)
  pareto_bins.search(problem(score, fits), settings)
  return asked


@hypothesis.given(st.integers(1, 60), st.floats(1e3, 1e7), st.integers(0, 99))
def test_a_bin_keeps_its_most_accurate_child(number, width, seed):
  archs = problem_lib.draw(problem(rough), number, arch_lib.generator(seed))
  scored = {arch: round(rough(arch), 2) for arch in archs}  # some tie
  best = pareto_bins.population(problem(rough), scored, width)
  bins = {arch: macs(arch) // width for arch in archs}
  assert set(best) == set(bins.values())
  for place, arch in best.items():
    assert bins[arch] == place
    rivals = [other for other in archs if bins[other] == place]
    worth = lambda a: (scored[a], -macs(a))  # noqa: E731
    assert worth(arch) == max(map(worth, rivals))


@hypothesis.settings(max_examples=10)
@hypothesis.given(st.integers(1, 70), st.integers(0, 99))
def test_the_population_never_gets_worse(evaluations, seed):
  asked = searched(seed, evaluations=evaluations, population=8)
  assert len(asked) == len(set(asked)) == evaluations
  first = [macs(arch) for arch in asked[:8]]
  width = pareto_bins.bin_width(first, Search().front_bins)
  before = {}
  for end in range(8, evaluations + 1, 8):
    scored = {arch: rough(arch) for arch in asked[:end]}
    best = pareto_bins.population(problem(rough), scored, width)
    assert all(rough(best[n]) >= rough(arch) for n, arch in before.items())
    before = best


def test_a_generation_is_born_of_the_population():
  """Half have no value that no parent has: they are crossovers."""
  asked = searched(3, evaluations=48, population=16)
  width = pareto_bins.bin_width([macs(a) for a in asked[:16]], 16)
  for start in 16, 32:
    scored = {arch: rough(arch) for arch in asked[:start]}
    parents = pareto_bins.population(problem(rough), scored, width).values()
    values = [arch_lib.read(SPACE, arch) for arch in parents]
    inherited = [{*column} for column in zip(*values, strict=True)]
    crossovers = asked[start : start + 8]
    for arch in crossovers:
      pairs = zip(arch_lib.read(SPACE, arch), inherited, strict=True)
      assert all(value in choices for value, choices in pairs)


def test_the_smallest_child_comes_first_unless_it_breaks_a_limit():
  assert searched(0, evaluations=1) == [SMALLEST]
  fits = lambda arch: arch != SMALLEST  # noqa: E731
  asked = []
  start = arch_lib.biggest(SPACE)
  score = lambda arch: asked.append(arch) or 0.5  # noqa: E731
  what = problem(score, fits)._replace(start=start)
  pareto_bins.search(what, Search(evaluations=1))
  assert asked == [start]


_RNG = np.random.default_rng(1)
SHARES = [
  dict(zip(choices, np.sort(_RNG.uniform(size=len(choices))), strict=True))
  for *_, choices in decisions.genes(SPACE)
]


def additive(arch):
  """Each bigger choice has a share, which its cost does not tell."""
  pairs = zip(SHARES, arch_lib.read(SPACE, arch), strict=True)
  return float(sum(shares[value] for shares, value in pairs))


def hypervolume(archs):
  """Under the front's staircase, up to the dearest child."""
  front = problem_lib.front([(macs(a), additive(a)) for a in archs])
  costs = [cost for cost, _ in front] + [macs(arch_lib.biggest(SPACE))]
  steps = zip(itertools.pairwise(costs), front, strict=True)
  return sum((b - a) * score for (a, b), (_, score) in steps)


def test_the_front_is_ahead_of_chance():
  for seed in range(3):
    volumes = []
    for strategy in pareto_bins.search, problem_lib.random:
      asked = []
      score = lambda a, asked=asked: asked.append(a) or additive(a)  # noqa: E731
      strategy(problem(score), Search(seed=seed, evaluations=200))
      volumes.append(hypervolume(asked))
    assert volumes[0] > volumes[1]
