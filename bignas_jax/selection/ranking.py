"""How well indicators rank the children of a supernet.

The truth is how accurate children are when each is trained alone, from random
weights. What costs nothing to know, multiply-adds and parameters, is always
compared, too: an indicator that ranks no better says nothing of its own.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from etils import epath

from bignas_jax.costs import counting
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import directory as directory_lib
from bignas_jax.runs import restore
from bignas_jax.runs.config import Config
from bignas_jax.selection import (
  indicators,
  questions,
  rank_correlation,
  trained_alone,
)
from bignas_jax.selection.trained_alone import Recipe
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.strategies import additive
from bignas_jax.system import cluster, console, files
from bignas_jax.training import recovery
from bignas_jax.values import errors, schema

FOLDER = 'ranking'  # of the lines and the runs of children alone
Count = Annotated[int, schema.Meta(ge=3, le=1000)]  # of children
_TRIES = 100  # draws for each child that is wanted


def rank(
  workdir: epath.Path,
  *,
  children: int,
  steps: int | None = None,
  rate: float | None = None,
  seed: int = 0,
  data: str = '',
) -> dict[str, Any]:
  """Measures how well each indicator ranks random children, by Kendall's tau.

  Children that were trained alone before are not trained again.

  Args:
    workdir: work directory of a trained supernet.
    children: number of random children.
    steps: number of steps that each child is trained alone; None: the
      supernet's.
    rate: peak of the learning rate then; None: the supernet's.
    seed: seed of the children.
    data: where the run's data are now; '': the data are where they were.

  Returns:
    The contents of `ranking.json`.

  Raises:
    UserError: there is no such run; its space has too few children; the
      supernet trains some parameters only, whose rate is none for all of them;
      or several processes run this.
  """
  cluster.refuse('benchmark ranking')
  config = directory_lib.load_config(workdir)
  space = config_lib.space(config)
  archs = drawn(space, children, seed)
  recipe = recipe_of(config, steps, rate)
  files.check_file(workdir / directory_lib.RANKING, 'workdir')
  directory = workdir / FOLDER
  again = f'benchmark ranking --workdir={workdir}'
  with (
    recovery.full_disk_as_failed(workdir, again),
    questions.alone(directory, 'benchmark ranking'),
  ):
    run = restore.load(workdir, data)
    rows = measured(run, archs)
    alone = trained_alone.accuracies(directory, run.config, archs, recipe)
    result = {
      'step': run.step,
      'children': [
        {
          'arch': arch_lib.to_dict(arch),
          'macs': int(row['macs']),
          'params': int(row['params']),
          'top1': top1,
          'indicators': row,
        }
        for arch, row, top1 in zip(archs, rows, alone, strict=True)
      ],
      'n': children,
      'seed': seed,
      'steps': recipe.steps,
      'rate': recipe.rate,
      'images': len(run.splits.test),
      'level': rank_correlation.LEVEL,
      'resamples': rank_correlation.RESAMPLES,
      'indicators': correlations(rows, alone, seed),
    }
    files.write_json(workdir / directory_lib.RANKING, result)
  return files.finite(result)


def drawn(space: Space, children: int, seed: int) -> list[Arch]:
  """Returns different random children.

  A smaller number of children with the same seed gives the first of them.

  Raises:
    UserError: the space has too few children.
  """
  most = arch_lib.count(space)
  rng, archs = arch_lib.generator(seed), {}
  for _ in range(_TRIES * children):
    if len(archs) < children:
      archs[arch_lib.sample(space, rng)] = None
  if len(archs) < children:
    raise errors.UserError(
      '--children', children, f'fewer; the space has {most:,}'
    )
  return list(archs)


def measured(run: restore.Run, archs: Sequence[Arch]) -> list[dict[str, float]]:
  """Returns all indicators of each child by name.

  `calibrated_top1` is the accuracy in the supernet on held-out images;
  `batch_norm_scales`, the sum of `indicators.batch_norm_scales`, is there where
  operations have parameters of their own; `macs` and `params` are costs.
  """
  space, params = run.model.space, run.params
  shares = None
  if indicators.has_operations(space):
    shares = indicators.batch_norm_scales(space, params)
  evaluator = restore.evaluator(
    run.config, run.model, run.splits, run.splits.held_out
  )
  evaluator.compile({arch.resolution for arch in archs})
  rows = []
  with console.Progress('evaluate', len(archs)) as bar:
    for arch in archs:
      row = {'calibrated_top1': evaluator.score(params, arch).top1}
      if shares is not None:
        row['batch_norm_scales'] = additive.predict(space, shares, arch)
      cost = counting.cost(space, arch)
      rows.append(row | {'macs': cost.macs, 'params': cost.params})
      bar.advance(len(rows))
  return rows


def correlations(
  rows: Sequence[dict[str, float]], alone: Sequence[float], seed: int
) -> dict[str, dict[str, float | None]]:
  """Returns `rank_correlation.kendall` of each indicator, by its name."""
  return {
    name: rank_correlation.kendall([row[name] for row in rows], alone, seed)
    for name in rows[0]
  }


def recipe_of(config: Config, steps: int | None, rate: float | None) -> Recipe:
  """Returns how children are trained alone; None: as the supernet was.

  Raises:
    UserError: no rate is given, and the supernet's is for some parameters only.
  """
  trains = config.optimizer.trains
  if rate is None and trains != 'all':
    allowed = f'a number; the supernet trains {trains} only, by its own rate'
    raise errors.UserError('--rate', rate, allowed)
  return Recipe(steps or config.steps, rate or config.schedule.peak)
