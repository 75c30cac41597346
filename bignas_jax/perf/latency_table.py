"""Building a latency table, and measuring the error of its predictions.

The error is reported on children that take no part in making the table. Other
children determine the three numbers of the table's fit.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from etils import epath

from bignas_jax.costs import latency, latency_tables
from bignas_jax.costs.layers import Layer
from bignas_jax.perf import (
  child_latency,
  engines,
  layer_estimates,
  timing,
  workloads,
)
from bignas_jax.perf.workloads import Workload
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.system import console, files, locks, process, storage
from bignas_jax.values import errors

Measure = Callable[[Mapping[str, Workload]], dict[str, float]]
# Of many runs: the time on an idle machine, or on the machine as it is.
STATISTICS = {'least': np.min, 'median': np.median}
_AT_ONCE = 48  # parts that are compiled, timed and written as a group
_DRAWS = 30  # for each child wanted, before giving up


class Wanted(NamedTuple):
  """Description of a table to be built.

  Attributes:
    space: space whose children the table predicts.
    resolutions: resolutions of the children, pixels.
    about: how the table is made, as its file says it (`latency.Table`).
    children: number of children that the error is reported on.
    fitted: number of other children that the fit is made on.
    seed: seed that all these children are drawn with.
  """

  space: Space
  resolutions: tuple[int, ...]
  about: dict[str, Any]
  children: int
  fitted: int
  seed: int


def table(
  space: Space,
  path: epath.Path,
  *,
  resolutions: Sequence[int],
  batch: int,
  runtime: str,
  rounds: int,
  statistic: str,
  children: int,
  fitted: int,
  seed: int,
  topology: str | None,
) -> dict[str, Any]:
  """Builds the table of a space on this machine, or by a TPU's compiler.

  Args:
    space: space whose children the table predicts.
    path: file of the table; parts that it already has are kept.
    resolutions: resolutions of the space to include, pixels.
    batch: batch size, images.
    runtime: runtime that computes, if no topology is given.
    rounds: measured visits to each program; the programs take turns.
    statistic: statistic of a program's times, a key of `STATISTICS`.
    children: number of random children that the error is reported on.
    fitted: number of other random children that the fit is made on.
    seed: seed that the children are drawn with.
    topology: a topology such as `v5e:2x2`, for estimates of one of its devices;
      None: this machine is measured.

  Returns:
    The result of `build`.

  Raises:
    UserError: a resolution, runtime or topology is unknown, or `build` raises
      it.
  """
  for resolution in resolutions:
    if resolution not in space.resolution:
      allowed = f'some of {", ".join(map(str, space.resolution))}'
      raise errors.UserError('--resolutions', resolution, allowed)
  about: dict[str, Any] = {'batch': batch, 'estimate': topology is not None}
  if topology is not None:
    layer_estimates.check(topology)
    measure = functools.partial(layer_estimates.milliseconds, topology, batch)
    about |= {
      'runtime': 'jax',
      'device': f'one device of TPU {topology}, estimated by its compiler',
      'versions': engines.versions('jax')
      | {'libtpu': metadata.version('libtpu')},
    }
  else:
    engines.check([runtime])
    measure = clock(runtime, batch, rounds, statistic)
    about |= {
      'runtime': runtime,
      'device': child_latency.device(runtime),
      'threads': process.cores(),
      'statistic': statistic,
      'rounds': rounds,
      'versions': engines.versions(runtime),
    }
  sizes = tuple(sorted(set(resolutions)))
  wanted = Wanted(space, sizes, about, children, fitted, seed)
  return build(path, wanted, measure)


def clock(name: str, batch: int, rounds: int, statistic: str) -> Measure:
  """Returns a function from workloads to their milliseconds on this machine."""

  def measure(wanted: Mapping[str, Workload]) -> dict[str, float]:
    runs = engines.prepare(name, wanted, batch)
    times = timing.interleave({n: run.start for n, run in runs.items()}, rounds)
    return {
      called: float(STATISTICS[statistic](ms)) / runs[called].repeats
      for called, ms in times.items()
    }

  return measure


def build(path: epath.Path, wanted: Wanted, measure: Measure) -> dict[str, Any]:
  """Measures parts and children, saving the table after each group of parts.

  Args:
    path: file of the table; parts that it already has are kept.
    wanted: what the table is to hold.
    measure: function that returns the milliseconds of workloads, by name.

  Returns:
    A dict with the table's `about`, the numbers of `parts` and of `kept` parts,
    the `fit`, the evaluated `children` with `predicted_ms` and `measured_ms`
    (or a compiler's `estimated_whole_ms`), and their relative `median_error`
    and `p90_error` and their `rank_correlation`.

  Raises:
    UserError: another file is there, nothing can be written, another process
      builds the same table, or the space has too few children.
  """
  files.check_file(path, '--out')
  with _alone(path):
    return _build(path, wanted, measure)


@contextlib.contextmanager
def _alone(path: epath.Path) -> Iterator[None]:
  """Holds a lock that keeps other processes from building the same table."""
  if not storage.in_bucket(path):
    path.parent.mkdir(parents=True, exist_ok=True)
  allowed = f'a place where no other process builds {path.name}'
  with locks.hold(path.parent / f'.{path.name}.lock', '--out', allowed):
    yield


def _build(path: epath.Path, wanted: Wanted, measure: Measure):
  space = wanted.space
  fitted, evaluated = children(wanted)
  measured = _kept(path, wanted)
  kept = len(measured)
  _measure_layers(path, wanted, measure, measured)
  every = {f'child {i}': arch for i, arch in enumerate(fitted + evaluated)}
  console.say(f'{len(every)} children')
  ms = measure(
    {called: workloads.of_child(space, arch) for called, arch in every.items()}
  )
  whole = {arch: ms[called] for called, arch in every.items()}
  fit = fit_to(space, measured, {arch: whole[arch] for arch in fitted})
  _write(path, wanted, measured, fit)
  table = latency_tables.load(path, space)
  report = errors_of(table, {arch: whole[arch] for arch in evaluated})
  _write(path, wanted, measured, fit, {'evaluation': report})
  return {
    'out': str(path),
    'space': space.name,
    **wanted.about,
    'resolutions': list(wanted.resolutions),
    'parts': len(measured),
    'kept': kept,
    'fit': fit._asdict() | {'children': len(fitted)},
    **report,
  }


def children(wanted: Wanted) -> tuple[list[Arch], list[Arch]]:
  """Draws different children: some to fit, others to report the error on.

  Raises:
    UserError: the space has too few children.
  """
  rng = np.random.default_rng(wanted.seed)
  number = wanted.fitted + wanted.children
  archs: dict[Arch, None] = {}
  for _ in range(_DRAWS * number):
    if len(archs) < number:
      arch = arch_lib.sample(wanted.space, rng)
      if arch.resolution in wanted.resolutions:
        archs[arch] = None
  if len(archs) < number:
    allowed = f'at most {max(0, len(archs) - wanted.fitted)} in this space'
    raise errors.UserError('--children', wanted.children, allowed)
  every = list(archs)
  return every[: wanted.fitted], every[wanted.fitted :]


def fit_to(
  space: Space, parts_ms: Mapping[Layer, float], whole: Mapping[Arch, float]
) -> latency.Fit:
  """Fits the three numbers that turn sums of parts into latencies of children.

  The fit is least squares of the relative errors. A layer in a network takes
  less time than its own program, so the number added to each layer may be
  negative.
  """
  rows = []
  for arch, ms in whole.items():
    own = [parts_ms[layer] for layer in latency.measured(space, arch)]
    rows.append(np.array([1, len(own), sum(own)]) / ms)
  solution, *_ = np.linalg.lstsq(np.array(rows), np.ones(len(rows)))
  return latency.Fit(*map(float, solution))


def errors_of(
  table: latency.Table, whole: Mapping[Arch, float]
) -> dict[str, Any]:
  """Compares the table's predictions with the latencies of these children."""
  truth = 'estimated_whole_ms' if table.estimate else 'measured_ms'
  rows = [
    {
      'predicted_ms': table.predict(arch),
      truth: ms,
      'arch': arch_lib.to_dict(arch),
    }
    for arch, ms in whole.items()
  ]
  predicted = np.array([row['predicted_ms'] for row in rows])
  measured = np.array([row[truth] for row in rows])
  relative = np.abs(predicted - measured) / measured
  order: Any = scipy.stats.spearmanr(predicted, measured)
  return {
    'children': rows,
    'median_error': float(np.median(relative)),
    'p90_error': float(np.quantile(relative, 0.9)),
    'rank_correlation': float(order.statistic),
  }


def _measure_layers(path, wanted: Wanted, measure: Measure, measured) -> None:
  """Measures the parts that `measured` lacks, in random order and in groups."""
  listed = latency.all_layers(wanted.space, wanted.resolutions)
  missing = [layer for layer in listed if layer not in measured]
  # A slow minute of the machine must not fall on one stage alone.
  order = np.random.default_rng(wanted.seed).permutation(len(missing))
  for start in range(0, len(missing), _AT_ONCE):
    some = [missing[i] for i in order[start : start + _AT_ONCE]]
    ms = measure(workloads.of_layers(wanted.space, some))
    measured |= {layer: ms[latency.name(layer)] for layer in some}
    _write(path, wanted, measured, None)
    console.say(f'{len(measured)} of {len(listed)} parts')


def _kept(path: epath.Path, wanted: Wanted) -> dict[Layer, float]:
  """Returns the parts that an earlier build measured in the same way."""
  if not path.is_file():
    return {}
  fields, _ = latency_tables.read(path, wanted.space)
  for key, value in wanted.about.items():
    if key == 'rounds' and key not in fields:
      continue  # older tables do not say
    if fields.get(key) != value:
      allowed = f'{value!r}, as here and now, or another --out'
      raise errors.UserError(f'{path}: {key}', fields.get(key), allowed)
  with errors.within(path):
    return latency_tables.milliseconds(fields, wanted.space, wanted.resolutions)


def _write(path, wanted: Wanted, measured, fit, more=None) -> None:
  space, sizes = wanted.space, wanted.resolutions
  latency_tables.save(path, space, sizes, wanted.about, measured, fit, more)
