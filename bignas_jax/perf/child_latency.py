"""How long a child takes on this machine, as it is served."""

import statistics
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from bignas_jax.deploy import graph, package
from bignas_jax.perf import engines, timing, workloads
from bignas_jax.reporting import contents
from bignas_jax.spaces import arch, latency
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
  """Times a child package: batch norms folded, all shapes static.

  Args:
    directory: of the child.
    batches: images at once.
    names: of runtimes.
    rounds: visits to each program, in turn, after one that warms up.
    keep: write the result beside the child, as `latency.MEASURED`.

  Returns:
    `rows`: for each runtime and batch, the device that computed, the median
    and the 90th percentile of the times of one batch, the fastest, how many
    were taken, and `images_per_s` by the median.

  Raises:
    UserError: of the package, a runtime, or one that is not installed; the
      result is to be kept where nothing can be written.
  """
  cluster.refuse('benchmark child')
  if keep:
    _check_place(directory / latency.MEASURED)
  engines.check(names)
  loaded = package.load(directory)
  piece = workloads.of_network(graph.network(loaded))
  runs = {
    (name, batch): engines.prepare(name, {0: piece}, batch)[0].start
    for name in names
    for batch in batches
  }
  found = timing.in_turn(runs, rounds)
  result = {
    'child': str(directory),
    'arch': arch.to_dict(loaded.arch),
    'macs': loaded.info.get('macs'),
    'rows': [
      {'runtime': name, 'device': device(name), 'batch': batch}
      | summary(found[name, batch], batch)
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
  """Raises UserError if a result cannot be written there, or over another."""
  if not path.parent.is_dir():
    allowed = 'a directory that can be written to'
    raise errors.UserError('--child', str(path.parent), allowed)
  files.check_writable(path, '--child')
  older = contents.read(path, contents.Measured)
  if older is not None and older.rows is None:
    allowed = 'a result of `benchmark child --keep`, or no such file'
    raise errors.UserError(str(path), 'another file', allowed)


def summary(times: Sequence[float], batch: int) -> dict[str, float]:
  """Of milliseconds that a batch took."""
  median = statistics.median(times)
  return {
    'median_ms': median,
    'p90_ms': float(np.quantile(times, 0.9)),
    'least_ms': min(times),
    'runs': len(times),
    'images_per_s': 1e3 * batch / median,
  }


def device(name: str) -> str:
  """What computes in a runtime: a CPU's model, or what JAX calls it."""
  found = jax.devices()[0]
  on_cpu = name == 'onnx' or found.platform == 'cpu'
  return hardware.cpu() if on_cpu else found.device_kind
