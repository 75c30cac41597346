"""Laws of architectures: every one of a space, and nothing else."""

import dataclasses
import functools
import itertools
import json
import math
from typing import Any

import hypothesis
import numpy as np
import pytest
import scipy.stats
from hypothesis import strategies as st

from bignas_jax.policies import sandwich
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions, pinning, presets, zoo
from bignas_jax.spaces.arch import Arch
from bignas_jax.strategies import variation
from bignas_jax.values import errors

SPACES = list(zoo.SPACES.values())
MNIST = zoo.MNIST
# Single networks of one architecture, which is also a child of `bignas`.
NETWORKS = 'efficientnet_b0', 'efficientnet_lite0'
_NAMES = (
  *('bignas', 'attentive_nas', 'mnist', 'ofa_mbv3', 'mobilenet_v1'),
  'ofa_resnet50',
)
by_space = pytest.mark.parametrize(
  'space', [zoo.get(name) for name in _NAMES], ids=lambda s: s.name
)

BIGNAS_S = {
  'resolution': 192,
  'width': [32, 16, 24, 40, 80, 112, 192, 320, 1280],
  'depth': [1, 2, 2, 2, 2, 3, 1],
  'kernel_size': [3, 3, 5, 3, 5, 5, 3],
  'expand_ratio': [1, 6, 6, 6, 6, 6, 6],
}


def archs(space):
  values = [st.sampled_from(gene.choices) for gene in decisions.genes(space)]
  return st.tuples(*values).map(lambda v: arch_lib.write(space, list(v)))


def with_archs(n=1):
  """A space and n of its architectures."""
  return st.sampled_from(SPACES).flatmap(
    lambda space: st.tuples(st.just(space), *[archs(space)] * n)
  )


seeds = st.integers(0, 2**32 - 1)


def test_the_contracts_example():
  arch = arch_lib.from_dict(zoo.BIGNAS, BIGNAS_S)
  assert arch == Arch(
    resolution=192,
    width=(32, 16, 24, 40, 80, 112, 192, 320, 1280),
    depth=(1, 2, 2, 2, 2, 3, 1),
    kernel_size=(3, 3, 5, 3, 5, 5, 3),
    expand_ratio=(1, 6, 6, 6, 6, 6, 6),
  )
  assert arch_lib.to_dict(arch) == BIGNAS_S
  assert json.loads(arch_lib.to_json(arch)) == BIGNAS_S


@hypothesis.given(with_archs())
def test_json_round_trip(case):
  space, arch = case
  text = arch_lib.to_json(arch)
  assert presets.parse(space, text) == arch
  assert presets.parse(space, f'{{"top1": 0.5, "arch": {text}}}') == arch
  assert arch_lib.from_dict(space, arch_lib.to_dict(arch)) == arch


@hypothesis.given(with_archs())
def test_encode_and_decode_are_inverse(case):
  space, arch = case
  indices = arch_lib.encode(space, arch)
  for leaf in indices[:4]:
    assert leaf.dtype == np.int32
  assert indices.width.shape == (len(arch.width),)
  assert arch_lib.decode(space, indices, arch.resolution) == arch
  # Positions, read by hand.
  for i, stage in enumerate(space.stages):
    assert stage.width[indices.width[i + 1]] == arch.width[i + 1]
    assert stage.depth[indices.depth[i]] == arch.depth[i]
    for block in range(max(stage.depth) if space.per_block else 1):
      place = decisions.place(space, i, block)
      for field in decisions.PER_BLOCK:
        value = getattr(stage, field)[getattr(indices, field)[place]]
        assert value == getattr(arch, field)[place]


@hypothesis.given(with_archs())
def test_read_and_write_are_inverse(case):
  space, arch = case
  assert arch_lib.write(space, arch_lib.read(space, arch)) == arch


@hypothesis.given(with_archs(), seeds, st.floats(0, 1), st.booleans())
def test_samples_and_mutants_are_members(case, seed, probability, training):
  space, arch = case
  rng = np.random.default_rng(seed)
  sample = arch_lib.sample(space, rng, training=training)
  assert arch_lib.contains(space, sample)
  if training:
    assert sample.resolution in space.train_resolution
  mutant = variation.mutate(space, arch, rng, probability)
  assert arch_lib.contains(space, mutant)
  again = np.random.default_rng(seed)
  assert arch_lib.sample(space, again, training=training) == sample
  assert variation.mutate(space, arch, again, probability) == mutant


@hypothesis.given(with_archs(2), seeds)
def test_crossover_takes_every_entry_from_a_parent(case, seed):
  space, mother, father = case
  rng = np.random.default_rng(seed)
  child = variation.crossover(space, mother, father, rng)
  assert arch_lib.contains(space, child)
  read = functools.partial(arch_lib.read, space)
  family = zip(*map(read, (child, mother, father)), strict=True)
  assert all(own in parents for own, *parents in family)


@hypothesis.given(with_archs())
def test_smallest_and_biggest_are_bounds(case):
  space, arch = case
  hypothesis.assume(arch.resolution in space.train_resolution)
  low, high = arch_lib.smallest(space), arch_lib.biggest(space)
  for arch_ in (low, high):
    assert arch_lib.contains(space, arch_)
    assert arch_.resolution in space.train_resolution
  read = functools.partial(arch_lib.read, space)
  entries = zip(*map(read, (low, arch, high)), strict=True)
  assert all(least <= own <= most for least, own, most in entries)


def test_smallest_is_trained_even_if_smaller_ones_are_evaluated():
  space = dataclasses.replace(
    MNIST, resolution=(16, 24, 32, 40), train_resolution=(24, 32)
  )
  assert arch_lib.smallest(space).resolution == 24
  assert arch_lib.biggest(space).resolution == 32


def test_count_is_the_size_of_the_set():
  choices = [gene.choices for gene in decisions.genes(MNIST)]
  every = {
    arch_lib.write(MNIST, list(values))
    for values in itertools.product(*choices)
  }
  assert len(every) == arch_lib.count(MNIST)
  assert min(every).resolution == MNIST.resolution[0]


def test_counts_by_hand():
  # resolutions x widths (stem, stages, head) x depths x kernels x expands
  assert arch_lib.count(zoo.BIGNAS) == (
    5
    * (2 * 2 * 2 * 2 * 2 * 3 * 4 * 5 * 17)
    * (2 * 2 * 2 * 3 * 5 * 5 * 2)
    * 2**5
  )
  assert arch_lib.count(zoo.ATTENTIVE_NAS) == (
    4 * (2 * 2**4 * 3 * 4 * 2 * 2) * (2 * 3 * 4 * 4 * 6 * 6 * 2) * 2**7 * 3**4
  )


@hypothesis.given(with_archs(2))
def test_pin_leaves_one_architecture(case):
  space, arch, other = case
  pinned = pinning.pin(space, arch)
  assert arch_lib.count(pinned) == 1
  only = arch_lib.smallest(pinned)
  assert only == arch_lib.biggest(pinned)
  assert pinning.pin(pinned, only) == pinned
  if space.per_block:  # its stages may be the blocks
    left_out = sum(
      arch_lib.of_block(space, arch, i, block)['expand_ratio'] == 0
      for i, depth in enumerate(arch.depth)
      for block in range(1, depth)
    )
    assert sum(only.depth) == sum(arch.depth) - left_out
    return
  assert only == arch
  assert arch_lib.contains(pinned, other) == (other == arch)
  # Everything but the choices stays.
  for stage, kept in zip(space.stages, pinned.stages, strict=True):
    assert kept.has_expand == stage.has_expand
    assert (kept.stride, kept.se) == (stage.stride, stage.se)
  for field in ('name', 'padding', 'bn_epsilon', 'head_expand', 'classes'):
    assert getattr(pinned, field) == getattr(space, field)


def test_pin_keeps_an_expanding_convolution_of_ratio_1():
  stage = dataclasses.replace(MNIST.stages[1], expand_ratio=(1, 4))
  space = dataclasses.replace(MNIST, stages=(MNIST.stages[0], stage))
  pinned = pinning.pin(space, arch_lib.smallest(space))
  assert pinned.stages[1].expand_ratio == (1,)
  assert pinned.stages[1].has_expand
  assert not pinned.stages[0].has_expand


# Whose decisions are independent.
by_plain_space = pytest.mark.parametrize(
  'space', [zoo.BIGNAS, zoo.ATTENTIVE_NAS, MNIST], ids=lambda space: space.name
)


@by_plain_space
def test_sampling_is_uniform(space):
  rng = np.random.default_rng(0)
  drawn = [
    arch_lib.read(space, arch_lib.sample(space, rng)) for _ in range(2000)
  ]
  assert_uniform(np.array(drawn), [g.choices for g in decisions.genes(space)])


def test_sampling_is_independent():
  rng = np.random.default_rng(1)
  drawn = [
    arch_lib.read(MNIST, arch_lib.sample(MNIST, rng)) for _ in range(2000)
  ]
  elastic = [g for g in zip(*drawn, strict=True) if len(set(g)) > 1]
  for one, other in itertools.combinations(elastic, 2):
    table = scipy.stats.contingency.crosstab(one, other).count
    result: Any = scipy.stats.chi2_contingency(table)
    assert result.pvalue > 1e-5


def test_training_draws_trained_resolutions_uniformly():
  rng = np.random.default_rng(2)
  drawn = [
    arch_lib.read(MNIST, arch_lib.sample(MNIST, rng, training=True))
    for _ in range(2000)
  ]
  choices = [gene.choices for gene in decisions.genes(MNIST)]
  assert_uniform(np.array(drawn), [MNIST.train_resolution, *choices[1:]])


def assert_uniform(drawn, choices):
  """Chi-square, gene by gene; the seed is fixed, so it passes for ever."""
  assert len(choices) == drawn.shape[1]
  for column, allowed in zip(drawn.T, choices, strict=True):
    counts = [(column == value).sum() for value in allowed]
    assert sum(counts) == len(column)
    if len(allowed) > 1:
      assert scipy.stats.chisquare(counts).pvalue > 1e-4, allowed


@by_plain_space
def test_mutation_redraws_with_the_given_probability(space):
  rng = np.random.default_rng(3)
  arch = arch_lib.sample(space, rng)
  assert variation.mutate(space, arch, rng, 0.0) == arch
  genes, n, p = decisions.genes(space), 1000, 0.3
  changed = np.zeros(len(genes))
  for _ in range(n):
    mutant = variation.mutate(space, arch, rng, p)
    changed += np.not_equal(
      arch_lib.read(space, mutant), arch_lib.read(space, arch)
    )
  for gene, times in zip(genes, changed, strict=True):
    # A redraw may give the old value.
    expected = p * (1 - 1 / len(gene.choices))
    deviation = math.sqrt(n * expected * (1 - expected))
    assert abs(times - n * expected) <= 5 * deviation, gene.name


def test_crossover_takes_half_from_each_parent():
  rng = np.random.default_rng(4)
  mother, father = arch_lib.smallest(MNIST), arch_lib.biggest(MNIST)
  differ = np.not_equal(
    arch_lib.read(MNIST, mother), arch_lib.read(MNIST, father)
  )
  n = 1000
  taken = np.zeros(len(differ))
  for _ in range(n):
    child = variation.crossover(MNIST, mother, father, rng)
    taken += np.equal(arch_lib.read(MNIST, child), arch_lib.read(MNIST, father))
  assert (abs(taken[differ] - n / 2) < 5 * math.sqrt(n / 4)).all()


CHILD = arch_lib.to_dict(arch_lib.smallest(MNIST))


def changed(field, position, value):
  entries = list(CHILD[field])
  entries[position] = value
  return CHILD | {field: entries}


@pytest.mark.parametrize(
  ('fields', 'named'),
  [
    (None, 'arch'),
    ([], 'arch'),
    ('smallest', 'arch'),
    ({}, 'arch'),
    ({k: v for k, v in CHILD.items() if k != 'depth'}, 'arch'),
    (CHILD | {'kernel': [3, 3, 3]}, 'arch'),
    (CHILD | {'resolution': True}, 'arch.resolution'),
    (CHILD | {'resolution': 24.0}, 'arch.resolution'),
    (CHILD | {'resolution': '24'}, 'arch.resolution'),
    (CHILD | {'resolution': [24]}, 'arch.resolution'),
    (CHILD | {'resolution': None}, 'arch.resolution'),
    (CHILD | {'resolution': 25}, 'arch.resolution'),
    (CHILD | {'depth': 1}, 'arch.depth'),
    (CHILD | {'depth': '111'}, 'arch.depth'),
    (CHILD | {'depth': {'0': 1}}, 'arch.depth'),
    (CHILD | {'depth': CHILD['depth'][:-1]}, 'arch.depth'),
    (CHILD | {'width': [*CHILD['width'], 8]}, 'arch.width'),
    (changed('depth', 0, True), 'arch.depth'),
    (changed('width', 0, 8.0), 'arch.width'),
    (changed('width', 0, None), 'arch.width'),
    (changed('width', 0, 7), 'arch.width[0]'),
    (changed('width', -1, 7), f'arch.width[{len(CHILD["width"]) - 1}]'),
    (changed('depth', 1, 0), 'arch.depth[1]'),
    (changed('kernel_size', 2, 7), 'arch.kernel_size[2]'),
    (changed('expand_ratio', 1, 6), 'arch.expand_ratio[1]'),
  ],
  ids=repr,
)
def test_malformed_architectures(fields, named):
  with pytest.raises(errors.UserError) as caught:
    arch_lib.from_dict(MNIST, fields)
  assert caught.value.field == named
  text = str(caught.value)
  assert text.startswith(f'{named}: got ')
  assert '; allowed: ' in text
  assert '\n' not in text


def test_a_foreign_entry_is_told_what_is_allowed():
  with pytest.raises(errors.UserError) as caught:
    arch_lib.from_dict(MNIST, changed('width', 1, 7))
  allowed = ', '.join(map(str, MNIST.stages[0].width))
  assert str(caught.value) == (
    f'arch.width[1]: got 7; allowed: one of {allowed} in space mnist'
  )


@hypothesis.given(with_archs())
def test_an_architecture_of_one_space_is_foreign_to_another(case):
  space, arch = case
  for other in SPACES:
    if space.name in NETWORKS and other.name in (*NETWORKS, 'bignas'):
      assert arch_lib.contains(other, arch)
    else:
      assert arch_lib.contains(other, arch) == (other is space)


@by_space
@hypothesis.given(seed=st.integers(0, 2**31 - 1), step=st.integers(0, 10**6))
def test_the_sandwich_is_a_function_of_seed_and_step(space, seed, step):
  policy = sandwich.sandwich(space, random_children=3)
  children = policy.sample({}, seed, step, None)
  assert [c.role for c in children] == ['biggest', 'smallest', *['random'] * 3]
  assert children[0].arch == arch_lib.biggest(space)
  assert children[1].arch == arch_lib.smallest(space)
  for child in children:
    assert arch_lib.contains(space, child.arch)
    assert child.arch.resolution in space.train_resolution
  assert policy.sample({}, seed, step, None) == children


def test_other_seeds_and_steps_give_other_children():
  policy = sandwich.sandwich(zoo.BIGNAS)
  paths = itertools.product(range(8), range(8))
  drawn = [policy.sample({}, *path, None)[2:] for path in paths]
  every = [child.arch for children in drawn for child in children]
  assert len(set(every)) == len(every) == 128


@hypothesis.given(st.lists(st.integers(1, 30), min_size=1), st.integers(0, 99))
def test_a_draw_is_numpys(sizes, seed):
  """So a search of an older version is repeated draw by draw."""
  ours, numpys = arch_lib.generator(seed), arch_lib.generator(seed)
  for size in sizes:
    choices = tuple(range(7, 7 + size))
    assert decisions.drawn(choices, ours) == numpys.choice(choices)
    assert ours.random() == numpys.random()


def test_the_width_of_a_stage_that_may_be_left_out_is_its_inputs():
  space = zoo.get('ofa_resnet50')
  arch = arch_lib.smallest(space)
  assert arch.depth[0] == 0
  assert 'width[1]' not in [gene.name for gene in decisions.genes(space)]
  wrong = dataclasses.replace(arch, width=(24, 32, *arch.width[2:]))
  with pytest.raises(errors.UserError, match=r'one of \[24, 24\]') as caught:
    arch_lib.check(space, wrong)
  assert caught.value.field == 'arch.width[0] to width[1]'
