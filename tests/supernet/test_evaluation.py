"""Calibration and accuracy: what a child's statistics and scores are of."""

import dataclasses
import functools

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import tiny
from hypothesis.extra import numpy as arrays

from bignas_jax.runs import config
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning
from bignas_jax.supernet import evaluation, network
from bignas_jax.system import mesh as mesh_lib

SPACE = tiny.LOOP
CHILD = arch_lib.biggest(SPACE)
SMALLER = arch_lib.smallest(SPACE)


def images(seed: int, size: int = 16):
  rng = np.random.default_rng(seed)
  return {
    'image': rng.integers(0, 256, (size, 12, 12, 1), np.uint8),
    'label': rng.integers(0, 10, size).astype(np.int32),
    'mask': np.arange(size) < size - 3,
  }


@functools.cache
def model(devices: int = 1):
  mesh = mesh_lib.create(jax.devices()[:devices])
  return config.model(tiny.config(space=SPACE), mesh)


@functools.cache
def params():
  made = jax.jit(lambda: network.init(SPACE, jax.random.key(0)))()
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda p: np.asarray(p + 0.2 * rng.normal(size=p.shape), np.float32), made
  )


def evaluator(calibration, split=None, devices=1):
  split = [images(9)] if split is None else split
  return evaluation.Evaluator(model(devices), calibration, split)


def close(a, b):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5), a, b
  )


@pytest.mark.parametrize('arch', [CHILD, SMALLER])
def test_statistics_of_one_batch_are_that_batchs(arch):
  """Normalised by them, the batch becomes what it is in training."""
  batch = images(0)
  one = evaluator([batch], [batch])
  stats = one.calibrate(params(), arch)
  found = one.logits(params(), stats, next(iter(one.split)), arch)
  pixels = model().images(batch['image'], arch.resolution)
  net = network.Supernet(SPACE)
  indices = arch_lib.encode(SPACE, arch)
  # Batch statistics are taken over a mesh axis; here there is none.
  expected = jax.jit(net.apply)({'params': params()}, pixels, indices)
  close(found, expected)


def test_statistics_are_pooled_over_all_images():
  """Of both batches at once, as far as the first batch norm can show it."""
  batches = [images(0), images(1)]
  whole = {
    name: np.concatenate([b[name] for b in batches]) for name in batches[0]
  }
  stats = evaluator(batches).calibrate(params(), CHILD)
  together = evaluator([whole]).calibrate(params(), CHILD)
  close(stats['stem'], together['stem'])
  alone = evaluator(batches[:1]).calibrate(params(), CHILD)
  far = abs(alone['stem']['bn']['var'] - together['stem']['bn']['var']).max()
  assert far > 1e-3


@pytest.mark.parametrize('arch', [CHILD, SMALLER])
def test_a_child_alone_has_its_part_of_the_statistics(arch):
  batches = [images(0), images(1)]
  in_supernet = evaluator(batches)
  stats = in_supernet.calibrate(params(), arch)
  variables = {'params': params(), 'batch_stats': stats}
  own = network.slice_child(SPACE, variables, arch)
  own_model = dataclasses.replace(model(), space=pinning.pin(SPACE, arch))
  alone = evaluation.Evaluator(own_model, batches, [images(9)])
  close(alone.calibrate(own['params'], arch), own['batch_stats'])
  assert alone.score(own['params'], arch) == in_supernet.score(params(), arch)


def test_four_devices_calibrate_as_one():
  batches = [images(0), images(1)]
  one, four = (evaluator(batches, devices=n) for n in (1, 4))
  close(one.calibrate(params(), CHILD), four.calibrate(params(), CHILD))
  assert one.score(params(), CHILD) == four.score(params(), CHILD)


def test_scores_leave_out_what_only_fills_a_batch():
  batch = images(3)
  other = batch | {'label': np.where(batch['mask'], batch['label'], 0)}
  scores = [
    evaluator([images(0)], [one]).score(params(), CHILD)
    for one in (batch, other)
  ]
  assert scores[0] == scores[1]
  assert scores[0].images == 13


def test_a_split_too_big_for_the_devices_is_read_for_each_child(monkeypatch):
  split = [images(3), images(4)]
  kept = evaluator([images(0)], split)
  assert isinstance(kept.split, list)
  monkeypatch.setattr(evaluation, '_KEPT_BYTES', 1000)
  streamed = evaluator([images(0)], split)
  assert not isinstance(streamed.split, list)
  scores = [one.score(params(), CHILD) for one in (kept, streamed, streamed)]
  assert scores[0] == scores[1] == scores[2]
  assert scores[0].images == 26


# Few different values: ties are common, and so are NaNs.
LOGITS = st.sampled_from([0.0, 1.0, 2.0, float('inf'), float('nan')])


@hypothesis.given(st.data(), st.sampled_from([1, 3, 7]))
def test_right_answers_are_counted(data, classes):
  """Against a sort; equal logits, and NaNs, come in the classes' order."""
  logits = data.draw(arrays.arrays(np.float32, (6, classes), elements=LOGITS))
  label = data.draw(
    arrays.arrays(np.int32, 6, elements=st.integers(0, classes - 1))
  )
  mask = data.draw(arrays.arrays(bool, 6))
  found = evaluation.count_right(logits, {'label': label, 'mask': mask})
  ranked = [
    sorted(range(classes), key=lambda c, row=row: (-_key(row[c]), c))
    for row in logits
  ]
  expected = [
    sum(label[i] in ranked[i][:n] for i in np.flatnonzero(mask)) for n in (1, 5)
  ]
  assert found.tolist() == [*expected, mask.sum()]


def _key(logit) -> float:
  """NaNs are sorted as the largest, as everywhere in NumPy and JAX."""
  return 1e9 if np.isnan(logit) else min(float(logit), 1e8)


@pytest.mark.parametrize('value', [0.0, float('nan')])
def test_a_network_that_has_collapsed_is_right_by_chance(value):
  logits = np.full((10, 10), value, np.float32)
  batch = {'label': np.arange(10), 'mask': np.ones(10, bool)}
  assert evaluation.count_right(logits, batch).tolist() == [1, 5, 10]
