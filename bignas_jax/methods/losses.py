"""Losses of a child against the label or against another child's softmax.

Logits are [batch, classes] in float32; results are [batch].
"""

import jax


def cross_entropy(
  logits: jax.Array, labels: jax.Array, smoothing: float = 0.0
) -> jax.Array:
  """Returns the cross-entropy to labels [batch] int32, optionally smoothed."""
  classes = logits.shape[-1]
  target = jax.nn.one_hot(labels, classes) * (1 - smoothing)
  return soft_cross_entropy(logits, target + smoothing / classes)


def soft_cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
  """Returns the cross-entropy to probabilities [batch, classes].

  In-place distillation (BigNAS, section 3): with the biggest child's softmax
  as a target that no gradient enters, its gradient is that of the KL
  divergence.
  """
  return -(target * jax.nn.log_softmax(logits)).sum(-1)
