"""Memory and time that a run would need on a TPU pod, from the TPU compiler.

Every program of the run's steps is compiled for the topology, on a machine
without TPUs, to learn whether it fits the memory and how long a run would take.
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

from bignas_jax.estimates import chips, compiler_reports, duration
from bignas_jax.estimates.compiler_reports import Report
from bignas_jax.methods import loss_graph, programs
from bignas_jax.methods.teaching import PACKAGE
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Config
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning
from bignas_jax.system import console, xla
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.values import errors

# For libtpu on a machine without TPUs: it asks no metadata server for them,
# and several processes may load it.
ENVIRONMENT = {
  'TPU_SKIP_MDS_QUERY': '1',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'TPU_MIN_LOG_LEVEL': '3',
}


def plan(config: Config, topology: str) -> dict[str, Any]:
  """Compiles every program of a step, and reports its memory and time.

  Args:
    config: checked config of the run.
    topology: a topology such as `v3:8x8`.

  Returns:
    A dict with `fits`, whether every program fits the memory; `programs`, each
    with seconds to compile, whether its report was kept from an earlier time,
    peak bytes, FLOPs, bytes moved and estimated seconds; estimated seconds of a
    step and hours of the run; the `assumptions`; and `largest_batch_size` if
    the programs do not fit.

  Raises:
    UserError: the topology is unknown, or its devices cannot share the batch.
  """
  chip, mesh = chips.of(topology), topology_mesh(topology, config.layout)
  reports = _compile(config, mesh)
  fits = all(_fits(report, chip) for report in reports.values())
  of_time = reports | _alone(config, mesh) if fits else {}
  seconds = duration.seconds(config, chip, of_time)
  step = duration.step_seconds(config, seconds)
  result = {
    'topology': topology,
    'devices': mesh.size,
    'batch_size': config.batch_size,
    'programs': [
      {
        'name': name,
        'compile_s': report.compile_s,
        'kept': report.kept,
        'peak_bytes': report.peak_bytes,
        'hbm_bytes': chip.hbm_bytes,
        'flops': report.flops,
        'bytes': report.bytes,
        'estimated_s': seconds.get(name),
      }
      | ({'problem': report.problem} if report.problem else {})
      for name, report in reports.items()
    ],
    'fits': fits,
    'estimated_step_s': step,
    'estimated_hours': None if step is None else step * config.steps / 3600,
    'assumptions': list(duration.ASSUMPTIONS),
  }
  if not fits:
    worst = max(reports, key=lambda name: _memory(reports[name]))
    result['largest_batch_size'] = _largest(config, chip, mesh, worst)
  return result


def topology_mesh(topology: str, layout: mesh_lib.Layout | None = None) -> Mesh:
  """Returns the mesh of a pod that is only described, on a machine without it.

  Raises:
    UserError: libtpu does not know the topology, or is not installed.
  """
  for name, value in ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  try:
    described = topologies.get_topology_desc(
      platform='tpu', topology_name=topology
    )
  except RuntimeError as error:  # JAX's own are RuntimeErrors too
    reason = str(error).strip().splitlines()[0]
    if 'not installed' in reason:
      allowed = 'any, once the extra `tpu` is installed (docs/cloud_tpu.md)'
    else:
      allowed = f'one that libtpu knows, such as v3:8x8 or v5e:4x4 ({reason})'
    raise errors.UserError('--topology', topology, allowed) from None
  return mesh_lib.create(described.devices, layout)


def _compile(config: Config, mesh: Mesh, only: str = '') -> dict[str, Report]:
  """Returns reports on a step's programs, with what lies beside in memory."""
  listed = programs.all_programs(config_lib.setup(config, mesh))
  beside = _bystanders(listed)
  lower = programs.lowering([p for p in listed if only in ('', p.name)])
  with xla.programs_not_kept():
    reports = xla.compile_all(
      lower, lambda name, lowered: compiler_reports.find(name, lowered, mesh)
    )
  return {
    p.name: _beside(reports[p.name], beside[p.name])
    for p in listed
    if p.name in reports
  }


def _alone(config: Config, mesh: Mesh) -> dict[str, Report]:
  """Returns the report on the biggest child, if a step has no static child.

  It is no program of the run, and tells only how long children take.
  """
  if config_lib.policy(config).static:
    return {}
  console.say('the biggest child alone, to estimate the time of a step:')
  reports = _compile(_biggest(config), mesh, only='biggest')
  return {duration.ALONE: reports['biggest']}


def _biggest(config: Config) -> Config:
  """Returns the config of a run that trains the biggest child alone."""
  space = config_lib.space(config)
  return dataclasses.replace(
    config,
    space=pinning.pin(space, arch_lib.biggest(space)),
    policy='alone',
    rule=loss_graph.alone(config.rule, 'biggest'),
  )


def _bystanders(listed: list[programs.Program]) -> dict[str, int]:
  """Returns the bytes that lie in a device's memory beside each program.

  These are the part of the state and of teaching packages that the program is
  not given, and a whole copy of the state: the state of the step before may
  still be on its way to the disk.
  """
  state, *_ = listed[-1].arguments
  teach = [p.arguments[0] for p in listed if p.name.startswith(PACKAGE)]
  beside = {}
  for program in listed:
    given = {id(leaf) for leaf in jax.tree.leaves(program.arguments)}
    rest = [x for x in jax.tree.leaves((state, teach)) if id(x) not in given]
    beside[program.name] = _bytes(rest) + _bytes(state)
  return beside


def _bytes(described: Any) -> int:
  """Returns the bytes that described arrays take on one device."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(described)
  )


def _beside(report: Report, others: int) -> Report:
  if report.peak_bytes is None:
    return report
  return dataclasses.replace(report, peak_bytes=report.peak_bytes + others)


def _memory(report: Report) -> float:
  """Returns a program's peak bytes, or infinity if it did not fit."""
  return math.inf if report.peak_bytes is None else report.peak_bytes


def _fits(report: Report, chip: chips.Chip) -> bool:
  return _memory(report) <= chip.hbm_bytes


def _largest(config: Config, chip: chips.Chip, mesh: Mesh, name: str) -> int:
  """Returns the largest batch with which the most demanding program fits, or 0.

  Memory grows linearly with images once there are several. The batch is halved
  until it fits, and then extrapolated along the line through two batches that
  do.
  """

  def smaller(images: int) -> Config:
    return dataclasses.replace(config, batch_size=images * mesh.size)

  def peak(images: int) -> int | None:
    report = _compile(smaller(images), mesh, only=name)[name]
    return report.peak_bytes if _fits(report, chip) else None

  possible = [
    images
    for images in range(1, config.batch_size // mesh.size)
    if mesh_lib.can_share(config_lib.batches(smaller(images)), mesh.size)
  ]
  return mesh.size * _aim(peak, chip.hbm_bytes, possible)


def _aim(
  peak: Callable[[int], int | None], memory: int, possible: Sequence[int]
) -> int:
  """Returns the largest number of images that fit the memory, or 0 if none.

  Args:
    peak: function from a number of images to peak bytes; None: too many images.
    memory: memory of a device, bytes.
    possible: ascending numbers of images to choose from, without the number
      that is known not to fit.
  """

  def last(images: float) -> int:
    """Returns the position of the last possible number <= `images`."""
    return bisect.bisect_right(possible, images) - 1

  at, high = len(possible), None
  while high is None:
    if at == 0:
      return 0
    at = min(at - 1, max(last(possible[at - 1] / 2), 0))
    high = peak(possible[at])
  # Without a smaller batch to measure, the line goes through zero.
  images, fewer, low = possible[at], 0, 0
  if (before := last(images / 2)) >= 0:
    fewer = possible[before]
    low = peak(fewer) or 0
  aimed = last(images + (memory - high) * (images - fewer) / (high - low))
  while aimed > at and peak(possible[aimed]) is None:
    aimed -= 1
  return possible[max(aimed, at)]
