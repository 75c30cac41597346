"""Optimisers and schedules against sequences worked out by hand."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bignas_jax.methods import optim, schedules

GRADS = np.random.default_rng(0).normal(size=(8, 5)) * [1e-4, 0.01, 1, 10, 0]
START = np.array([1.0, -2.0, 0.5, 3.0, 4.0])


def rates(step):
  """A rate that changes at every step, and at once at the fourth."""
  return jnp.where(step < 4, 0.1 * (step + 1), 0.01)


RATES = [0.1, 0.2, 0.3, 0.4, 0.01, 0.01, 0.01, 0.01]


def run(config, grads=GRADS):
  """The weights after each step, [steps, 5]."""
  transform = optim.create(config, rates)

  @jax.jit
  def step(carry, grads):
    params, state = carry
    updates, state = transform.update(grads, state, params)
    params = jax.tree.map(jnp.add, params, updates)
    return (params, state), params['kernel']

  params = {'kernel': jnp.asarray(START)}
  carry = params, transform.init(params)
  _, out = jax.lax.scan(step, carry, {'kernel': jnp.asarray(grads)})
  return np.asarray(out)


def test_rmsprop_is_tensorflows():
  square, momentum, weight = np.ones(5), np.zeros(5), START.copy()
  expected = []
  for grad, rate in zip(GRADS, RATES, strict=True):
    square = 0.8 * square + 0.2 * grad**2
    momentum = 0.7 * momentum + rate * grad / np.sqrt(square + 0.05)
    weight = weight - momentum
    expected.append(weight)
  config = optim.Optimizer(
    name='rmsprop', decay=0.8, momentum=0.7, epsilon=0.05
  )
  np.testing.assert_allclose(run(config), expected, rtol=1e-5)


def test_rmsprops_first_step_by_hand():
  # s = 0.9 + 0.1 * 2^2 = 1.3; w = 1 - 0.1 * 2 / sqrt(1.3 + 0.001)
  transform = optim.create(optim.Optimizer(), lambda step: 0.1)
  params = {'kernel': jnp.ones(())}
  grads = {'kernel': jnp.full((), 2.0)}
  updates: Any = transform.update(grads, transform.init(params), params)[0]
  assert float(updates['kernel']) == pytest.approx(-0.2 / math.sqrt(1.301))


@pytest.mark.parametrize('nesterov', [False, True])
def test_sgd(nesterov):
  momentum, weight = np.zeros(5), START.copy()
  expected = []
  for grad, rate in zip(GRADS, RATES, strict=True):
    momentum = 0.9 * momentum + grad
    step = 0.9 * momentum + grad if nesterov else momentum
    weight = weight - rate * step
    expected.append(weight)
  config = optim.Optimizer(name='sgd', momentum=0.9, nesterov=nesterov)
  np.testing.assert_allclose(run(config), expected, rtol=1e-5)


@pytest.mark.parametrize('name', ['sgd', 'rmsprop'])
def test_clipping_is_by_value_and_before_everything(name):
  expected = run(optim.Optimizer(name=name), np.clip(GRADS, -0.5, 0.5))
  clipped = run(optim.Optimizer(name=name, clip_value=0.5))
  np.testing.assert_allclose(clipped, expected, rtol=1e-6)
  plain = run(optim.Optimizer(name=name))
  assert abs(plain - expected).max() > 0.1


def test_weight_decay_is_of_kernels_only():
  params = {
    'stem': {'conv': {'kernel': jnp.full((2, 2), 3.0)}, 'bn': norm()},
    'stage1': {
      'first': {
        'se': {'reduce': {'kernel': jnp.full(4, 2.0), 'bias': jnp.ones(9)}},
        'project_bn': norm(),
      }
    },
  }
  total, grads = jax.value_and_grad(optim.half_square_norm)(params)
  assert float(total) == 0.5 * (4 * 9 + 4 * 4)
  for path, grad in jax.tree_util.tree_leaves_with_path(grads):
    value = 0.0
    if path[-1].key == 'kernel':
      value = {'stem': 3.0, 'stage1': 2.0}[path[0].key]
    np.testing.assert_array_equal(grad, value)


def norm():
  return {'scale': jnp.full(3, 5.0), 'bias': jnp.full(3, 7.0)}


PEAK = 0.256


def exponential(peak, **fields):
  return schedules.create(schedules.Schedule(peak=peak, **fields), 1000)


def cosine(peak, steps, warmup_steps):
  fields = {'name': 'cosine', 'warmup_steps': warmup_steps}
  return schedules.create(schedules.Schedule(peak=peak, **fields), steps)


def test_exponential_with_floor():
  rate = exponential(
    PEAK, decay_rate=0.97, decay_steps=10, floor=0.05, warmup_steps=25
  )
  # The warm-up is a line from 0 that joins the decay at step 25.
  for step in range(25):
    assert float(rate(step)) == pytest.approx(PEAK * step / 25)
  # Then a step of 0.97 every 10, counted from step 0.
  for step in (25, 29, 30, 39, 40, 41, 300):
    expected = PEAK * 0.97 ** (step // 10)
    assert float(rate(step)) == pytest.approx(expected), step
  # 0.97^98 = 0.0505, 0.97^99 = 0.0490: the floor holds from step 990 on.
  assert float(rate(989)) == pytest.approx(PEAK * 0.97**98, rel=1e-5)
  assert float(rate(989)) > PEAK * 0.05
  for step in (990, 1000, 10**5, 10**8):
    assert float(rate(step)) == pytest.approx(PEAK * 0.05), step


def test_exponential_without_staircase_and_with_fractions():
  rate = exponential(
    1.0,
    decay_rate=0.5,
    decay_steps=2.5,
    floor=0.1,
    warmup_steps=0,
    staircase=False,
  )
  for step in range(8):
    expected = max(0.5 ** (step / 2.5), 0.1)
    assert float(rate(step)) == pytest.approx(expected)
  assert float(rate(9)) == pytest.approx(0.1)
  steps = exponential(
    1.0, decay_rate=0.5, decay_steps=2.5, floor=0.1, warmup_steps=0
  )
  found = [float(steps(step)) for step in range(8)]
  assert found == pytest.approx([1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25])


def test_without_a_floor_the_rate_goes_on_falling():
  rate = exponential(
    1.0, decay_rate=0.5, decay_steps=1, floor=0.0, warmup_steps=0
  )
  assert float(rate(40)) == pytest.approx(0.5**40)


def test_a_rate_that_stays():
  rate = exponential(0.5, decay_rate=1.0, floor=0.05, warmup_steps=2)
  assert [float(rate(step)) for step in (0, 1, 2, 10**6)] == [0, 0.25, 0.5, 0.5]


def test_cosine():
  rate = cosine(0.8, 100, 10)
  for step in range(10):
    assert float(rate(step)) == pytest.approx(0.8 * step / 10)
  # Counted from step 0, not from the end of the warm-up.
  for step in range(10, 101):
    expected = 0.4 * (1 + math.cos(math.pi * step / 100))
    assert float(rate(step)) == pytest.approx(expected, abs=1e-7)
  assert float(rate(100)) == pytest.approx(0, abs=1e-7)
  assert float(rate(200)) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(
  'rate',
  [
    cosine(0.8, 100, 10),
    exponential(
      0.8, decay_rate=0.9, decay_steps=3.7, floor=0.3, warmup_steps=10
    ),
  ],
)
def test_schedules_take_traced_steps(rate):
  steps = jnp.arange(120)
  traced = jax.jit(jax.vmap(rate))(steps)
  plain = [float(rate(int(step))) for step in steps]
  np.testing.assert_allclose(traced, plain, rtol=1e-5, atol=1e-7)
