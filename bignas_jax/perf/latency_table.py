"""Builds a latency table, and says how far its predictions are off.

Children that the error is reported of take no part in making the table: other
children, as few, decide the three numbers of its fit.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from etils import epath

from bignas_jax.perf import (
  child_latency,
  engines,
  part_estimates,
  timing,
  workloads,
)
from bignas_jax.perf.workloads import Piece
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import latency, latency_tables
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.latency import Part
from bignas_jax.spaces.space import Space
from bignas_jax.system import console, files, locks, process, storage
from bignas_jax.values import errors

Measure = Callable[[Mapping[str, Piece]], dict[str, float]]
# Of many runs: what they take on a machine that does nothing else, or now.
STATISTICS = {'least': np.min, 'median': np.median}
_AT_ONCE = 48  # parts that are compiled, run in turn and written
_DRAWS = 30  # for each child wanted, before giving up


class Wanted(NamedTuple):
  """What table is to be built.

  Attributes:
    space: whose.
    resolutions: of its children, pixels.
    about: what the file says of how it was made (`latency.Table`).
    children: that the error is reported of.
    fitted: other children, that parts are fitted to.
    seed: of both.
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
  """Builds the table of a space on this machine, or of a TPU's compiler.

  Args:
    space: whose.
    path: of the table; what is there already is kept.
    resolutions: of the space, pixels.
    batch: images.
    runtime: that computes, if there is no topology.
    rounds: visits to each program, in turn.
    statistic: of their times, one of `STATISTICS`.
    children: by chance, that the error is reported of.
    fitted: other ones, that sums of parts are fitted to.
    seed: of children.
    topology: such as `v5e:2x2`: estimates of one of its devices.

  Returns:
    See `build`.
  """
  for resolution in resolutions:
    if resolution not in space.resolution:
      allowed = f'some of {", ".join(map(str, space.resolution))}'
      raise errors.UserError('--resolutions', resolution, allowed)
  about: dict[str, Any] = {'batch': batch, 'estimate': topology is not None}
  if topology is not None:
    part_estimates.check(topology)
    measure = functools.partial(part_estimates.milliseconds, topology, batch)
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
  """Milliseconds on this machine, of runs in turn."""

  def measure(wanted: Mapping[str, Piece]) -> dict[str, float]:
    runs = engines.prepare(name, wanted, batch)
    found = timing.in_turn({n: run.start for n, run in runs.items()}, rounds)
    return {
      called: float(STATISTICS[statistic](ms)) / runs[called].repeats
      for called, ms in found.items()
    }

  return measure


def build(path: epath.Path, wanted: Wanted, measure: Measure) -> dict[str, Any]:
  """Measures parts, then children; writes the table as it goes.

  Args:
    path: of the table. Parts that it holds are kept.
    wanted: what it is to hold.
    measure: from pieces to milliseconds.

  Returns:
    The table's `about`; `parts`, their number, and how many were `kept`; the
    `fit`; `children`, each with `predicted_ms` and `measured_ms`, or
    `estimated_whole_ms` of a compiler; and of these
    the `median_error` and `p90_error`, relative, and the rank correlation.

  Raises:
    UserError: something else is there, nothing can be written, another process
      builds it, or children are too few.
  """
  files.check_file(path, '--out')
  with _alone(path):
    return _build(path, wanted, measure)


@contextlib.contextmanager
def _alone(path: epath.Path) -> Iterator[None]:
  """Keeps other processes from building the same table."""
  if not storage.in_bucket(path):
    path.parent.mkdir(parents=True, exist_ok=True)
  allowed = f'a place where no other process builds {path.name}'
  with locks.hold(path.parent / f'.{path.name}.lock', '--out', allowed):
    yield


def _build(path: epath.Path, wanted: Wanted, measure: Measure):
  space = wanted.space
  fitted, evaluated = children(wanted)
  found = _kept(path, wanted)
  kept = len(found)
  _measure_parts(path, wanted, measure, found)
  every = {f'child {i}': arch for i, arch in enumerate(fitted + evaluated)}
  console.say(f'{len(every)} children')
  ms = measure(
    {called: workloads.of_child(space, arch) for called, arch in every.items()}
  )
  whole = {arch: ms[called] for called, arch in every.items()}
  fit = fit_to(space, found, {arch: whole[arch] for arch in fitted})
  _write(path, wanted, found, fit)
  table = latency_tables.load(path, space)
  report = errors_of(table, {arch: whole[arch] for arch in evaluated})
  _write(path, wanted, found, fit, {'evaluation': report})
  least, most = table.least(), table.most()
  return {
    'out': str(path),
    'space': space.name,
    **wanted.about,
    'resolutions': list(wanted.resolutions),
    'parts': len(found),
    'kept': kept,
    'fit': fit._asdict() | {'children': len(fitted)},
    'least_ms': least[0],
    'most_ms': most[0],
    **report,
  }


def children(wanted: Wanted) -> tuple[list[Arch], list[Arch]]:
  """Different ones by chance: to fit, and to report the error of."""
  rng = np.random.default_rng(wanted.seed)
  number = wanted.fitted + wanted.children
  found: dict[Arch, None] = {}
  for _ in range(_DRAWS * number):
    if len(found) < number:
      arch = arch_lib.sample(wanted.space, rng)
      if arch.resolution in wanted.resolutions:
        found[arch] = None
  if len(found) < number:
    allowed = f'at most {max(0, len(found) - wanted.fitted)} in this space'
    raise errors.UserError('--children', wanted.children, allowed)
  every = list(found)
  return every[: wanted.fitted], every[wanted.fitted :]


def fit_to(
  space: Space, parts_ms: Mapping[Part, float], whole: Mapping[Arch, float]
) -> latency.Fit:
  """What makes sums of parts these children's latencies.

  Least squares of the relative errors. What a part takes is less than what its
  program takes, so that the number added to each may be negative.
  """
  rows = []
  for arch, ms in whole.items():
    own = [parts_ms[part] for part in latency.parts(space, arch)]
    rows.append(np.array([1, len(own), sum(own)]) / ms)
  found, *_ = np.linalg.lstsq(np.array(rows), np.ones(len(rows)))
  return latency.Fit(*map(float, found))


def errors_of(
  table: latency.Table, whole: Mapping[Arch, float]
) -> dict[str, Any]:
  """Predictions against these children's latencies."""
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


def _measure_parts(path, wanted: Wanted, measure: Measure, found) -> None:
  """Adds to `found` what is missing, some at a time, in no order."""
  listed = latency.all_parts(wanted.space, wanted.resolutions)
  missing = [part for part in listed if part not in found]
  # So that a minute in which the machine is slow is no stage's.
  order = np.random.default_rng(wanted.seed).permutation(len(missing))
  for start in range(0, len(missing), _AT_ONCE):
    some = [missing[i] for i in order[start : start + _AT_ONCE]]
    ms = measure(workloads.of_parts(wanted.space, some))
    found |= {part: ms[latency.name(wanted.space, part)] for part in some}
    _write(path, wanted, found, None)
    console.say(f'{len(found)} of {len(listed)} parts')


def _kept(path: epath.Path, wanted: Wanted) -> dict[Part, float]:
  """Parts that an earlier build has measured in the same way."""
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
    return latency_tables.known(fields, wanted.space, wanted.resolutions)


def _write(path, wanted: Wanted, found, fit, more=None) -> None:
  space, resolutions = wanted.space, wanted.resolutions
  latency_tables.save(path, space, resolutions, wanted.about, found, fit, more)
