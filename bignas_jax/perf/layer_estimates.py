"""Estimates by the TPU compiler of how long workloads take, without a TPU."""

import functools
from collections.abc import Mapping

import jax
import numpy as np

from bignas_jax.deploy import stablehlo
from bignas_jax.estimates import chips, compiler_reports, duration, plan
from bignas_jax.perf.workloads import Workload
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.system import xla
from bignas_jax.values import errors


def check(topology: str) -> None:
  """Raises UserError if the topology is unknown or libtpu is missing."""
  chips.of(topology)
  plan.topology_mesh(topology)


def milliseconds(
  topology: str, batch: int, workloads: Mapping[str, Workload]
) -> dict[str, float]:
  """Estimates the milliseconds of each workload without measuring anything.

  Args:
    topology: a topology such as `v5e:2x2`; the estimate is for one device of
      it.
    batch: batch size, images.
    workloads: workloads by name.

  Raises:
    UserError: the topology is unknown, or the batch does not fit the memory.
  """
  chip = chips.of(topology)
  mesh = mesh_lib.create(list(plan.topology_mesh(topology).devices.flat[:1]))

  def lower(workload: Workload):
    images = jax.ShapeDtypeStruct((batch, *workload.shape), np.float32)
    arguments = mesh_lib.described(
      mesh, (workload.params, images), mesh_lib.REPLICATED
    )
    run = functools.partial(workload.run, stablehlo.Jax())
    return jax.jit(run).lower(*arguments)

  with xla.programs_not_kept():
    reports = xla.compile_all(
      {
        name: functools.partial(lower, workload)
        for name, workload in workloads.items()
      },
      lambda name, lowered: compiler_reports.find(name, lowered, mesh),
    )
  for report in reports.values():
    if report.peak_bytes is None:
      allowed = f'one that fits {topology}: {report.problem}'
      raise errors.UserError('--batch', batch, allowed)
  return {
    name: 1e3 * duration.of_program(report, chip)
    for name, report in reports.items()
  }
