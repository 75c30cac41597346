"""Selecting children of a trained supernet: work directory to archive."""

import functools
import time
from typing import Any, NamedTuple

from etils import epath

from bignas_jax import arch as arch_lib
from bignas_jax import (
  backend,
  checkpoint,
  cluster,
  counting,
  errors,
  evaluation,
  files,
  metrics,
  plots,
  process,
  selection,
  sharding,
  sources,
  supernet,
  training,
)
from bignas_jax import config as config_lib
from bignas_jax import (
  workdir as workdir_lib,
)
from bignas_jax.arch import Arch
from bignas_jax.archive import Archive, Entry
from bignas_jax.config import Config
from bignas_jax.model import Model
from bignas_jax.selection import Limits

STRATEGIES = ('coarse_to_fine', 'random')


class Run(NamedTuple):
  """A trained supernet, ready to be used."""

  config: Config
  model: Model
  splits: sources.Splits
  step: int
  params: Any


def load(workdir: epath.Path) -> Run:
  """Reads the newest checkpoint's parameters (the averaged ones, if kept).

  Raises:
    UserError: the directory is not a trained run's.
  """
  config = workdir_lib.load_config(workdir)
  backend.keep_programs(workdir / 'compiled')
  model = config_lib.model(config)
  like = sharding.described(
    model.where, supernet.shapes(model.space), sharding.REPLICATED
  )
  name = 'ema' if config.ema_decay > 0 else 'params'
  step, params = checkpoint.restore_params(workdir, like, name)
  splits = sources.load(config.data, model.space.channels)
  return Run(config, model, splits, step, params)


def search(
  workdir: epath.Path, strategy: str, limits: Limits
) -> dict[str, Any]:
  """Finds the most accurate child within the limits.

  Scores are top-1 on the images held out from training; what an interrupted
  search evaluated is looked up in the archive.

  Args:
    workdir: of a trained run.
    strategy: one of STRATEGIES.
    limits: on cost.

  Returns:
    The contents of `search/best.json`.

  Raises:
    UserError: no child can satisfy the limits, or workdir is not a run's.
  """
  if strategy not in STRATEGIES:
    raise errors.UserError(
      '--strategy', strategy, errors.one_of(STRATEGIES, strategy)
    )
  cluster.join()
  config = workdir_lib.load_config(workdir)
  space = config_lib.space(config)
  cost = functools.cache(functools.partial(counting.cost, space))
  selection.check_limits(limits, cost, space)
  archive = Archive(workdir / 'search' / 'archive.csv', space)
  # Processes that look up different children evaluate different ones.
  asked = strategy, limits, archive.entries
  cluster.same('search', (strategy, limits), asked)
  scorer = _Scorer(load(workdir), archive, strategy)
  scorer.evaluator.compile(space.resolution)
  with metrics.Progress(strategy, scorer.expected(config)) as progress:
    scorer.progress = progress
    _select(config.search, strategy, space, scorer, limits, cost)
  best = max(scorer.seen, key=lambda e: (e.top1, -e.macs))
  result = {
    'strategy': strategy,
    'limits': limits.__dict__,
    'split': 'held_out',
    'evaluated': len(scorer.seen),
    'seconds': round(scorer.seconds, 1),
  } | best._asdict()
  result['arch'] = arch_lib.to_dict(best.arch)
  worth = calibration(scorer, best.arch)
  if process.leads():
    directory = workdir / 'search'
    files.write_json(directory / 'best.json', result)
    files.write_json(directory / 'calibration.json', worth)
    picture = picture_of(archive.entries, {'best': [best]})
    (directory / 'pareto.svg').write_text(picture)
  return result


def _select(config, strategy, space, scorer, limits, cost) -> None:
  fits = lambda arch: limits.fit(cost(arch))  # noqa: E731
  if strategy == 'random':
    return selection.random(
      space, scorer, fits, evaluations=config.evaluations, seed=config.seed
    )
  return selection.coarse_to_fine(
    space,
    scorer,
    fits,
    lambda arch: cost(arch).macs,
    grid=selection.coarse_grid(
      space, config.depth_presets, config.width_presets, config.kernel_presets
    ),
    mutants=config.mutants,
    mutation=config.mutation,
    seed=config.seed,
  )


class _Scorer:
  """score(arch): looks up, or calibrates and evaluates, and archives."""

  def __init__(self, run: Run, archive: Archive, strategy: str):
    self.run, self._archive, self._strategy = run, archive, strategy
    self.evaluator = training.evaluator(
      run.config, run.model, run.splits, run.splits.held_out
    )
    self._known = {entry.key(): entry for entry in archive.entries}
    self.seen: list[Entry] = []
    self.seconds = 0.0
    self.progress: metrics.Progress | None = None

  def expected(self, config: Config) -> int:
    if self._strategy == 'random':
      return config.search.evaluations
    grid = selection.coarse_grid(
      config_lib.space(config),
      config.search.depth_presets,
      config.search.width_presets,
      config.search.kernel_presets,
    )
    return len(grid) + config.search.mutants

  def __call__(self, arch: Arch) -> float:
    run, images = self.run, len(self.run.splits.held_out)
    calibration = run.config.calibration.images
    key = (arch, images, calibration, run.step)
    entry = self._known.get(key)
    if entry is None:
      began = time.monotonic()
      score = self.evaluator.score(run.params, arch)
      self.seconds += time.monotonic() - began
      cost = counting.cost(run.model.space, arch)
      entry = Entry(
        arch,
        cost.macs,
        cost.params,
        score.top1,
        score.images,
        calibration,
        len(self._archive.entries),
        self._strategy,
        run.step,
      )
      self._archive.append(entry)
      self._known[key] = entry
    self.seen.append(entry)
    if self.progress is not None:
      self.progress.advance(len(self.seen))
    return entry.top1


def calibration(scorer: _Scorer, best: Arch) -> dict[str, Any]:
  """What calibration is worth, for `search/calibration.json`.

  The biggest, the smallest and the best child with their own statistics, with
  those of an untrained batch norm, and with the biggest child's.
  """
  space = scorer.run.model.space
  evaluator, params = scorer.evaluator, scorer.run.params
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
