"""What a run would need of a TPU pod, from the TPU compiler alone.

Every program of the run's steps is compiled for the topology, on a machine
without one: does it fit the memory, and how long would the run take?

The compiler counts the body of a loop once and says nothing of the branch
taken, so its time is asked for the biggest child alone, and scaled by
activations: convolutions this thin wait for memory, not for arithmetic.
"""

import dataclasses
import math
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from bignas_jax import arch as arch_lib
from bignas_jax import (
  backend,
  chips,
  counting,
  errors,
  metrics,
  programs,
  sampling,
  sharding,
)
from bignas_jax import config as config_lib
from bignas_jax.arch import Arch
from bignas_jax.config import Config
from bignas_jax.space import Space

# For libtpu on a machine without TPUs: it asks no metadata server for them,
# and several processes may load it.
ENVIRONMENT = {
  'TPU_SKIP_MDS_QUERY': '1',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'TPU_MIN_LOG_LEVEL': '3',
}

# Less than half the time to compile, for the same memory and, within 2 %, the
# same estimates (docs/performance.md).
_OPTIONS = {'exec_time_optimization_effort': -1.0}

_SAMPLES = 1000  # random children that a mean is taken over

ASSUMPTIONS = (
  'compiled with the least optimisation effort',
  'biggest child: seconds of the TPU compiler, or, where it gives none, the '
  'larger of FLOPs / peak and bytes / bandwidth; loops counted once are scaled '
  'by activations',
  'other children: that time by their activations; random ones by the mean '
  f'over {_SAMPLES} samples',
  'input, logging, checkpoints and evaluation: hidden behind the steps',
)


class Compiled(NamedTuple):
  """One program for the topology; bytes, operations and seconds a device."""

  name: str
  compile_s: float
  peak_bytes: int | None  # None: it did not fit
  flops: float
  bytes: float
  seconds: float  # by the compiler; each loop's body once
  problem: str = ''


def plan(config: Config, topology: str) -> dict[str, Any]:
  """Compiles every program of a step.

  Args:
    config: of the run, checked.
    topology: such as `v3:8x8`.

  Returns:
    `fits`; programs with seconds to compile, peak bytes, FLOPs, bytes moved
    and estimated seconds; seconds a step and hours of the run, estimated;
    `largest_batch_size`, if it does not fit; what was assumed.

  Raises:
    UserError: of the topology, or a batch that its devices cannot share.
  """
  chip, where = chips.of(topology), mesh(topology, config.layout)
  compiled = _compile(config, where)
  fits = all(_fits(one, chip) for one in compiled)
  seconds = _estimates(config, chip, compiled) if fits else {}
  step = _step_seconds(config, seconds) if fits else None
  result = {
    'topology': topology,
    'devices': where.size,
    'batch_size': config.batch_size,
    'programs': [
      {
        'name': one.name,
        'compile_s': one.compile_s,
        'peak_bytes': one.peak_bytes,
        'hbm_bytes': chip.hbm_bytes,
        'flops': one.flops,
        'bytes': one.bytes,
        'estimated_s': seconds.get(one.name),
      }
      | ({'problem': one.problem} if one.problem else {})
      for one in compiled
    ],
    'fits': fits,
    'estimated_step_s': step,
    'estimated_hours': None if step is None else step * config.steps / 3600,
    'assumptions': list(ASSUMPTIONS),
  }
  if not fits:
    worst = max(compiled, key=_memory)
    result['largest_batch_size'] = _largest(config, chip, where, worst.name)
  return result


def mesh(topology: str, layout: sharding.Layout | None = None) -> Mesh:
  """The mesh of a pod that is described, not there."""
  for name, value in ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  try:
    described = topologies.get_topology_desc(
      platform='tpu', topology_name=topology
    )
  except RuntimeError as error:  # JAX's own are RuntimeErrors too
    reason = str(error).strip().splitlines()[0]
    if 'not installed' in reason:
      allowed = 'any, once libtpu is installed (see the README)'
    else:
      allowed = f'one that libtpu knows, such as v3:8x8 or v5e:4x4 ({reason})'
    raise errors.UserError('--topology', topology, allowed) from None
  return sharding.mesh(described.devices, layout)


def _compile(config: Config, where: Mesh, only: str = '') -> list[Compiled]:
  listed = programs.all_programs(config_lib.setup(config, where))
  beside = _bystanders(listed)
  lower = programs.lowering([p for p in listed if only in ('', p.name)])
  with backend.programs_not_kept():
    found = backend.compile_all(
      lower, lambda name, lowered: _compile_one(name, lowered, beside)
    )
  return [found[p.name] for p in listed if p.name in found]


def _bystanders(listed: list[programs.Program]) -> int:
  """Bytes of the state that children are not given, but that lies beside."""
  state, _ = listed[-1].arguments
  leaves = jax.tree.leaves((state.opt_state, state.ema))
  return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def _compile_one(name: str, lowered: Any, beside: int) -> Compiled:
  began = time.monotonic()
  try:
    compiled = lowered.compile(_OPTIONS)
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    took, problem = time.monotonic() - began, _first_figures(str(error))
    metrics.say(f'{name}: does not fit: {problem}')
    return Compiled(name, took, None, 0.0, 0.0, 0.0, problem)
  took = time.monotonic() - began
  memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
  peak = (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
    + memory.generated_code_size_in_bytes
    + (0 if name == 'update' else beside)
  )
  metrics.say(f'{name}: compiled in {took:.0f} s, {peak / 2**30:.2f} GiB')
  return Compiled(
    name,
    took,
    peak,
    cost.get('flops', 0.0),
    cost.get('bytes accessed', 0.0),
    cost.get('optimal_seconds', 0.0),
  )


def _first_figures(text: str) -> str:
  """The compiler's line that says how much was wanted of how much."""
  lines = [line.strip() for line in text.splitlines()]
  return next((line for line in lines if 'hbm' in line.lower()), lines[0])


def _memory(one: Compiled) -> float:
  """Peak bytes; what the compiler refused needs most."""
  return math.inf if one.peak_bytes is None else one.peak_bytes


def _fits(one: Compiled, chip: chips.Chip) -> bool:
  return _memory(one) <= chip.hbm_bytes


def _estimates(
  config: Config, chip: chips.Chip, compiled: list[Compiled]
) -> dict[str, float]:
  """Seconds of each program, branches and loops taken into account."""
  space = config_lib.space(config)
  by_name = {one.name: one for one in compiled}
  counted = sum(
    row.cost.activations
    for row in counting.rows(space, arch_lib.biggest(space))
    if not _is_repeated(row.name)
  )
  unit = _seconds(by_name['biggest'], chip) / counted
  found = {'update': _seconds(by_name['update'], chip)}
  for role, make in programs.STATIC.items():
    found[role] = unit * _activations(space, make(space))
  rng = sampling.generator(config.seed)
  sampled = [
    arch_lib.sample(space, rng, training=True) for _ in range(_SAMPLES)
  ]
  for resolution in space.train_resolution:
    found[f'random@{resolution}'] = unit * float(
      np.mean(
        [
          _activations(space, dataclasses.replace(arch, resolution=resolution))
          for arch in sampled
        ]
      )
    )
  return found


def _seconds(one: Compiled, chip: chips.Chip) -> float:
  """By the compiler, where it says anything, or by the roofline."""
  if one.seconds > 0:
    return one.seconds
  return max(one.flops / chip.flops, one.bytes / chip.bandwidth)


def _is_repeated(row: str) -> bool:
  """Whether a loop computes it that was counted with an earlier block."""
  _, is_block, number = row.partition('.block')
  return bool(is_block) and int(number) > 2


def _activations(space: Space, arch: Arch) -> int:
  return counting.cost(space, arch).activations


def _step_seconds(config: Config, seconds: dict[str, float]) -> float:
  space = config_lib.space(config)
  random = np.mean([seconds[f'random@{r}'] for r in space.train_resolution])
  static = sum(seconds[role] for role in programs.STATIC)
  return float(static + config.random_children * random + seconds['update'])


def _largest(config: Config, chip: chips.Chip, where: Mesh, name: str) -> int:
  """The largest batch with which the program that needs most memory fits.

  Memory grows linearly with images once there are several: halved until it
  fits, then aimed at along the line through two batches that do.
  """

  def peak(images: int) -> int | None:
    smaller = dataclasses.replace(config, batch_size=images * where.size)
    (one,) = _compile(smaller, where, only=name)
    return one.peak_bytes if _fits(one, chip) else None

  images = config.batch_size // where.size
  return where.size * _aim(peak, chip.hbm_bytes, images)


def _aim(peak: Callable[[int], int | None], memory: int, too_many: int) -> int:
  """The most images whose peak fits the memory; 0: none."""
  images, high = too_many, None
  while high is None and images > 1:
    images //= 2
    high = peak(images)
  low = peak(images // 2) if images > 1 else None
  if high is None or low is None:
    return 0 if high is None else images
  slope = (high - low) / (images - images // 2)
  aimed = min(int(images + (memory - high) / slope), too_many - 1)
  while aimed > images and peak(aimed) is None:
    aimed -= 1
  return aimed
