"""From a trained supernet to child packages, and back to accuracies."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

import bignas_jax
from bignas_jax import arch as arch_lib
from bignas_jax import child as child_lib
from bignas_jax import (
  cluster,
  counting,
  errors,
  evaluation,
  folding,
  metrics,
  nested,
  presets,
  sharding,
  sources,
  supernet,
  trained,
  training,
)
from bignas_jax import config as config_lib
from bignas_jax import data as data_lib
from bignas_jax import (
  workdir as workdir_lib,
)
from bignas_jax.arch import Arch
from bignas_jax.child import Child
from bignas_jax.config import Config
from bignas_jax.model import Model
from bignas_jax.space import Space

TOLERANCE = 1e-4  # of logits, between the supernet and the child
_PARITY_IMAGES = 256
SPLITS = ('test', 'held_out')


def choose(workdir: epath.Path, space: Space, text: str) -> Arch:
  """`best`, or what `presets.parse` reads.

  The best of the last search; a run of one network needs none.
  """
  if text == 'best' and arch_lib.is_one(space):
    text = 'biggest'
  if text != 'best':
    return presets.parse(space, text)
  path = workdir / 'search' / 'best.json'
  if not path.is_file():
    raise errors.UserError(
      '--arch', 'best', f'a searched run; there is no {path}'
    )
  return presets.parse(space, path.read_text())


def extract(
  workdir: epath.Path, text: str, out: epath.Path, *, fold: bool = False
) -> Child:
  """Writes a child package, verified before it is written.

  Args:
    workdir: of a trained run.
    text: which child, see `choose`.
    out: the package's directory.
    fold: fold batch norms into the kernels before them.

  Raises:
    UserError: no such child or run; or the child, on its own, does not
      compute what the supernet computes within TOLERANCE; or several
      processes do this.
  """
  cluster.refuse('extract')
  child_lib.check_place(out)
  config = workdir_lib.load_config(workdir)
  arch = choose(workdir, config_lib.space(config), text)
  run = trained.load(workdir)
  model = run.model
  inside = training.evaluator(config, model, run.splits, run.splits.test)
  stats = inside.calibrate(run.params, arch)
  sliced = jax.device_get(
    supernet.slice_child(
      model.space, {'params': run.params, 'batch_stats': stats}, arch
    )
  )
  network = arch_lib.pin(model.space, arch)
  batches = _batches(config, model, run.splits, 'test')
  alone = evaluation.Evaluator(model, [], batches, arch)
  difference = _difference(
    (inside, run.params, stats), (alone, *_arrays(sliced)), arch
  )
  if fold:
    kept = network, sliced
    network, sliced = folding.fold(*kept)
    # In float32, which children are evaluated in, whatever the run's type.
    before, alone = (
      evaluation.Evaluator(_alone(model, space), [], batches, arch)
      for space in (kept[0], network)
    )
    difference += _difference(
      (before, *_arrays(kept[1])), (alone, *_arrays(sliced)), arch
    )
  if not difference <= TOLERANCE:
    raise errors.UserError(
      '--arch', text, f'a child within {TOLERANCE}; it is off by {difference}'
    )
  measured = {
    'batch_norm': 'folded' if fold else 'kept',
    'accuracy': alone.evaluate(*_arrays(sliced), arch)._asdict()
    | {'split': 'test'},
    'parity': {'max_abs_diff': difference, 'images': _PARITY_IMAGES},
    'source': {
      'step': run.step,
      'config_sha256': config_lib.sha256(config),
      'version': bignas_jax.__version__,
    },
  }
  info = _info(config, model, arch) | measured
  info['class_names'] = list(run.splits.train.classes)
  child = Child(arch, network, sliced, info)
  child_lib.save(out, child)
  whole = 'trained network' if arch_lib.is_one(model.space) else 'supernet'
  metrics.say(f'wrote {out}: equal to the {whole} within {difference:.1e}')
  return child


def _info(config: Config, model: Model, arch: Arch) -> dict[str, Any]:
  """What `child.json` says of a child before it is measured."""
  cost = counting.cost(model.space, arch)
  return {
    'space': model.space.name,
    'arch': arch_lib.to_dict(arch),
    'input': {
      'resolution': arch.resolution,
      'channels': model.space.channels,
      'mean': model.mean,
      'std': model.std,
      'image_size': model.image_size,
    },
    'classes': model.space.classes,
    'macs': cost.macs,
    'params': cost.params,
    'calibration': {
      'images': config.calibration.images,
      'seed': config.calibration.seed,
    },
    'data': config_lib.to_dict(config)['data'],
  }


def _arrays(variables: supernet.Variables):
  return variables['params'], variables['batch_stats']


def _alone(model: Model, space: Space) -> Model:
  """The model of a child that has left its run."""
  return dataclasses.replace(model, space=space, dtype=jnp.float32)


def _difference(one, other, arch: Arch) -> float:
  """Largest difference of logits on real images.

  Args:
    one: an evaluator, and the params and statistics to hand it.
    other: likewise.
    arch: of both.
  """
  worst, seen = 0.0, 0
  for batch in one[0].split:
    ours, theirs = (
      evaluator.logits(params, stats, batch, arch)
      for evaluator, params, stats in (one, other)
    )
    worst = max(worst, float(np.abs(np.subtract(ours, theirs)).max()))
    seen += len(ours)
    if seen >= _PARITY_IMAGES:
      break
  return worst


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
  arch = choose(workdir, space, text)
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


def _batches(config, model, splits, split):
  return data_lib.eval_batches(
    choose_split(splits, split),
    config.data,
    batch_size=config.eval_batch_size,
    resolution=model.image_size,
  )
