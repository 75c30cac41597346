"""Settings of how a run is supervised: recovery, profiles, trackers."""

import dataclasses
from typing import Literal

from bignas_jax.values import schema

TrackerName = Literal['mlflow', 'wandb']  # `trackers`


@dataclasses.dataclass(kw_only=True, slots=True)
class Recovery:
  """The recovery of a run that diverges.

  Attributes:
    tries: rollbacks to one checkpoint before the run gives up; 0: none.
    window: steps that the biggest child's training top-1 is averaged over; in
      a policy without one, the first child's.
    remains: a collapse is when less than this fraction of the child's best lead
      over chance remains; 0: collapses are not detected.
  """

  tries: schema.Whole = 3
  window: schema.Natural = 30
  remains: schema.Share = 0.2


@dataclasses.dataclass(kw_only=True, slots=True)
class Profile:
  """The steps that are profiled; results do not depend on them.

  Attributes:
    at: steps that a capture begins with, such as (100,).
    steps: number of steps in a capture.
  """

  at: tuple[schema.Natural, ...] = ()
  steps: schema.Natural = 3
