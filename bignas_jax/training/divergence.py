"""Detection of divergence: values that are not finite, or a collapse.

Sandwich training can collapse: within tens of steps the biggest child, which
teaches all others, falls back to chance, with finite losses, and does not
recover.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

# Losing a lead over chance is a collapse only if the lead was at least this
# fraction of the largest possible.
_LEAST = 0.1


class Diverged(Exception):
  """The error that training has diverged.

  Attributes:
    step: the step after which divergence was detected, counted from 1.
    reason: what was detected, in words.
    late: the number of steps before `step` at which it may have begun.
  """

  def __init__(self, step: int, reason: str, late: int = 0):
    super().__init__(f'{reason} at step {step}')
    self.step, self.reason, self.late = step, reason, late


class Detector:
  """A detector of divergence, which is given the metrics of each step in order.

  It depends on these metrics alone, so that a resumed run detects divergence at
  the step where an uninterrupted one does.

  Args:
    chance: top-1 of a random guess.
    window: number of steps that the watched child's top-1 is averaged over.
    remains: a collapse is when less than this fraction of the child's best lead
      over chance remains; 0: collapses are not detected.
    memory: what `memory` of an earlier detector returned.
  """

  def __init__(
    self,
    chance: float,
    window: int,
    remains: float,
    memory: Mapping[str, Any] | None = None,
  ):
    self._chance, self._window, self._remains = chance, window, remains
    memory = memory or {'recent': [], 'best': 0.0}
    self._recent, self._best = list(memory['recent']), memory['best']

  def memory(self) -> dict[str, Any]:
    """Returns plain JSON values that a resumed run's detector starts from."""
    return {'recent': list(self._recent), 'best': self._best}

  def look(
    self,
    step: int,
    children: Iterable[tuple[str, float, float]],
    top1: float,
    watched: str = 'biggest',
    weight_norm: float | None = None,
  ) -> None:
    """Checks the metrics of one step.

    Args:
      step: the step's number, counted from 1.
      children: (role, loss, norm of the gradient) of the children.
      top1: the watched child's top-1 on the training batch.
      watched: the watched child's role.
      weight_norm: norm of all parameters after the step; None: not computed.

    Raises:
      Diverged: this step shows that training has diverged.
    """
    for role, loss, norm in children:
      if not math.isfinite(loss):
        raise Diverged(step, f'the loss of a child ({role}) is {loss}')
      if not math.isfinite(norm):
        raise Diverged(step, f'the gradient of a child ({role}) is {norm}')
    if weight_norm is not None and not math.isfinite(weight_norm):
      raise Diverged(step, f'the norm of the parameters is {weight_norm}')
    self._recent = [*self._recent, top1][-self._window :]
    if len(self._recent) < self._window:
      return
    mean = sum(self._recent) / self._window
    lead = (mean - self._chance) / (1 - self._chance)
    collapsed = self._best >= _LEAST and lead < self._remains * self._best
    if collapsed and self._remains:
      best = self._chance + self._best * (1 - self._chance)
      raise Diverged(
        step,
        f'the {watched} child has collapsed: training top-1 {mean:.3f} after '
        f'{best:.3f} (means of {self._window} steps; chance is '
        f'{self._chance:.3f})',
        late=self._window,
      )
    self._best = max(self._best, lead)
