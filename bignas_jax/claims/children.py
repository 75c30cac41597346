"""Children of an arm's supernet: their accuracies, and the chosen one."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from etils import epath

from bignas_jax.claims.verdicts import (
  BIGGEST,
  CHOSEN,
  OF_RANDOM_SEARCH,
  RANDOM,
  SMALLEST,
  TIMES,
  UNCALIBRATED,
)
from bignas_jax.costs import counting, limits
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import restore
from bignas_jax.runs.config import Config
from bignas_jax.selection import extraction
from bignas_jax.selection import search as search_lib
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.supernet import evaluation
from bignas_jax.system import console, files
from bignas_jax.values import errors, schema

# In a run's work directory: accuracies, the results of searches, the package.
MEASURED, SEARCHED = 'children.json', 'searches.json'
PACKAGE = 'children/chosen'


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Measured:
  """What is read of both files."""

  top1: dict[str, Annotated[float, schema.Meta(ge=0, le=1)]]
  arch: dict[str, Any] | None = None


def _read(path: epath.Path) -> _Measured:
  with errors.within(path):
    fields = files.read_json(path)
    return schema.convert(_Measured, fields, 'a result', others=True)


def read(workdir: epath.Path) -> dict[str, float] | None:
  """Returns accuracies by the names of measurements; None: not finished.

  Raises:
    UserError: a file is damaged; names it.
  """
  if not (workdir / MEASURED).is_file():
    return None
  top1 = dict(_read(workdir / MEASURED).top1)
  if is_searched(workdir):
    top1 |= _read(workdir / SEARCHED).top1
  return top1


def is_searched(workdir: epath.Path) -> bool:
  """Returns whether a supernet's searches are finished."""
  return (workdir / SEARCHED).is_file()


def chosen(workdir: epath.Path, config: Config) -> Arch:
  """Returns the child that coarse-to-fine selection chose in a supernet.

  Args:
    workdir: work directory of the supernet, which was searched.
    config: config of the baseline.
  """
  path = workdir / SEARCHED
  with errors.within(path):
    return arch_lib.from_dict(config_lib.space(config), _read(path).arch)


def measure(
  workdir: epath.Path, archs: Sequence[Arch], data: str, uncalibrated: bool
) -> dict[str, Any]:
  """Returns test accuracies of a supernet's children.

  Args:
    workdir: work directory of the supernet.
    archs: random children.
    data: directory of the images.
    uncalibrated: whether each child is also measured with the batch-norm
      statistics of the biggest one.

  Returns:
    A dict with `top1`, accuracies by the names of measurements, in which the
    random children are one by their mean; and `random`, the accuracy of each.
  """
  run, evaluator = _opened(workdir, data, archs)
  space, params = run.model.space, run.params
  ends = arch_lib.biggest(space), arch_lib.smallest(space)
  borrowed = evaluator.calibrate(params, ends[0]) if uncalibrated else None
  own, others = [], []
  with console.Progress('evaluate', len(ends) + len(archs)) as bar:
    for arch in (*ends, *archs):
      own.append(evaluator.score(params, arch).top1)
      if uncalibrated:
        others.append(evaluator.evaluate(params, borrowed, arch).top1)
      bar.advance(len(own))
  top1 = {BIGGEST: own[0]}
  for values, suffix in (own, ''), (others, UNCALIBRATED):
    if values:
      top1[SMALLEST + suffix] = values[1]
      top1[RANDOM + suffix] = float(np.mean(values[2:]))
  return {'top1': top1, RANDOM: own[2:]}


def search(workdir: epath.Path, config: Config, seed: int) -> None:
  """Searches a supernet coarse to fine and at random, and slices a child.

  Both searches have the same limit, halfway between the multiply-adds of the
  smallest and of the biggest child. Children are chosen by held-out images and
  measured on test images.

  Args:
    workdir: work directory of the supernet.
    config: config of the baseline.
    seed: seed of the searches.
  """
  data, space = config.data.directory, config_lib.space(config)
  limit = limits.from_dict({'max_macs': _halfway(space)})
  asked = {'seed': seed}
  first = search_lib.search(workdir, 'coarse_to_fine', limit, asked, data=data)
  asked = {'seed': seed, 'evaluations': TIMES * first['evaluated']}
  other = search_lib.search(workdir, 'random', limit, asked, data=data)
  archs = [arch_lib.from_dict(space, one['arch']) for one in (first, other)]
  text = arch_lib.to_json(archs[0])
  extraction.extract(workdir, text, workdir / PACKAGE, data=data)
  run, evaluator = _opened(workdir, data, archs)
  names = CHOSEN, CHOSEN + OF_RANDOM_SEARCH
  scores = [evaluator.score(run.params, arch).top1 for arch in archs]
  about = {
    name: {key: one[key] for key in ('arch', 'macs', 'top1', 'evaluated')}
    for name, one in zip(names, (first, other), strict=True)
  }
  result = {
    'arch': first['arch'],
    'top1': dict(zip(names, scores, strict=True)),
    'held_out': about,
  }
  files.write_json(workdir / SEARCHED, files.finite(result))


def _halfway(space: Space) -> int:
  """Returns the mean of the biggest and the smallest child's multiply-adds."""
  ends = arch_lib.smallest(space), arch_lib.biggest(space)
  return sum(counting.cost(space, arch).macs for arch in ends) // 2


def _opened(
  workdir: epath.Path, data: str, archs: Sequence[Arch]
) -> tuple[restore.Run, evaluation.Evaluator]:
  """Returns a run, and an evaluator of children on its test images."""
  run = restore.load(workdir, data)
  evaluator = restore.evaluator(
    run.config, run.model, run.splits, run.splits.test
  )
  ends = arch_lib.biggest(run.model.space), arch_lib.smallest(run.model.space)
  evaluator.compile({arch.resolution for arch in (*ends, *archs)})
  return run, evaluator
