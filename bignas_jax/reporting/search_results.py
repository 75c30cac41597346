"""What a search found, in pictures and as lists of children."""

from collections.abc import Sequence
from typing import NamedTuple

from bignas_jax.costs import latency
from bignas_jax.reporting import contents, formats, plots
from bignas_jax.reporting.run_files import RunFiles
from bignas_jax.runs.archive import Entry
from bignas_jax.spaces import presets
from bignas_jax.spaces.arch import Arch
from bignas_jax.strategies import problem


class Compared(NamedTuple):
  """Holds accuracies of a child with statistics of its own and of others."""

  name: str
  macs: contents.Number
  top1: tuple[contents.Number, ...]  # with its own, with borrowed, with none


def pictures(run: RunFiles) -> dict[str, str]:
  """Draws what searches found; a picture without any points is ''."""
  entries, table = run.entries, run.table
  return {
    'pareto': _pareto(run) if entries else '',
    'latency': _by_latency(run, table) if entries and table else '',
    'history': _history(run) if entries else '',
    'prediction': _prediction(run.predictor),
    'calibration': _calibration(run.calibration),
  }


def front_picture(entries: Sequence[Entry], best: Sequence[Entry]) -> str:
  """Draws an archive, its front and what a search chose."""
  groups: dict[str, list] = {}
  for entry in entries:
    groups.setdefault(entry.strategy, []).append(_point(entry))
  front = problem.front([_point(entry) for entry in entries])
  return plots.pareto(groups, front, {'best': [*map(_point, best)]})


def _pareto(run: RunFiles) -> str:
  """Draws accuracy against cost of all children that were evaluated."""
  groups: dict[str, list] = {}
  for entry in run.entries:
    groups.setdefault(entry.strategy, []).append(_point(entry))
  by_arch = {entry.arch: entry for entry in run.entries}
  marked = {
    ', '.join(names): [_point(by_arch[arch])]
    for arch, names in _names(run).items()
    if arch in by_arch
  }
  limit = _limit(run, 'max_macs')
  best = [_point(entry) for entry in front(run)]
  return plots.pareto(groups, best, marked, limit and limit / 1e6)


def _names(run: RunFiles) -> dict[Arch, list[str]]:
  """Names the chosen, the extracted and the published children."""
  names: dict[Arch, list[str]] = {}
  if run.best_arch is not None:
    names[run.best_arch] = ['best of the last search']
  for child in run.children:
    names.setdefault(child.arch, []).append(f'extracted as {child.name}')
  for name, preset in presets.of_space(run.space.name).items():
    names.setdefault(preset.arch, []).append(name)
  return names


def _by_latency(run: RunFiles, table: latency.Table) -> str:
  """Draws accuracy against predicted latency, and what was timed."""
  points = {
    entry.arch: (table.predict(entry.arch), 100 * entry.top1)
    for entry in run.entries
    if entry.arch.resolution in table.resolutions
  }
  groups: dict[str, list] = {}
  for entry in run.entries:
    if entry.arch in points:
      groups.setdefault(entry.strategy, []).append(points[entry.arch])
  return plots.pareto(
    groups,
    problem.front(list(points.values())),
    _timed(run, table, points),
    _limit(run, 'max_latency_ms'),
    'milliseconds a batch',
  )


def _timed(
  run: RunFiles, table: latency.Table, points: dict[Arch, tuple[float, float]]
) -> dict[str, plots.Points]:
  """Returns where named children are predicted, and where they were timed."""
  timed = {
    child.arch: contents.measured_ms(child.measured, table.about)
    for child in run.children
  }
  marked: dict[str, plots.Points] = {}
  for arch, names in _names(run).items():
    if arch in points:
      marked[', '.join(names)] = [points[arch]]
      ms = timed.get(arch)
      if ms is not None:
        marked[f'{names[-1]}: timed'] = [(ms, points[arch][1])]
  return marked


def _limit(run: RunFiles, name: str) -> float | None:
  """Returns a limit of the last search, if it had that one."""
  return formats.number(run.best.limits.get(name)) if run.best else None


def _history(run: RunFiles) -> str:
  """Draws what searches tried, in the order of their evaluations."""
  entries = sorted(run.entries, key=lambda entry: entry.order)
  groups: dict[str, list] = {}
  best: list[tuple[float, float]] = []
  for i, entry in enumerate(entries, start=1):
    point = (i, entry.top1 * 100)
    groups.setdefault(entry.strategy, []).append(point)
    if not best or point[1] > best[-1][1]:
      best.append(point)
  best.append((len(entries), best[-1][1]))
  return plots.history(groups, best)


def _prediction(predictor: contents.Predictor | None) -> str:
  """Draws how well accuracies are predicted, if a predictor was used."""
  pairs = (
    zip(predictor.predicted, predictor.measured, strict=False)
    if predictor
    else ()
  )
  complete = [(x, y) for x, y in pairs if x is not None and y is not None]
  points = [(100 * x, 100 * y) for x, y in complete]
  labels = 'predicted top-1, %', 'measured top-1, %'
  return plots.agreement(points, *labels) if points else ''


def compared(calibration: contents.Calibration) -> list[Compared]:
  """Returns accuracies of the children in `calibration.json`."""
  rows = []
  for child in calibration.children:
    other = child.uncalibrated
    borrowed = None if child.name == calibration.lender else other.borrowed
    top1 = (child.calibrated, borrowed, other.initial)
    rows.append(Compared(child.name or '?', child.macs, top1))
  return rows


def _calibration(calibration: contents.Calibration | None) -> str:
  """Draws what calibration changes, if it was compared."""
  if calibration is None or not calibration.children:
    return ''
  columns = ('calibrated', f'borrowed from {calibration.lender}', 'initial')
  groups: dict[str, dict[str, float | None]] = {}
  for child in compared(calibration):
    numbers = map(formats.number, child.top1)
    percents = [None if x is None else 100 * x for x in numbers]
    groups[child.name] = dict(zip(columns, percents, strict=True))
  return plots.bars(groups, 'top-1, %')


def front(run: RunFiles) -> list[Entry]:
  """Returns the children than which none is both cheaper and better."""
  points = [(entry.macs, entry.top1, entry) for entry in run.entries]
  return [entry for *_, entry in problem.front(points)]


def _point(entry: Entry) -> tuple[float, float]:
  """Returns M MACs and top-1 in percent."""
  return entry.macs / 1e6, entry.top1 * 100
