"""Losses of a student against the label or against a teacher's logits.

Logits are float32. No gradient enters a teacher.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Logits = Float[Array, 'batch classes']
Losses = Float[Array, 'batch']

_MOST_WEIGHT = 5.0  # AlphaNet's bound of (p / q)^alpha


def cross_entropy(
  logits: Logits,
  labels: Int[Array, 'batch'],
  smoothing: float = 0.0,
) -> Losses:
  """Returns the cross-entropy to labels, optionally smoothed."""
  classes = logits.shape[-1]
  target = jax.nn.one_hot(labels, classes) * (1 - smoothing)
  log_student = jax.nn.log_softmax(logits)
  return -((target + smoothing / classes) * log_student).sum(-1)


def soft_cross_entropy(logits: Logits, teacher: Logits) -> Losses:
  """Returns the cross-entropy to the teacher's softmax.

  In-place distillation (BigNAS, section 3). Its gradient is that of the KL
  divergence.
  """
  target = jax.nn.softmax(jax.lax.stop_gradient(teacher))
  return -(target * jax.nn.log_softmax(logits)).sum(-1)


def kl_divergence(logits: Logits, teacher: Logits) -> Losses:
  """Returns KL(teacher || student); 0 where both predict the same."""
  log_teacher = jax.nn.log_softmax(jax.lax.stop_gradient(teacher))
  log_student = jax.nn.log_softmax(logits)
  return (jnp.exp(log_teacher) * (log_teacher - log_student)).sum(-1)


def alpha_divergence(
  logits: Logits, teacher: Logits, most_weight: float = _MOST_WEIGHT
) -> Losses:
  """Returns the larger of the alpha-divergences of alpha -1 and alpha 1.

  AlphaNet (ICML 2021): alpha -1 punishes a student that is too sure, alpha 1,
  which is the KL divergence, one that is not sure enough. With student q,
  teacher p and t = p / q, D_a = (E_q[t^a] - 1) / (a (a - 1)). The gradient is
  that of -sum_k stop_gradient(q_k rho_k) log q_k, which is D_a's own where
  nothing is clipped; for a = -1, rho = 1/2 - t^a.

  Args:
    logits: the student's.
    teacher: the teacher's.
    most_weight: bound of t^a for alpha -1.
  """
  log_student = jax.nn.log_softmax(logits)
  log_q = jax.lax.stop_gradient(log_student)
  log_p = jax.nn.log_softmax(jax.lax.stop_gradient(teacher))
  p, q = jnp.exp(log_p), jnp.exp(log_q)
  inverse = jnp.minimum(jnp.exp(log_q - log_p), most_weight)
  sure, unsure = (q * (inverse - 1)).sum(-1) / 2, (p * (log_p - log_q)).sum(-1)
  # q rho: for alpha 1, rho is t itself.
  is_sure = (sure > unsure)[:, None]
  weights = jnp.where(is_sure, q * (0.5 - inverse), p)
  surrogate = -(weights * log_student).sum(-1)
  value = jnp.maximum(sure, unsure)
  # The value is the divergence, the gradient the surrogate's.
  return value + surrogate - jax.lax.stop_gradient(surrogate)


# Losses against a teacher, by their names in `loss_graph.Edge`.
OF_TEACHER = {
  'soft_cross_entropy': soft_cross_entropy,
  'kl': kl_divergence,
  'alpha': alpha_divergence,
}


def of_teacher(
  name: str, logits: Logits, teacher: Logits, temperature: float
) -> Losses:
  """Returns a loss against a teacher at a temperature.

  Both are divided by the temperature, and the loss is multiplied by its square,
  so that its gradient keeps its size (Hinton et al. 2015, section 2).
  """
  loss = OF_TEACHER[name]
  if temperature == 1:
    return loss(logits, teacher)
  softer = loss(logits / temperature, teacher / temperature)
  return temperature**2 * softer
