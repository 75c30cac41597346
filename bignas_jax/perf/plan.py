"""What a run would need of a TPU pod, from the TPU compiler alone.

Every program of the run's steps is compiled for the topology, on a machine
without one: does it fit the memory, and how long would the run take?
"""

import bisect
import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from bignas_jax.methods import programs
from bignas_jax.perf import chips, compiler_reports, estimates
from bignas_jax.perf.compiler_reports import Figures
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Config
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.system import xla
from bignas_jax.values import errors

# For libtpu on a machine without TPUs: it asks no metadata server for them,
# and several processes may load it.
ENVIRONMENT = {
  'TPU_SKIP_MDS_QUERY': '1',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'TPU_MIN_LOG_LEVEL': '3',
}


def plan(config: Config, topology: str) -> dict[str, Any]:
  """Compiles every program of a step.

  Args:
    config: of the run, checked.
    topology: such as `v3:8x8`.

  Returns:
    `fits`; programs with seconds to compile, whether that was at an earlier
    time, peak bytes, FLOPs, bytes moved and estimated seconds; seconds a step
    and hours of the run, estimated; `largest_batch_size`, if it does not fit;
    what was assumed.

  Raises:
    UserError: of the topology, or a batch that its devices cannot share.
  """
  chip, where = chips.of(topology), mesh(topology, config.layout)
  compiled = _compile(config, where)
  fits = all(_fits(one, chip) for one in compiled.values())
  seconds = estimates.seconds(config, chip, compiled) if fits else {}
  step = estimates.step_seconds(config, seconds)
  result = {
    'topology': topology,
    'devices': where.size,
    'batch_size': config.batch_size,
    'programs': [
      {
        'name': name,
        'compile_s': one.compile_s,
        'kept': one.kept,
        'peak_bytes': one.peak_bytes,
        'hbm_bytes': chip.hbm_bytes,
        'flops': one.flops,
        'bytes': one.bytes,
        'estimated_s': seconds.get(name),
      }
      | ({'problem': one.problem} if one.problem else {})
      for name, one in compiled.items()
    ],
    'fits': fits,
    'estimated_step_s': step,
    'estimated_hours': None if step is None else step * config.steps / 3600,
    'assumptions': list(estimates.ASSUMPTIONS),
  }
  if not fits:
    worst = max(compiled, key=lambda name: _memory(compiled[name]))
    result['largest_batch_size'] = _largest(config, chip, where, worst)
  return result


def mesh(topology: str, layout: mesh_lib.Layout | None = None) -> Mesh:
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
  return mesh_lib.mesh(described.devices, layout)


def _compile(config: Config, where: Mesh, only: str = '') -> dict[str, Figures]:
  """Figures of a step's programs, with what lies in memory beside them."""
  listed = programs.all_programs(config_lib.setup(config, where))
  beside = _bystanders(listed)
  lower = programs.lowering([p for p in listed if only in ('', p.name)])
  with xla.programs_not_kept():
    found = xla.compile_all(
      lower, lambda name, lowered: compiler_reports.find(name, lowered, where)
    )
  return {
    p.name: _beside(found[p.name], beside[p.name])
    for p in listed
    if p.name in found
  }


def _bystanders(listed: list[programs.Program]) -> dict[str, int]:
  """Returns a device's bytes of what lies beside each program.

  That is the part of the state that it is not given, and a whole copy of the
  state: the step before may have been saved, and be on its way to the disk.
  """
  state, _ = listed[-1].arguments
  given = {programs.START: (), programs.UPDATE: state}
  of_child = state.params, state.step
  return {
    p.name: 2 * _bytes(state) - _bytes(given.get(p.name, of_child))
    for p in listed
  }


def _bytes(described: Any) -> int:
  """On one device."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(described)
  )


def _beside(one: Figures, others: int) -> Figures:
  if one.peak_bytes is None:
    return one
  return dataclasses.replace(one, peak_bytes=one.peak_bytes + others)


def _memory(one: Figures) -> float:
  """Peak bytes; what the compiler refused needs most."""
  return math.inf if one.peak_bytes is None else one.peak_bytes


def _fits(one: Figures, chip: chips.Chip) -> bool:
  return _memory(one) <= chip.hbm_bytes


def _largest(config: Config, chip: chips.Chip, where: Mesh, name: str) -> int:
  """The largest batch with which the program that needs most memory fits.

  Memory grows linearly with images once there are several: halved until it
  fits, then aimed at along the line through two batches that do.
  """

  def smaller(images: int) -> Config:
    return dataclasses.replace(config, batch_size=images * where.size)

  def peak(images: int) -> int | None:
    one = _compile(smaller(images), where, only=name)[name]
    return one.peak_bytes if _fits(one, chip) else None

  possible = [
    images
    for images in range(1, config.batch_size // where.size)
    if mesh_lib.can_share(config_lib.batches(smaller(images)), where.size)
  ]
  return where.size * _aim(peak, chip.hbm_bytes, possible)


def _aim(
  peak: Callable[[int], int | None], memory: int, possible: Sequence[int]
) -> int:
  """Returns the most images whose peak fits the memory; 0: none.

  Args:
    peak: bytes that so many images take; None: more than there are.
    memory: in bytes.
    possible: numbers of images, ascending; one more than the last does not fit.
  """

  def last(images: float) -> int:
    """The position of the last possible number that is not above this."""
    return bisect.bisect_right(possible, images) - 1

  at, high = len(possible), None
  while high is None:
    if at == 0:
      return 0
    at = min(at - 1, max(last(possible[at - 1] / 2), 0))
    high = peak(possible[at])
  images, fewer, low = possible[at], 0, 0  # at worst nothing is fixed
  if (before := last(images / 2)) >= 0:
    fewer = possible[before]
    low = peak(fewer) or 0
  aimed = last(images + (memory - high) * (images - fewer) / (high - low))
  while aimed > at and peak(possible[aimed]) is None:
    aimed -= 1
  return possible[max(aimed, at)]
