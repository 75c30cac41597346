"""Accuracies of child packages, and of children inside their supernet."""

from typing import Any

import jax
from etils import epath

from bignas_jax.data import identity, pipeline, sources
from bignas_jax.deploy import package
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import directory as directory_lib
from bignas_jax.runs import restore
from bignas_jax.selection import extraction
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.supernet import evaluation
from bignas_jax.supernet.model import Model
from bignas_jax.system import cluster, mesh, xla
from bignas_jax.training import loop
from bignas_jax.values import errors

SPLITS = ('test', 'held_out')


def evaluate_child(
  directory: epath.Path, split: str, data: str = ''
) -> dict[str, Any]:
  """Accuracy of a child package on a split of the data it was made with.

  Args:
    directory: of the package.
    split: one of SPLITS.
    data: where its data are now, or others to test it on; '': where they were.
  """
  cluster.refuse('evaluate --child')
  child = package.load(directory)
  package.check_complete(directory, child)
  info = child.info
  check_split(split)
  opened = identity.of_child(info, data, split)
  model = Model(
    space=child.space,
    where=mesh.mesh(jax.devices()[:1]),
    mean=tuple(info['input']['mean']),
    std=tuple(info['input']['std']),
    image_size=info['input']['image_size'],
  )
  batches = pipeline.eval_batches(
    getattr(opened.splits, split),
    opened.data,
    batch_size=256,
    resolution=model.image_size,
  )
  alone = evaluation.Evaluator(model, [], batches, child.arch)
  with xla.exact_products():
    variables = child.variables
    score = alone.evaluate(
      variables['params'], variables['batch_stats'], child.arch
    )
  result = {
    'child': str(directory),
    'split': split,
    'calibration': info['calibration'],
  }
  if opened.differs:
    result['data_differs'] = opened.differs
  return result | score._asdict()


def evaluate_in_supernet(
  workdir: epath.Path, text: str, split: str, data: str = ''
) -> dict[str, Any]:
  """Accuracy of a child inside its supernet, calibrated on the way.

  Also with the biggest child's statistics in place of its own, which shows
  what calibration is for.

  Args:
    workdir: of a trained run.
    text: which child, see `extraction.choose`.
    split: one of SPLITS.
    data: where the run's data are now; '': where they were.
  """
  cluster.join()
  space = config_lib.space(directory_lib.load_config(workdir))
  arch = extraction.choose(workdir, space, text)
  cluster.same('--arch', text, (arch, split))
  check_split(split)
  run = restore.load(workdir, data)
  config = run.config
  evaluator = loop.evaluator(
    config, run.model, run.splits, getattr(run.splits, split)
  )
  score = evaluator.score(run.params, arch)
  borrowed = evaluator.calibrate(run.params, arch_lib.biggest(space))
  return {
    'arch': arch_lib.to_dict(arch),
    'split': split,
    'calibration': {
      'images': config.calibration.images,
      'seed': config.calibration.seed,
    },
    'uncalibrated_top1': evaluator.evaluate(run.params, borrowed, arch).top1,
  } | score._asdict()


def check_split(name: str) -> None:
  """Raises UserError unless there is such a split."""
  if name not in SPLITS:
    raise errors.UserError('--split', name, errors.one_of(SPLITS, name))


def choose_split(splits: sources.Splits, name: str) -> sources.Source:
  """The images of `test` or `held_out`; UserError for another name."""
  check_split(name)
  return getattr(splits, name)
