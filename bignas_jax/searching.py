"""Searching children of a trained supernet: work directory to archive."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from etils import epath

from bignas_jax import arch as arch_lib
from bignas_jax import (
  cluster,
  coarse_to_fine,
  counting,
  errors,
  evaluation,
  evolution,
  files,
  footprint,
  latency,
  metrics,
  nested,
  nsga2,
  plots,
  predictor,
  presets,
  recovery,
  schema,
  selection,
  trained,
  training,
)
from bignas_jax import config as config_lib
from bignas_jax import (
  limits as limits_lib,
)
from bignas_jax import (
  workdir as workdir_lib,
)
from bignas_jax.arch import Arch
from bignas_jax.archive import Archive, Entry
from bignas_jax.limits import Limits
from bignas_jax.scoring import Basis, Scorer
from bignas_jax.selection import Problem, Search
from bignas_jax.space import Space

# What a cost needs that is not always known.
_MISSING = {'latency_ms': 'such limits with a --latency_table'}
_CURRENT = 'current.json'  # a search that has begun
STRATEGIES: dict[str, Callable[[Problem, Search], None]] = {
  'coarse_to_fine': coarse_to_fine.search,
  'evolution': evolution.search,
  'nsga2': nsga2.search,
  'predictor': predictor.search,
  'random': selection.random,
}


def search(
  workdir: epath.Path,
  strategy: str,
  limits: Limits,
  changes: Mapping[str, Any] | None = None,
  table: latency.Table | None = None,
) -> dict[str, Any]:
  """Finds the most accurate child within the limits.

  Scores are top-1 on the images held out from training; what an interrupted
  search evaluated is looked up in the archive.

  Args:
    workdir: of a trained run.
    strategy: one of STRATEGIES.
    limits: on costs.
    changes: of the config's settings (`selection.Search`).
    table: predicts latency; needed if that is limited.

  Returns:
    The contents of `search/best.json`.

  Raises:
    UserError: no child can satisfy the limits, or workdir is not a run's.
    Failed: the disk is full; what was evaluated is kept.
  """
  cluster.join()
  with recovery.no_room_in_one_line(workdir, 'to go on from the last child'):
    return _search(workdir, strategy, limits, changes, table)


def _search(workdir, strategy, limits, changes, table) -> dict[str, Any]:
  config = workdir_lib.load_config(workdir)
  space = config_lib.space(config)
  settings = _changed(config.search, changes or {})
  costs = footprint.of(space, table and functools.partial(_predicted, table))
  check(strategy, limits, settings, costs(arch_lib.smallest(space)))
  hints = [table.least()[1], table.most()[1]] if table else []
  start = limits_lib.feasible(space, costs, limits, hints)
  directory = workdir / 'search'
  archive = Archive(directory / 'archive.csv', space)
  # Processes that look up different children evaluate different ones.
  asked = {
    'strategy': strategy,
    'limits': limits.to_dict(),
    'settings': nested.plain(settings),
    'latency': table and table.about,
  }
  cluster.same('search', asked, (asked, archive.entries))
  before = _begin(directory, asked, archive)
  fits = lambda arch: limits.fit(costs(arch))  # noqa: E731
  run = trained.load(workdir)
  expected = planned(strategy, space, fits, settings)
  with metrics.Progress(strategy, expected) as bar:
    evaluator = training.evaluator(
      config, run.model, run.splits, run.splits.held_out
    )
    evaluator.compile(space.resolution)
    evaluate = functools.partial(evaluator.score, run.params)
    basis = Basis(run.step, config.calibration.images)
    scorer = Scorer(space, evaluate, archive, basis, strategy, bar)
    known = scorer.known(archive.entries[:before])
    for arch in _published(space):
      if fits(arch):
        scorer(arch)
    problem = Problem(space, scorer, costs, fits, start, known)
    STRATEGIES[strategy](problem, settings)
  best = max(scorer.seen, key=lambda e: (e.top1, -e.macs))
  result = best._asdict() | asked
  result |= {
    'arch': arch_lib.to_dict(best.arch),
    'costs': costs(best.arch),
    'split': 'held_out',
    'evaluated': len(scorer.seen),
    'looked_up': len(scorer.seen) - scorer.evaluated,
    'seconds': round(scorer.seconds, 1),
  }
  worth = calibration(run, evaluator, best.arch)

  def write() -> None:
    files.write_json(directory / 'best.json', result)
    files.write_json(directory / 'calibration.json', worth)
    if strategy == 'predictor':
      quality = predictor.quality(space, scorer.known(archive.entries))
      if quality is not None:
        files.write_json(directory / 'predictor.json', quality)
    picture = picture_of(archive.entries, {'best': [best]})
    files.write_text(directory / 'pareto.svg', picture)
    (directory / _CURRENT).unlink()

  cluster.once(write)  # nobody looks for the best before it is there
  return result


def _predicted(table: latency.Table, arch: Arch) -> float:
  """Milliseconds; for ever, at a resolution of which the table says nothing."""
  known = arch.resolution in table.resolutions
  return table.predict(arch) if known else math.inf


def _changed(settings: Search, changes: Mapping[str, Any]) -> Search:
  known = [field.name for field in dataclasses.fields(Search)]
  for name, value in changes.items():
    if name not in known:
      allowed = f'a setting: {errors.one_of(known, name)}'
      raise errors.UserError(f'search.{name}', value, allowed)
  return schema.check(dataclasses.replace(settings, **changes), 'search')


def planned(
  strategy: str, space: Space, fits: Callable[[Arch], bool], settings: Search
) -> int:
  """How many children the search evaluates at most."""
  first = sum(map(fits, _published(space)))
  if strategy == 'coarse_to_fine':
    return first + coarse_to_fine.planned(space, fits, settings)
  return first + settings.evaluations


def _published(space: Space) -> list[Arch]:
  """The presets of a space: what a search has to beat."""
  named = presets.of_space(space.name).values()
  return [p.arch for p in named if arch_lib.contains(space, p.arch)]


def _begin(
  directory: epath.Path, asked: dict[str, Any], archive: Archive
) -> int:
  """How many children were known when this search began for the first time.

  What is learnt from them must be the same when it goes on.
  """
  path, begun = directory / _CURRENT, None
  if path.is_file():
    begun = files.read_json(path)
  if begun is None or begun.get('asked') != asked:
    begun = {'asked': asked, 'known': len(archive.entries)}

  def write() -> None:
    directory.mkdir(parents=True, exist_ok=True)
    files.write_json(path, begun)

  cluster.once(write)  # by all: one may have read what the first has written
  return begun['known']


def check(
  strategy: str, limits: Limits, settings: Search, costs: Iterable[str]
) -> None:
  """Raises UserError for what a search cannot be asked.

  Args:
    strategy: see `search`.
    limits: likewise.
    settings: of the strategy.
    costs: names of those that are known.
  """
  if strategy not in STRATEGIES:
    allowed = errors.one_of(STRATEGIES, strategy)
    raise errors.UserError('--strategy', strategy, allowed)
  known = list(costs)
  for field, value in limits.to_dict().items():
    name = field.partition('_')[2]
    if name not in known:
      allowed = _MISSING.get(name, f'limits on {errors.one_of(known, name)}')
      raise errors.UserError(f'--{field}', value, allowed)
  for name in settings.objectives:
    if name not in known:
      allowed = _MISSING.get(name, errors.one_of(known, name))
      raise errors.UserError('search.objectives', name, allowed)


def calibration(
  run: trained.Run, evaluator: evaluation.Evaluator, best: Arch
) -> dict[str, Any]:
  """What calibration is worth, for `search/calibration.json`.

  The biggest, the smallest and the best child with their own statistics, with
  those of an untrained batch norm, and with the biggest child's.
  """
  space, params = run.model.space, run.params
  biggest = arch_lib.biggest(space)
  borrowed = evaluator.calibrate(params, biggest)
  initial = evaluation.initial_statistics(borrowed)
  named = {
    'biggest': biggest,
    'smallest': arch_lib.smallest(space),
    'best': best,
  }
  top1 = lambda stats, arch: evaluator.evaluate(params, stats, arch).top1  # noqa: E731
  children = [
    {
      'name': name,
      'arch': arch_lib.to_dict(arch),
      'macs': counting.cost(space, arch).macs,
      'calibrated': top1(evaluator.calibrate(params, arch), arch),
      'uncalibrated': {
        'initial': top1(initial, arch),
        'borrowed': top1(borrowed, arch),
      },
    }
    for name, arch in named.items()
  ]
  for child in children:
    metrics.say(
      '{name}: top-1 {calibrated:.3f} calibrated, '
      '{uncalibrated[initial]:.3f} with initial statistics, '
      '{uncalibrated[borrowed]:.3f} with those of the biggest'.format(**child)
    )
  return {
    'split': 'held_out',
    'borrowed_from': 'biggest',
    'children': children,
  }


def picture_of(entries: list[Entry], marked: dict[str, list[Entry]]) -> str:
  """SVG of the archive, with the front and some children marked."""
  groups: dict[str, list] = {}
  for entry in entries:
    groups.setdefault(entry.strategy, []).append(_point(entry))
  front = selection.front([_point(entry) for entry in entries])
  return plots.pareto(
    groups, front, {k: [_point(e) for e in v] for k, v in marked.items()}
  )


def _point(entry: Entry) -> tuple[float, float]:
  return entry.macs / 1e6, entry.top1 * 100
