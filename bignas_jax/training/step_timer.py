"""Durations of steps, measured without stopping the devices."""

import collections
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

# A step is reported if it takes this many times the median of recent ones, and
# so much longer that a person could notice it.
_TIMES, _AT_LEAST_S = 3, 0.1
_RECENT, _ENOUGH = 100, 10  # steps in the median: at most, at least


class Timed(NamedTuple):
  """The duration of one step."""

  step: int
  seconds: float
  waited: float  # of these seconds, for images


class StepTimer:
  """A timer that takes a step as ended when its results are ready.

  JAX returns from a step before the devices have run it, so the time of the
  call says nothing. Here the host, having dispatched a step, waits for the step
  before it: the devices always have work, and at most two steps take memory. A
  step lasts from the end of the step before it to its own end, as the host
  observes them; this includes all that delayed the step: images, a slow device,
  another process. On average these are the devices' times. A single time may be
  too long by what the host did meanwhile, and the next one is then too short.

  The wait for images is the host's. If they come in time it is about zero; if
  they do not, the devices are idle and it is nearly all of a step.

  Args:
    say: called with a line about a step that took several times the median; of
      further ones before the next `values`, with one line there.
    ended: called with each step that has ended.
    now: clock in seconds.
  """

  def __init__(
    self,
    say: Callable[[str], None],
    ended: Callable[[Timed], None],
    now: Callable[[], float] = time.monotonic,
  ):
    self._say, self._tell, self._now = say, ended, now
    self._pending: tuple[int, Any] | None = None
    self._recent: collections.deque[float] = collections.deque(maxlen=_RECENT)
    self._line: list[Timed] = []
    self._slow: list[Timed] = []  # of those in `_line`
    self._since, self._waited = now(), 0.0
    self.ended = 0  # the last step that is known to have ended

  def next(self, stream: Iterator[Any]) -> Any:
    """Returns the next batch; adds the time that it took to the step's wait."""
    began = self._now()
    batch = next(stream)
    self._waited += self._now() - began
    return batch

  def handed_over(self, step: int, results: Any) -> None:
    """Notes a step's output arrays `results`; waits for the step before it."""
    self.settle()
    self._pending = step, results

  def settle(self) -> None:
    """Waits for the last dispatched step, and records its time."""
    if self._pending is None:
      return
    step, results = self._pending
    self._pending = None
    jax.block_until_ready(results)
    now = self._now()
    timed = Timed(step, now - self._since, self._waited)
    self._since, self._waited, self.ended = now, 0.0, step
    self._judge(timed)
    self._recent.append(timed.seconds)
    self._line.append(timed)
    self._tell(timed)

  @contextlib.contextmanager
  def pause(self) -> Iterator[None]:
    """Excludes the time of the enclosed code from all steps."""
    self.settle()
    try:
      yield
    finally:
      self._since, self._waited = self._now(), 0.0

  def values(self, batch_size: int) -> dict[str, float]:
    """Returns scalars of the steps since the last call; there must be some."""
    self.settle()
    steps, self._line = self._line, []
    more, self._slow = self._slow[1:], []
    if more:
      longest = max(more, key=lambda one: one.seconds)
      self._say(
        f'slow: {len(more)} more of the last {len(steps)} steps, the longest '
        f'{longest.step} with {longest.seconds:.2f} s'
      )
    seconds = [one.seconds for one in steps]
    total = sum(seconds)
    return {
      'images_per_s': len(steps) * batch_size / total,
      'time/step_s': statistics.median(seconds),
      'time/step_max_s': max(seconds),
      'time/input_wait': sum(one.waited for one in steps) / total,
    }

  def _judge(self, one: Timed) -> None:
    if len(self._recent) < _ENOUGH:
      return
    median = statistics.median(self._recent)
    if one.seconds <= max(_TIMES * median, median + _AT_LEAST_S):
      return
    self._slow.append(one)
    if len(self._slow) == 1:
      self._say(
        f'slow: step {one.step} took {one.seconds:.2f} s, '
        f'{one.seconds / median:.0f} times the median; '
        f'{one.waited:.2f} s of it waiting for images'
      )
