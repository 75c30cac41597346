"""Accuracies of child packages, and of children inside their supernet."""

from typing import Any

from etils import epath

from bignas_jax.data import identity, pipeline, sources
from bignas_jax.deploy import package
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import directory as directory_lib
from bignas_jax.runs import restore
from bignas_jax.selection import extraction
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.supernet import evaluation
from bignas_jax.supernet import model as model_lib
from bignas_jax.system import cluster, xla
from bignas_jax.values import errors

SPLITS = ('test', 'held_out')


def evaluate_child(
  directory: epath.Path, split: str, data: str = ''
) -> dict[str, Any]:
  """Evaluates a child package on a split of the data that it was made with.

  Args:
    directory: directory of the package.
    split: name of the split, one of SPLITS.
    data: where the child's data are now, or other data to test it on; '': the
      data are where they were.
  """
  cluster.refuse('evaluate --child')
  child = package.load(directory)
  package.check_complete(directory, child)
  info = child.info
  check_split(split)
  opened = identity.of_child(info, data, split)
  model = model_lib.of_child(child.space, info['input'])
  batches = pipeline.eval_batches(
    getattr(opened.splits, split),
    opened.data,
    batch_size=256,
    resolution=model.image_size,
  )
  alone = evaluation.Evaluator(model, [], batches)
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
  """Evaluates a calibrated child inside its supernet.

  The child is also evaluated with the biggest child's statistics instead of its
  own, which shows the effect of calibration.

  Args:
    workdir: work directory of a trained run.
    text: name of the child, as `extraction.choose` reads it.
    split: name of the split, one of SPLITS.
    data: where the run's data are now; '': the data are where they were.
  """
  cluster.join()
  space = config_lib.space(directory_lib.load_config(workdir))
  arch = extraction.choose(workdir, space, text)
  cluster.same('--arch', text, (arch, split))
  check_split(split)
  run = restore.load(workdir, data)
  config = run.config
  evaluator = restore.evaluator(
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
  """Raises UserError if there is no split of this name."""
  if name not in SPLITS:
    raise errors.UserError('--split', name, errors.one_of(SPLITS, name))


def choose_split(splits: sources.Splits, name: str) -> sources.Source:
  """Returns the images of the split `test` or `held_out`.

  Raises:
    UserError: there is no split of this name.
  """
  check_split(name)
  return getattr(splits, name)
