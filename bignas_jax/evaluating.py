"""Accuracies of child packages, and of children inside their supernet."""

from typing import Any

import jax
from etils import epath

from bignas_jax import arch as arch_lib
from bignas_jax import (
  backend,
  cluster,
  errors,
  evaluation,
  extraction,
  nested,
  sharding,
  sources,
  trained,
  training,
)
from bignas_jax import child as child_lib
from bignas_jax import config as config_lib
from bignas_jax import data as data_lib
from bignas_jax import workdir as workdir_lib
from bignas_jax.model import Model

SPLITS = ('test', 'held_out')


def evaluate_child(directory: epath.Path, split: str) -> dict[str, Any]:
  """Accuracy of a child package on a split of the data it was made with."""
  cluster.refuse('evaluate --child')
  child = child_lib.load(directory)
  info = child.info
  data = nested.build(sources.Data, info['data'])
  source = choose_split(sources.load(data, info['input']['channels']), split)
  model = Model(
    space=child.space,
    where=sharding.mesh(jax.devices()[:1]),
    mean=tuple(info['input']['mean']),
    std=tuple(info['input']['std']),
    image_size=info['input']['image_size'],
  )
  batches = data_lib.eval_batches(
    source, data, batch_size=256, resolution=model.image_size
  )
  alone = evaluation.Evaluator(model, [], batches, child.arch)
  with backend.exact_products():
    variables = child.variables
    score = alone.evaluate(
      variables['params'], variables['batch_stats'], child.arch
    )
  return {
    'child': str(directory),
    'split': split,
    'calibration': info['calibration'],
  } | score._asdict()


def evaluate_in_supernet(
  workdir: epath.Path, text: str, split: str
) -> dict[str, Any]:
  """Accuracy of a child inside its supernet, calibrated on the way.

  Also with the biggest child's statistics in place of its own, which shows
  what calibration is for.
  """
  cluster.join()
  config = workdir_lib.load_config(workdir)
  space = config_lib.space(config)
  arch = extraction.choose(workdir, space, text)
  cluster.same('--arch', text, (arch, split))
  run = trained.load(workdir)
  evaluator = training.evaluator(
    config, run.model, run.splits, choose_split(run.splits, split)
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


def choose_split(splits: sources.Splits, name: str) -> sources.Source:
  """The images of `test` or `held_out`; UserError for another name."""
  if name not in SPLITS:
    raise errors.UserError('--split', name, errors.one_of(SPLITS, name))
  return getattr(splits, name)
