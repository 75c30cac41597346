"""When training has gone wrong: not-finite numbers, or a collapse.

A collapse is what sandwich training is known for: within tens of steps the
biggest child, which teaches all others, falls back to chance, with finite
losses, and does not recover.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

# Of the way from chance to perfection that the watched child must have come
# before losing it counts as a collapse.
_LEAST = 0.1


class Diverged(Exception):
  """Training has gone wrong.

  Attributes:
    step: after which it was seen, counted from 1.
    reason: in words.
    late: steps ago that it may have begun.
  """

  def __init__(self, step: int, reason: str, late: int = 0):
    super().__init__(f'{reason} at step {step}')
    self.step, self.reason, self.late = step, reason, late


class Watch:
  """Looks at the numbers of every step, in order.

  A function of those numbers alone, so that a resumed run sees trouble where
  an uninterrupted one does.

  Args:
    chance: top-1 of a guess.
    window: steps that the watched child's top-1 is averaged over.
    remains: it has collapsed when less than this fraction of its best lead
      over chance remains; 0: never.
    memory: what an earlier watch left (`memory`).
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
    """What to keep for the watch of a resumed run; plain JSON values."""
    return {'recent': list(self._recent), 'best': self._best}

  def look(
    self,
    step: int,
    losses: Iterable[tuple[str, float]],
    finite: bool,
    top1: float,
    watched: str = 'biggest',
  ) -> None:
    """Looks at one step.

    Args:
      step: counted from 1.
      losses: (role, loss) of the children.
      finite: whether all of the state after the step is.
      top1: of the watched child on the training batch.
      watched: its role.

    Raises:
      Diverged: this step shows that training has.
    """
    for role, loss in losses:
      if not math.isfinite(loss):
        raise Diverged(step, f'the loss of a child ({role}) is {loss}')
    if not finite:
      raise Diverged(step, 'the updated state is not finite')
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
