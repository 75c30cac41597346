"""Latency of a child package on this machine, in the form that is served."""

import statistics
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from bignas_jax.costs import latency
from bignas_jax.deploy import graph, package
from bignas_jax.perf import engines, timing, workloads
from bignas_jax.reporting import contents
from bignas_jax.spaces import arch
from bignas_jax.system import cluster, files, hardware, process
from bignas_jax.values import errors


def child(
  directory: epath.Path,
  *,
  batches: Sequence[int],
  names: Sequence[str],
  rounds: int,
  keep: bool = False,
) -> dict[str, Any]:
  """Times a child package, with batch norms folded and all shapes static.

  Args:
    directory: directory of the child package.
    batches: batch sizes to time, images.
    names: names of the runtimes to time.
    rounds: measured visits to each program, after one visit that warms up; the
      programs take turns.
    keep: whether to write the result beside the child, as `latency.MEASURED`.

  Returns:
    A dict whose `rows` has, for each runtime and batch size, the device that
    computed, the median, the 90th percentile and the smallest of the times of
    one batch in milliseconds, the number of times taken, and `images_per_s` by
    the median.

  Raises:
    UserError: the package is damaged, a runtime is unknown or not installed, or
      the result is to be kept where it cannot be written.
  """
  cluster.refuse('benchmark child')
  if keep:
    _check_place(directory / latency.MEASURED)
  engines.check(names)
  loaded = package.load(directory)
  workload = workloads.of_network(graph.network(loaded))
  runs = {
    (name, batch): engines.prepare(name, {0: workload}, batch)[0].start
    for name in names
    for batch in batches
  }
  times = timing.interleave(runs, rounds)
  result = {
    'child': str(directory),
    'arch': arch.to_dict(loaded.arch),
    'macs': loaded.info.get('macs'),
    'rows': [
      {'runtime': name, 'device': device(name), 'batch': batch}
      | summary(times[name, batch], batch)
      for name, batch in runs
    ],
    'rounds': rounds,
    'threads': process.cores(),
    'versions': {
      n: v for name in names for n, v in engines.versions(name).items()
    },
  }
  if keep:
    files.write_json(directory / latency.MEASURED, result)
  return result


def _check_place(path: epath.Path) -> None:
  """Raises UserError if the path is not writable or holds a foreign file."""
  if not path.parent.is_dir():
    allowed = 'a directory that can be written to'
    raise errors.UserError('--child', str(path.parent), allowed)
  files.check_writable(path, '--child')
  older = contents.read(path, contents.Measured)
  if older is not None and older.rows is None:
    allowed = 'a result of `benchmark child --keep`, or no such file'
    raise errors.UserError(str(path), 'another file', allowed)


def summary(times: Sequence[float], batch: int) -> dict[str, float]:
  """Returns statistics of the milliseconds that a batch took in each run."""
  median = statistics.median(times)
  return {
    'median_ms': median,
    'p90_ms': float(np.quantile(times, 0.9)),
    'least_ms': min(times),
    'runs': len(times),
    'images_per_s': 1e3 * batch / median,
  }


def device(name: str) -> str:
  """Returns a runtime's device: the CPU model, or what JAX calls it."""
  jax_device = jax.devices()[0]
  on_cpu = name == 'onnx' or jax_device.platform == 'cpu'
  return hardware.cpu() if on_cpu else jax_device.device_kind
