"""The monitor of a run: lines for a person and scalars for TensorBoard."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from etils import epath

from bignas_jax.costs import counting
from bignas_jax.policies import policies
from bignas_jax.policies.policies import Child
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Config
from bignas_jax.runs.run_card import Card
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.system import console, hardware, process
from bignas_jax.training import profiler
from bignas_jax.training.step_timer import StepTimer

# Prefixes of the scalars of a logged line that are shown to a person.
_SHOWN = ('train/loss_', 'train/top1_', 'train/grad_norm', 'lr', 'images_per_s')
_NOT_SHOWN = ('train/grad_norm_',)


def overview(config: Config) -> str:
  """Returns a few lines that say what will be trained."""
  space = config_lib.space(config)
  lines = [f'space {space.name}: {arch_lib.count(space):,} children']
  if arch_lib.is_one(space):
    lines = [f'one network of space {space.name}, called biggest']
  fixed = policies.evaluated(config_lib.policy(config), space)
  for role, arch in fixed.items():
    cost = counting.cost(space, arch)
    lines.append(
      f'  {role:8} {arch.resolution:4} px {cost.macs / 1e6:10.2f} M MACs '
      f'{cost.params / 1e6:8.3f} M parameters'
    )
  lines.append(
    f'{config.steps} steps of {config.batch_size} images on '
    f'{jax.device_count()} {jax.devices()[0].device_kind} device(s), '
    f'{config.dtype}, seed {config.seed}'
  )
  return '\n'.join(lines)


class Monitor:
  """A monitor that times, profiles and reports the steps of a session.

  Args:
    config: config of the run.
    workdir: directory of the run.
    progress: progress bar that is shown.
    card: run card of the run.
    start: step that the session continues from.
  """

  def __init__(
    self,
    config: Config,
    workdir: epath.Path,
    progress: console.Progress,
    card: Card,
    start: int,
  ):
    self._batch_size = config.batch_size
    self._progress, self._card = progress, card
    # One process's profile is that of all: they run the same programs.
    at = config.profile.at if process.leads() else ()
    self._profiler = profiler.Profiler(workdir, at, config.profile.steps)
    self._timer = StepTimer(progress.note, lambda one: card.trained(*one))
    self._timer.ended = start
    card.reached(start, first=start)

  def __enter__(self) -> 'Monitor':
    return self

  def __exit__(self, *exception: object) -> None:
    self._profiler.close()
    self._card.reached(self._timer.ended)

  def next(self, stream: Iterator[Any]) -> Any:
    """Returns the stream's next item; times the wait for its images."""
    return self._timer.next(stream)

  @contextlib.contextmanager
  def step(self, number: int) -> Iterator[None]:
    """Wraps the code that hands a step over to the devices."""
    if self._profiler.begins(number):
      with self._timer.pause():
        self._profiler.start(number)
    with jax.profiler.StepTraceAnnotation('train', step_num=number):
      yield

  def handed_over(self, number: int, measured: Any) -> None:
    """Notes a dispatched step; waits for the one before it (`step_timer`)."""
    self._progress.advance(number)
    self._timer.handed_over(number, measured)
    if self._profiler.ends(number):
      with self._timer.pause():
        self._progress.note(self._profiler.stop())

  @contextlib.contextmanager
  def doing(self, phase: str) -> Iterator[None]:
    """Wraps work between two steps, whose time belongs to no step."""
    shown, spent = self._progress.doing(phase), self._card.doing(phase)
    with self._timer.pause(), shown, spent:
      yield
    self._card.reached(self._timer.ended)

  def line(
    self, number: int, children: list[Child], measured: Any
  ) -> dict[str, float]:
    """Returns the scalars of a logged step; also prints some for a person."""
    values = summary(children, jax.device_get(measured))
    values |= self._timer.values(self._batch_size)
    values |= hardware.memory()
    left = self._progress.left_s()
    if left is not None:
      values['time/left_s'] = float(left)
    self._card.reached(number)
    shown = {
      name: value
      for name, value in values.items()
      if name.startswith(_SHOWN) and not name.startswith(_NOT_SHOWN)
    }
    ending = f', {_duration(left)} left' if left else ''
    self.tell(number, shown, ending)
    return values

  def tell(
    self, number: int, values: dict[str, float], ending: str = ''
  ) -> None:
    """Prints a line for a person."""
    shown = ' '.join(
      f'{name.removeprefix("train/")} {value:.4g}'
      for name, value in values.items()
    )
    self._progress.note(f'step {number}: {shown}{ending}')


def summary(children: list[Child], measured: Any) -> dict[str, float]:
  """Returns a step's metrics: means over the children of each role."""
  *of_children, of_update = measured
  values: dict[str, list[float]] = {}
  for child, numbers in zip(children, of_children, strict=True):
    for name, value in {
      **numbers,
      'resolution': child.arch.resolution,
    }.items():
      if np.ndim(value):
        continue  # for the policy
      values.setdefault(f'train/{name}_{child.role}', []).append(float(value))
  line = {name: float(np.mean(v)) for name, v in values.items()}
  for name, value in of_update.items():
    line[name if name == 'lr' else f'train/{name}'] = float(value)
  return line


def _duration(seconds: float) -> str:
  minutes = round(seconds / 60)
  if minutes < 1:
    return f'{seconds:.0f} s'
  hours, minutes = divmod(minutes, 60)
  return f'{hours} h {minutes} min' if hours else f'{minutes} min'
