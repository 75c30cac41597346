"""Wall-clock timing of several programs on a machine that others use too.

The programs take turns, so that a disturbance affects all of them.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

_VISIT_S = 0.005  # a short program is run several times in a row
_MOST = 20


def interleave(
  runs: Mapping[Any, Callable[[], Any]], rounds: int
) -> dict[Any, list[float]]:
  """Times each run of each program, until its results are there.

  Each visit begins with a run that is not measured, because the other programs
  have evicted this one's data from the CPU caches. A program that is served
  alone finds its own data there.

  Args:
    runs: functions by name, each of which starts a program and returns its
      arrays.
    rounds: measured visits to each program, after one round that warms up.

  Returns:
    The milliseconds of each measured run, by name of the program.
  """
  milliseconds: dict[Any, list[float]] = {name: [] for name in runs}
  for number in range(rounds + 1):
    for name, run in runs.items():
      took = _once(run)
      times = 1 if number == 0 else _times(took)
      visit = [1e3 * _once(run) for _ in range(times)]
      if number > 0:
        milliseconds[name] += visit
  return milliseconds


def _times(took: float) -> int:
  return int(min(_MOST, max(2, _VISIT_S / took)))


def _once(run: Callable[[], Any]) -> float:
  began = time.perf_counter()
  jax.block_until_ready(run())
  return time.perf_counter() - began


def back_to_back(
  runs: Mapping[str, Callable[[], Any]], rounds: int
) -> dict[str, float]:
  """Times programs that are started again before their results are there.

  An accelerator then never waits for the next program to be started, as in a
  training step, whose programs are started long before they run.

  Args:
    runs: functions by name, each of which starts a program and returns its
      arrays.
    rounds: measured visits to each program.

  Returns:
    Seconds of one run of each program, the median of the visits.
  """
  seconds: dict[str, list[float]] = {name: [] for name in runs}
  for run in runs.values():
    _once(run)  # it may be compiled only now
  times = {name: _times(_once(run)) for name, run in runs.items()}
  for _ in range(rounds):
    for name, run in runs.items():
      began = time.perf_counter()
      jax.block_until_ready([run() for _ in range(times[name])])
      took = time.perf_counter() - began
      seconds[name].append(took / times[name])
  return {name: statistics.median(values) for name, values in seconds.items()}
