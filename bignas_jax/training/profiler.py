"""Profiles of chosen steps, in the directory that TensorBoard's plugin reads.

A profile holds the time of every operation, and the programs, whose operations
are named by child and module: `biggest/.../stage1`.
"""

import jax
from etils import epath


class Profiler:
  """A profiler that writes captures to `WORKDIR/plugins/profile/step_N`.

  Args:
    workdir: directory of the run.
    at: steps at which captures begin; a step that falls into another capture is
      skipped.
    steps: number of steps in a capture.
  """

  def __init__(self, workdir: epath.Path, at: tuple[int, ...], steps: int):
    self._workdir, self._at, self._steps = workdir, at, steps
    self._first: int | None = None  # of the running capture

  def begins(self, step: int) -> bool:
    """Returns whether to call `start` before this step."""
    return self._first is None and step in self._at

  def ends(self, step: int) -> bool:
    """Returns whether to call `stop` after this step."""
    return self._first is not None and step >= self._first + self._steps - 1

  def start(self, step: int) -> None:
    """Starts a capture; the devices should be idle."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # every call of Python slows a step down
    options.session_id = f'step_{step}'
    jax.profiler.start_trace(self._workdir, profiler_options=options)
    self._first = step

  def stop(self) -> str:
    """Ends the capture; returns a line for a person that names its path."""
    path = self._workdir / 'plugins' / 'profile' / f'step_{self._first}'
    self._first = None
    jax.profiler.stop_trace()
    return f'profile: {path}'

  def close(self) -> None:
    """Ends a capture that is still running."""
    if self._first is not None:
      self.stop()
