"""How a training step grows: with devices, the batch and the resolution."""

import dataclasses
import statistics
import time
from collections.abc import Sequence
from typing import Any

import jax

from bignas_jax.methods import programs, sampling, step
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
    space: whose children are trained; all of one resolution.
    devices: numbers of them.
    batches: images, on all devices together.
    resolutions: pixels.
    dtype: of activations.
    rounds: measured steps; the median is reported.

  Returns:
    `rows`: for each combination `devices`, `batch`, `resolution`; `compile_s`
    of all programs; `peak_bytes` of the largest program on one device;
    `step_s`; `images_per_s`.

  Raises:
    UserError: fewer devices, or a batch that they cannot share.
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
        rows.append(of | _measure(setup, rounds))
        console.say(str(rows[-1]))
  kind = there[0].device_kind
  return {'device': kind, 'space': space.name, 'dtype': dtype, 'rows': rows}


def _measure(setup: step.Setup, rounds: int) -> dict[str, Any]:
  images = step_time.random_batch(setup)
  began = time.perf_counter()
  compiled = programs.compile_all(programs.all_programs(setup))
  compile_s = time.perf_counter() - began
  state = step_time.first_state(setup)
  seconds = []
  for number in range(rounds + 1):
    children = sampling.Sandwich()(setup.model.space, 0, number)
    began = time.perf_counter()
    state, measured = programs.step(setup, compiled, state, images, children)
    jax.block_until_ready((state, measured))
    seconds.append(time.perf_counter() - began)
  step_s = statistics.median(seconds[1:])
  return {
    'compile_s': compile_s,
    'peak_bytes': max(map(xla.peak_bytes, compiled.values())),
    'step_s': step_s,
    'images_per_s': setup.batch_size / step_s,
  }
