"""How long steps take, without stopping the devices to find out."""

import collections
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

# A step this many times the median of the recent ones is worth a line, if a
# person could notice it at all.
_TIMES, _AT_LEAST_S = 3, 0.1
_RECENT, _ENOUGH = 100, 10  # steps that the median is of; to begin with


class Timed(NamedTuple):
  """A step."""

  step: int
  seconds: float
  waited: float  # of these seconds, for images


class StepTimer:
  """Times steps by when they are known to have ended.

  JAX returns from a step before the devices have run it, so what the host
  needs for one says nothing. Here the host, having handed over a step, waits
  for the step before: the devices always have work, and the memory of two steps
  bounds what is under way. A step's time is that from the end of the step
  before to its own, as the host sees them; it holds whatever held up the step:
  images, a slow device, another process. On average these are the devices'
  times. A single one may be late by what the host did meanwhile, to the next
  one's favour.

  The wait for images is the host's. If they come in time it is nothing; if
  they do not, the devices run dry and it is nearly all of a step.

  Args:
    say: is told of a step that took several times the median.
    now: seconds.
  """

  def __init__(
    self,
    say: Callable[[str], None],
    now: Callable[[], float] = time.monotonic,
  ):
    self._say, self._now = say, now
    self._pending: tuple[int, Any] | None = None
    self._recent: collections.deque[float] = collections.deque(maxlen=_RECENT)
    self._line: list[Timed] = []
    self._since, self._waited = now(), 0.0
    self.ended = 0  # the last step that is known to have

  def next(self, stream: Iterator[Any]) -> Any:
    """The next batch; how long it took to come is noted."""
    began = self._now()
    batch = next(stream)
    self._waited += self._now() - began
    return batch

  def handed_over(self, step: int, results: Any) -> None:
    """Waits for the step before; `results` are arrays that this one makes."""
    self.settle()
    self._pending = step, results

  def settle(self) -> None:
    """Waits for the last step that was handed over."""
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

  @contextlib.contextmanager
  def pause(self) -> Iterator[None]:
    """What is done inside is no part of any step."""
    self.settle()
    try:
      yield
    finally:
      self._since, self._waited = self._now(), 0.0

  def values(self, batch_size: int) -> dict[str, float]:
    """Scalars of the steps since the last call, of which there are some."""
    self.settle()
    steps, self._line = self._line, []
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
    if one.seconds > max(_TIMES * median, median + _AT_LEAST_S):
      self._say(
        f'slow: step {one.step} took {one.seconds:.2f} s, '
        f'{one.seconds / median:.0f} times the median; '
        f'{one.waited:.2f} s of it waiting for images'
      )
