"""Learning rates as functions of the step."""

from collections.abc import Callable

import jax.numpy as jnp
import optax


def exponential_with_floor(
  peak: float,
  *,
  decay_rate: float,
  decay_steps: float,
  floor: float,
  warmup_steps: int,
  staircase: bool = True,
) -> Callable:
  """Exponential decay, then a constant (BigNAS, section 3).

  Args:
    peak: rate that decays from step 0 on.
    decay_rate: factor each `decay_steps`.
    decay_steps: may be a fraction.
    floor: as a fraction of the peak; the rate stays there.
    warmup_steps: the rate rises linearly from 0 and joins the decay.
    staircase: decay at once every `decay_steps`.
  """

  def rate(step):
    age = step / decay_steps
    age = jnp.floor(age) if staircase else age
    decayed = jnp.maximum(peak * decay_rate**age, peak * floor)
    warm = peak * step / max(warmup_steps, 1)
    return jnp.where(step < warmup_steps, warm, decayed)

  return rate


def cosine(peak: float, *, steps: int, warmup_steps: int) -> Callable:
  """Cosine to 0 counted from step 0, with a linear warm-up."""
  decayed = optax.cosine_decay_schedule(peak, steps)

  def rate(step):
    warm = peak * step / max(warmup_steps, 1)
    return jnp.where(step < warmup_steps, warm, decayed(step))

  return rate
