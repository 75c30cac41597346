"""Losses against a teacher, by their definitions and by slopes."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis.extra import numpy as arrays
from scipy import special

from bignas_jax.methods import losses

LOGITS = arrays.arrays(
  np.float64, (3, 5), elements=st.floats(-4, 4, allow_subnormal=False)
)


@pytest.fixture(autouse=True, scope='module')
def float64():
  with jax.enable_x64(True):
    yield


def kl(student, teacher):
  log_q, log_p = (special.log_softmax(x, -1) for x in (student, teacher))
  return (np.exp(log_p) * (log_p - log_q)).sum(-1)


def chi(student, teacher):
  """The divergence of alpha -1: half of Neyman's chi square."""
  q, p = (special.softmax(x, -1) for x in (student, teacher))
  return ((q**2 / p).sum(-1) - 1) / 2


def slopes(function, x, step=1e-6):
  """Finite differences of a function of rows, by each entry of a row."""
  columns = []
  for i in range(x.shape[-1]):
    moved = np.zeros_like(x)
    moved[:, i] = step
    columns.append((function(x + moved) - function(x - moved)) / (2 * step))
  return np.stack(columns, -1)


def value(loss, student, teacher, *more):
  return loss(jnp.asarray(student), jnp.asarray(teacher), *more)


def gradient(loss, student, teacher, *more):
  student, teacher = jnp.asarray(student), jnp.asarray(teacher)
  return jax.grad(lambda x: loss(x, teacher, *more).sum())(student)


@hypothesis.given(LOGITS, LOGITS)
def test_soft_cross_entropy_has_the_gradient_of_the_kl_divergence(a, b):
  ours = value(losses.kl_divergence, a, b)
  np.testing.assert_allclose(ours, kl(a, b), atol=1e-12)
  ours = gradient(losses.kl_divergence, a, b)
  np.testing.assert_allclose(ours, slopes(lambda x: kl(x, b), a), atol=1e-6)
  soft = gradient(losses.soft_cross_entropy, a, b)
  np.testing.assert_allclose(soft, ours, atol=1e-12)


@hypothesis.given(LOGITS, LOGITS)
def test_alpha_divergence_is_the_larger_one_with_its_gradient(a, b):
  both = kl(a, b), chi(a, b)
  ours = value(losses.alpha_divergence, a, b, np.inf)
  np.testing.assert_allclose(ours, np.maximum(*both), atol=1e-11, rtol=1e-9)
  # Where they are nearly equal, a finite difference may take the other one.
  hypothesis.assume(np.abs(both[0] - both[1]).min() > 1e-4)
  expected = slopes(lambda x: np.maximum(kl(x, b), chi(x, b)), a)
  ours = gradient(losses.alpha_divergence, a, b, np.inf)
  scale = np.abs(expected).max()
  np.testing.assert_allclose(ours, expected, atol=1e-6 * max(scale, 1))


def test_alpha_divergence_is_bounded_where_the_student_is_too_sure():
  student, teacher = np.array([[9.0, 0, 0]]), np.array([[-9.0, 0, 0]])
  q = special.softmax(student, -1)
  inverse = np.minimum(q / special.softmax(teacher, -1), 5)
  assert inverse.max() == 5
  wrong = (q * (inverse - 1)).sum(-1) / 2
  ours = value(losses.alpha_divergence, student, teacher)
  np.testing.assert_allclose(ours, np.maximum(wrong, kl(student, teacher)))
  huge = value(losses.alpha_divergence, 1e3 * student, 1e3 * teacher)
  assert np.isfinite(huge).all()
  assert np.isfinite(
    gradient(losses.alpha_divergence, 1e3 * student, teacher)
  ).all()


@pytest.mark.parametrize('name', losses.OF_TEACHER)
def test_no_gradient_enters_a_teacher(name):
  a, b = jnp.eye(3), 1 - jnp.eye(3)
  of_teacher = jax.grad(lambda b: losses.OF_TEACHER[name](a, b).sum())(b)
  np.testing.assert_array_equal(of_teacher, 0)
  assert np.abs(gradient(losses.OF_TEACHER[name], a, b)).max() > 0.01


@pytest.mark.parametrize('name', losses.OF_TEACHER)
def test_a_temperature_divides_both_logits(name):
  a, b = jnp.array([[1.0, 2, 3]]), jnp.array([[3.0, 0, 1]])
  soft = losses.of_teacher(name, a, b, 2.0)
  np.testing.assert_allclose(
    soft, 4 * losses.of_teacher(name, a / 2, b / 2, 1.0)
  )
