"""What is chosen for which images and times, and the reasons that are given."""

import dataclasses
import functools

import pytest

from bignas_jax.costs import counting
from bignas_jax.fitting import budget, rules, sizes
from bignas_jax.fitting.survey import Survey
from bignas_jax.fitting.trial import Measured
from bignas_jax.spaces import arch as arch_lib

PHOTOS = Survey(
  name='image_folder',
  directory='/photos',
  classes=3,
  train=160,
  test=40,
  cut=True,
  fewest=50,
  most=60,
  side=375,
  smallest_side=333,
  largest_side=500,
  channels=3,
  mean=(0.5, 0.4, 0.3),
  std=(0.2, 0.2, 0.2),
  looked_at=200,
  damaged=0,
)
CIFAR = dataclasses.replace(PHOTOS, classes=10, train=50_000, side=32)
DIGITS = dataclasses.replace(CIFAR, train=4000, side=28, channels=1)
IMAGENET = dataclasses.replace(CIFAR, classes=1000, train=1_281_167, side=375)
TINY_ICONS = dataclasses.replace(PHOTOS, side=16)


def _choose(survey, minutes, **changes):
  return rules.choose(survey, minutes, cores=2, **changes)


@pytest.mark.parametrize(
  ('survey', 'minutes', 'space', 'resolutions'),
  [
    (PHOTOS, 4, 'small_32', (32,)),
    (PHOTOS, 60, 'medium_64', (48, 56, 64)),
    (CIFAR, 4, 'small_24', (24,)),
    (CIFAR, 60, 'small_32', (24, 28, 32)),
    (CIFAR, 24 * 60, 'wide_32', (24, 28, 32)),
    (DIGITS, 20, 'small_32', (24, 28, 32)),
    (TINY_ICONS, 60, 'small_24', (16, 20, 24)),
    (dataclasses.replace(PHOTOS, train=6000), 24 * 60, 'large_160', None),
  ],
)
def test_the_space_follows_from_size_count_and_time(
  survey, minutes, space, resolutions
):
  chosen = _choose(survey, minutes)
  assert chosen.space.name == space
  if resolutions is not None:
    assert chosen.space.resolution == resolutions
  assert chosen.space.classes == survey.classes
  assert chosen.space.channels == survey.channels
  assert any(space in line for line in chosen.why)


def test_an_accelerator_gets_a_larger_space_and_batch():
  cpus = _choose(IMAGENET, 48 * 60)
  pod = _choose(IMAGENET, 48 * 60, accelerated=True, devices=8)
  assert pod.space.name == 'bignas_224' and pod.batch_size == 512
  assert cpus.size in rules.SIZES[rules.SIZES.index(pod.size) + 1 :]
  assert _choose(CIFAR, 60, devices=3).batch_size % 3 == 0


def test_what_is_too_slow_is_followed_by_a_smaller_space():
  """To the last one, which takes all images and times."""
  chosen, tried = _choose(PHOTOS, 60), []
  while chosen.size is not rules.SIZES[-1]:
    tried.append(chosen.size)
    chosen = _choose(PHOTOS, 60, smaller_than=chosen.size)
  macs = [
    counting.cost(space, arch_lib.biggest(space)).macs
    for space in (
      sizes.at(size.space, size.side, False, 3, 3)
      for size in (*tried, chosen.size)
    )
  ]
  assert len(macs) >= 3 and macs == sorted(macs, reverse=True)
  assert _choose(PHOTOS, 60, smaller_than=chosen.size).size is chosen.size


@pytest.mark.parametrize(
  ('survey', 'minutes', 'held_out', 'batch_size', 'augment', 'area'),
  [
    (PHOTOS, 4, 32, 32, 'crop', 0.15),
    (CIFAR, 4, 500, 128, 'crop', 0.4),
    (CIFAR, 300, 5000, 128, 'randaugment', 0.4),
    (DIGITS, 30, 400, 64, 'affine', 0.4),
    (dataclasses.replace(DIGITS, side=200), 30, 400, 64, 'crop', 0.15),
  ],
)
def test_tables_choose_the_rest(
  survey, minutes, held_out, batch_size, augment, area
):
  chosen = _choose(survey, minutes)
  assert (chosen.held_out, chosen.batch_size) == (held_out, batch_size)
  assert (chosen.augment, chosen.min_crop_area) == (augment, area)
  for line in chosen.why:
    assert line[0].isupper() and line.endswith('.')


def test_all_tables_end_and_all_spaces_can_be_built():
  for table in (rules.EPOCHS, rules.MOST_EPOCHS, rules.BATCHES, rules.BOXES):
    bounds = [bound for bound, _ in table]
    assert bounds[-1] is None
    numbers = [bound for bound in bounds if bound is not None]
    assert numbers == sorted(numbers) and len(numbers) == len(bounds) - 1
  last = rules.SIZES[-1]
  assert (last.images_side, last.images, last.minutes) == (0, 0, 0)
  for size in rules.SIZES:
    for several in (False, True):
      space = sizes.at(size.space, size.side, several, 1, 2)
      assert max(space.resolution) == size.side
      assert set(space.train_resolution) <= set(space.resolution)


def test_a_length_is_what_the_time_allows():
  in_time = rules.length(1000, 50, 60.0, 0.5, least=20)
  assert (in_time.steps, in_time.late_s) == (120, 0)
  late = rules.length(1000, 50, -1.0, 0.5, least=20)
  assert late.steps == 20 and late.late_s == 11 and ' 0 s are left' in late.why
  assert rules.too_short(late, 4).endswith(
    '20 steps are trained all the same, and the end is about 1 min later'
  )
  capped = rules.length(1000, 50, 1e6, 0.5, least=20)
  assert (capped.steps, capped.epochs) == (4000, 200)
  assert 'would not help' in capped.why
  assert '0.5 s' in rules.length(1000, 50, 60.0, 0.5, least=20).why


MEASURED = Measured(compile_s=60, step_s=0.2, evaluator_s=20, child_s=1)


def test_the_time_is_shared_and_not_exceeded():
  minutes, requests = 20.0, 6
  left = 60 * minutes - 90
  training = budget.for_training(left, minutes, MEASURED, requests)
  assert 0.4 * left < training < left
  after = left - training - 0.4 * (60 + 20)
  number = budget.evaluations(after, minutes, MEASURED, requests)
  assert number > 4
  spent = number * requests * MEASURED.child_s + 0.4 * MEASURED.evaluator_s
  children = budget.for_children(MEASURED, requests)
  assert spent + children <= after
  assert children > requests * budget.for_int8(MEASURED) > 0
  # Where no time is left, children are evaluated for a tenth of it, or a
  # few all the same.
  number = budget.evaluations(-10.0, minutes, MEASURED, requests)
  late = max(0.1 * 60 * minutes, 4 * requests * MEASURED.child_s)
  assert late / 2 < number * requests * MEASURED.child_s <= late
  assert budget.evaluations(1e6, minutes, MEASURED, requests) == 64


def test_searches_are_repeated_if_that_is_worth_it():
  more = functools.partial(budget.more_evaluations, each_s=0.5, requests=6)
  assert more(20, 90.0) == 50
  assert more(20, 1e6) == 64
  assert [more(20, spare) for spare in (14.9, 0.0, -50.0)] == [20, 20, 20]
  assert more(64, 1e6) == 64
