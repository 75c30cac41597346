"""Time of a training step by number of devices, batch size and resolution."""

import dataclasses
import statistics
import time
from collections.abc import Sequence
from typing import Any

import jax

from bignas_jax.estimates import compiler_reports
from bignas_jax.methods import programs, step
from bignas_jax.perf import step_time
from bignas_jax.spaces.space import Space
from bignas_jax.system import console, xla
from bignas_jax.values import errors


def scale(
  space: Space,
  *,
  devices: Sequence[int],
  batches: Sequence[int],
  resolutions: Sequence[int],
  dtype: str,
  rounds: int,
) -> dict[str, Any]:
  """Times the sandwich step for each combination.

  Args:
    space: space whose children are trained; in each combination all children
      have the same resolution.
    devices: numbers of devices to try.
    batches: batch sizes to try, images on all devices together.
    resolutions: resolutions to try, pixels.
    dtype: dtype of activations.
    rounds: measured steps, of which the median is reported.

  Returns:
    A dict whose `rows` has, for each combination, `devices`, `batch` and
    `resolution`; `compile_s`, seconds to compile all programs; `peak_bytes` of
    the largest program on one device; `step_s`; and `images_per_s`.

  Raises:
    UserError: the machine has fewer devices, or they cannot share a batch.
  """
  there = jax.devices()
  rows = []
  for number in devices:
    if number > len(there):
      raise errors.UserError('--devices', number, f'at most {len(there)}')
    for batch in batches:
      if batch % number:
        raise errors.UserError('--batch', batch, f'a multiple of {number}')
      for resolution in resolutions:
        of = {'devices': number, 'batch': batch, 'resolution': resolution}
        sized = dataclasses.replace(
          space, resolution=(resolution,), train_resolution=(resolution,)
        )
        setup = step_time.describe(sized, batch, dtype, there[:number])
        rows.append(of | measure(setup, rounds))
        console.say(str(rows[-1]))
  kind = there[0].device_kind
  return {'device': kind, 'space': space.name, 'dtype': dtype, 'rows': rows}


def measure(setup: step.Setup, rounds: int) -> dict[str, Any]:
  """Compiles and times the steps of a setup.

  Args:
    setup: setup of the steps.
    rounds: measured steps, of which the median is reported.

  Returns:
    `compile_s`, `peak_bytes`, `step_s` and `images_per_s`, as in `scale`; and
    `compiler`, the compiler's counts of each program
    (`compiler_reports.counted`), if all children of a step are static.
  """
  images = step_time.random_batch(setup)
  began = time.perf_counter()
  compiled = programs.compile_all(programs.all_programs(setup))
  compile_s = time.perf_counter() - began
  state = step_time.first_state(setup)
  seconds = []
  of_policy = setup.policy.init(0)
  for number in range(rounds + 1):
    children = setup.policy.sample(of_policy, 0, number, None)
    began = time.perf_counter()
    state, measured = programs.step(
      setup, compiled, state, images, children, norms=False
    )
    jax.block_until_ready((state, measured))
    seconds.append(time.perf_counter() - began)
  step_s = statistics.median(seconds[1:])
  row: dict[str, Any] = {
    'compile_s': compile_s,
    'peak_bytes': max(map(xla.peak_bytes, compiled.values())),
    'step_s': step_s,
    'images_per_s': setup.batch_size / step_s,
  }
  # Of a loop, which children that are not static have, the body counts once.
  if {*setup.policy.roles} <= {*setup.policy.static}:
    row['compiler'] = compiler_reports.counted(compiled)
  return row
