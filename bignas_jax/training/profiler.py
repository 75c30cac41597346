"""Profiles of chosen steps, where TensorBoard's profile plugin looks.

A profile holds the time of every operation, and the programs that they are
of, whose operations are named by child and part: `biggest/.../stage1`.
"""

import jax
from etils import epath


class Profiler:
  """Captures `WORKDIR/plugins/profile/step_N`.

  Args:
    workdir: of the run.
    at: steps that captures begin with. One that falls into another is left
      out.
    steps: how many a capture takes.
  """

  def __init__(self, workdir: epath.Path, at: tuple[int, ...], steps: int):
    self._workdir, self._at, self._steps = workdir, at, steps
    self._first: int | None = None  # of the capture that runs

  def begins(self, step: int) -> bool:
    """Whether to `start` before this step."""
    return self._first is None and step in self._at

  def ends(self, step: int) -> bool:
    """Whether to `stop` after this step."""
    return self._first is not None and step >= self._first + self._steps - 1

  def start(self, step: int) -> None:
    """Best when the devices have nothing in hand."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # every call of Python slows a step down
    options.session_id = f'step_{step}'
    jax.profiler.start_trace(self._workdir, profiler_options=options)
    self._first = step

  def stop(self) -> str:
    """Writes what ran since `start`; says where, for a person."""
    path = self._workdir / 'plugins' / 'profile' / f'step_{self._first}'
    self._first = None
    jax.profiler.stop_trace()
    return f'profile: {path}'

  def close(self) -> None:
    """Ends a capture that its steps did not."""
    if self._first is not None:
      self.stop()
