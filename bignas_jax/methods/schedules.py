"""Learning rates as functions of the step."""

import dataclasses
from typing import Annotated, Literal

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from bignas_jax.values import schema


@dataclasses.dataclass(kw_only=True, slots=True)
class Schedule:
  """The learning rate's schedule, in steps; config files count in epochs.

  Attributes:
    name: `exponential` (with a floor), `cosine` or `linear`.
    peak: learning rate that warm-up rises to.
    warmup_steps: number of steps of linear rise.
    decay_rate: factor of the exponential for each `decay_steps`.
    decay_steps: number of steps for one `decay_rate`; may be a fraction.
    floor: fraction of the peak that the exponential never goes below.
    staircase: whether the rate drops at once every `decay_steps`.
  """

  name: Literal['exponential', 'cosine', 'linear'] = 'exponential'
  peak: schema.AtLeastZero
  warmup_steps: schema.Whole
  decay_rate: schema.PositiveShare = 0.97
  decay_steps: schema.Positive = 1.0
  floor: Annotated[float, schema.Meta(ge=0, le=1)] = 0.05
  staircase: bool = True


def create(config: Schedule, steps: int) -> optax.Schedule:
  """Returns the learning rate as a function of the step.

  The rate decays from step 0 on; during the warm-up it rises linearly from 0,
  and then joins the decay. The exponential stops at a constant floor (BigNAS,
  section 3).

  Args:
    config: schedule of the run.
    steps: number of steps of the run, at whose end cosine and linear are 0.
  """
  if config.name == 'cosine':
    decay = optax.cosine_decay_schedule(config.peak, steps)
  elif config.name == 'linear':
    decay = optax.linear_schedule(config.peak, 0.0, steps)
  else:
    decay = optax.exponential_decay(
      config.peak,
      # optax says int here, and takes a fraction.
      config.decay_steps,  # pyright: ignore[reportArgumentType]
      config.decay_rate,
      staircase=config.staircase,
      # With decay_rate 1 optax would take the smaller of this and the peak.
      end_value=config.floor * config.peak if config.decay_rate < 1 else None,
    )

  def rate(step) -> Float[Array, '']:
    warm = config.peak * step / max(config.warmup_steps, 1)
    return jnp.where(step < config.warmup_steps, warm, decay(step))

  return rate
