"""Learning rates as functions of the step."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Literal

import jax.numpy as jnp
import optax

from bignas_jax.values import schema


@dataclasses.dataclass(kw_only=True, slots=True)
class Schedule:
  """The learning rate; `steps` are counted in epochs' worth by the file.

  Attributes:
    name: `exponential` (with a floor) or `cosine`.
    peak: rate that warm-up leads to.
    warmup_steps: of linear rise.
    decay_rate: of the exponential, each `decay_steps`.
    decay_steps: may be a fraction.
    floor: fraction of the peak that the exponential never goes below.
    staircase: decay at once every `decay_steps`.
  """

  name: Literal['exponential', 'cosine'] = 'exponential'
  peak: schema.AtLeastZero
  warmup_steps: schema.Whole
  decay_rate: schema.PositiveShare = 0.97
  decay_steps: schema.Positive = 1.0
  floor: Annotated[float, schema.Meta(ge=0, le=1)] = 0.05
  staircase: bool = True


def create(config: Schedule, steps: int) -> Callable:
  """The learning rate as a function of the step."""
  if config.name == 'cosine':
    return cosine(config.peak, steps=steps, warmup_steps=config.warmup_steps)
  return exponential_with_floor(
    config.peak,
    decay_rate=config.decay_rate,
    decay_steps=config.decay_steps,
    floor=config.floor,
    warmup_steps=config.warmup_steps,
    staircase=config.staircase,
  )


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
