"""Greedy slimming on scores that are known in advance."""

import dataclasses
import itertools

import hypothesis
import hypothesis.strategies as st

from bignas_jax.costs import limits as limits_lib
from bignas_jax.costs.limits import Limits
from bignas_jax.selection import child_costs
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions, zoo
from bignas_jax.strategies import greedy
from bignas_jax.strategies.problem import Problem, Search


def _wide(space, choices):
  """The space with as many choices of each width, 8 apart."""
  ladder = lambda most: tuple(range(most - 8 * (choices - 1), most + 1, 8))  # noqa: E731
  return dataclasses.replace(
    space,
    stem_width=ladder(40),
    stages=tuple(
      dataclasses.replace(stage, width=ladder(max(stage.width) + 24))
      for stage in space.stages
    ),
    head_width=ladder(160),
  )


SPACE = _wide(zoo.MNIST, 4)
TIED = next(s for s in zoo.SPACES.values() if s.name == 'mobilenet_v1')
COSTS = {space.name: child_costs.of(space) for space in (SPACE, TIED)}
NARROWEST = dataclasses.replace(
  arch_lib.biggest(SPACE), width=arch_lib.smallest(SPACE).width
)


def macs(space, arch):
  return COSTS[space.name](arch)['macs']


def searched(
  space, formula, limits, archived=(), evaluations=10**6, start=None
):
  """Which children are asked for, in order."""
  asked, costs = [], COSTS[space.name]

  def score(arch):
    asked.append(arch)
    return formula(arch)

  problem = Problem(
    space,
    score,
    costs,
    lambda arch: limits.fit(costs(arch)),
    start or limits_lib.feasible(space, costs, limits),
    {arch: formula(arch) for arch in archived},
  )
  greedy.search(problem, Search(evaluations=evaluations))
  return asked


def at_most(space, share):
  """Limits between the narrowest child and the biggest one."""
  low, high = (macs(space, a) for a in (NARROWEST, arch_lib.biggest(space)))
  return Limits(most={'macs': low + share * (high - low)})


def trajectory(space, formula, asked):
  """The widest child, and of each step's children the one chosen."""
  path = [asked[0]]
  while children := [
    arch for arch in greedy.narrower(space, path[-1]).values() if arch in asked
  ]:
    path.append(max(children, key=lambda a: (formula(a), -macs(space, a))))
  return path


def additive(losses):
  """A score that falls by a loss for each step of each width."""

  def formula(arch):
    lost = 0
    for gene, of_gene in zip(decisions.genes(SPACE)[1:6], losses, strict=True):
      steps = gene.choices[::-1].index(arch.width[gene.position])
      lost += sum(of_gene[:steps])
    return -lost

  return formula


WIDTHS = len(SPACE.widths)
LOSSES = st.permutations(range(3 * WIDTHS)).map(
  lambda all: [sorted(all[3 * i : 3 * i + 3]) for i in range(WIDTHS)]
)


@hypothesis.given(LOSSES)
def test_greedy_is_sorting_by_marginal_loss_if_scores_are_additive(losses):
  """The losses of a width grow, as a layer's last channels matter most."""
  formula = additive(losses)
  limits = Limits(most={'macs': macs(SPACE, NARROWEST)})
  asked = searched(SPACE, formula, limits)
  path = trajectory(SPACE, formula, asked)
  lost = [formula(a) - formula(b) for a, b in itertools.pairwise(path)]
  assert lost == sorted(itertools.chain(*losses))
  assert path[0] == arch_lib.biggest(SPACE) and path[-1] == NARROWEST


def rough(arch):
  """A score without any order, and with ties."""
  return hash((arch.width, 3)) % 5


@hypothesis.given(st.floats(0, 1))
def test_the_trajectory_is_nested_and_its_cost_falls(share):
  limits = at_most(SPACE, share)
  asked = searched(SPACE, rough, limits)
  path = trajectory(SPACE, rough, asked)
  costs = [macs(SPACE, arch) for arch in path]
  assert all(a > b for a, b in itertools.pairwise(costs))
  for wide, narrow in itertools.pairwise(path):
    pairs = [*zip(wide.width, narrow.width, strict=True)]
    assert all(a >= b for a, b in pairs)
    assert sum(a > b for a, b in pairs) == 1
    assert narrow == dataclasses.replace(wide, width=narrow.width)
  fitting = [limits.fit({'macs': cost}) for cost in costs]
  assert fitting == [False] * (len(path) - 1) + [True]
  assert len(asked) == len(set(asked))


@hypothesis.given(st.floats(0, 1), st.floats(0, 1))
def test_another_limit_goes_on_from_the_archive(one, other):
  """Both searches ask for what a search of the tighter limit alone asks for."""
  tight, loose = (at_most(SPACE, share) for share in sorted((one, other)))
  first = searched(SPACE, rough, loose)
  second = searched(SPACE, rough, tight, archived=first)
  alone = searched(SPACE, rough, tight)
  new = [arch for arch in second if arch not in first]
  assert first + new == alone
  # A looser limit takes no evaluation, and has the same answer.
  (again,) = searched(SPACE, rough, loose, archived=alone)
  fits = lambda arch: loose.fit({'macs': macs(SPACE, arch)})  # noqa: E731
  assert rough(again) == max(rough(a) for a in first if fits(a))


@hypothesis.given(st.floats(0, 1), st.integers(1, 40))
def test_few_evaluations_have_an_answer_too(share, evaluations):
  limits = at_most(SPACE, share)
  asked = searched(SPACE, rough, limits, evaluations=evaluations)
  assert 1 <= len(asked) <= evaluations
  assert any(limits.fit({'macs': macs(SPACE, arch)}) for arch in asked)


def test_without_evaluations_all_widths_are_lowered_alike():
  (one,) = searched(SPACE, rough, at_most(SPACE, 0.5), evaluations=1)
  steps = [
    choices[::-1].index(width)
    for choices, width in zip(SPACE.widths, one.width, strict=True)
  ]
  assert max(steps) - min(steps) == 1


def test_ties_go_to_the_larger_saving():
  biggest = arch_lib.biggest(SPACE)
  children = [*greedy.narrower(SPACE, biggest).values()]
  cheapest = min(children, key=lambda arch: macs(SPACE, arch))
  limits = Limits(most={'macs': macs(SPACE, cheapest) - 1})
  # Each child is 8 channels narrower.
  asked = searched(SPACE, lambda arch: -sum(arch.width), limits)
  next_step = [*greedy.narrower(SPACE, cheapest).values()]
  assert asked == [biggest, *children, *next_step]


def test_a_multiplier_is_lowered_as_one_width():
  limits = Limits(most={'macs': 0.9 * macs(TIED, arch_lib.biggest(TIED))})
  asked = searched(TIED, lambda arch: arch.width[0], limits)
  rows = [arch_lib.read(TIED, arch)[1] for arch in asked]
  assert rows == [*range(max(rows), max(rows) - len(rows), -1)]
  assert len(rows) > 1 and max(rows) == len(TIED.multipliers) - 1


def test_limits_that_no_width_keeps_change_other_decisions():
  """The smallest child is less deep than the narrowest of the biggest."""
  smallest = arch_lib.smallest(SPACE)
  limits = Limits(most={'macs': macs(SPACE, smallest)})
  asked = searched(SPACE, rough, limits)
  assert asked[-1] == smallest
  assert asked[0].width == arch_lib.biggest(SPACE).width
  assert {arch.depth for arch in asked} == {smallest.depth}


def test_a_band_that_the_trajectory_skips_is_answered_by_the_start():
  values = arch_lib.read(SPACE, arch_lib.biggest(SPACE))
  values[1:3] = [SPACE.stem_width[0], SPACE.stages[0].width[1]]
  start = arch_lib.write(SPACE, values)
  cost = macs(SPACE, start)
  band = Limits(least={'macs': cost}, most={'macs': cost})
  asked = searched(SPACE, lambda arch: arch.width[0], band, start=start)
  assert asked[-1] == start
  assert not any(band.fit({'macs': macs(SPACE, a)}) for a in asked[:-1])
