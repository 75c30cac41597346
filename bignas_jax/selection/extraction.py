"""From a trained supernet to child packages."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

import bignas_jax
from bignas_jax.data import pipeline, sources
from bignas_jax.deploy import folding, package
from bignas_jax.deploy.package import Child
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import directory, restore
from bignas_jax.runs.config import Config
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import counting, presets
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.supernet import evaluation
from bignas_jax.supernet import network as network_lib
from bignas_jax.supernet.model import Model
from bignas_jax.system import cluster, console, files, xla
from bignas_jax.training import loop
from bignas_jax.values import errors

# Between logits of the supernet and the child, over the largest logit.
TOLERANCE = 1e-4
_PARITY_IMAGES = 256


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
  with errors.within(path):
    return arch_lib.from_dict(space, files.read_json(path).get('arch'))


def extract(
  workdir: epath.Path,
  text: str,
  out: epath.Path,
  *,
  fold: bool = False,
  data: str = '',
) -> Child:
  """Writes a child package, verified before it is written.

  Args:
    workdir: of a trained run.
    text: which child, see `choose`.
    out: the package's directory.
    fold: fold batch norms into the kernels before them.
    data: where the run's data are now; '': where they were.

  Raises:
    UserError: no such child or run; or the child, on its own, does not
      compute what the supernet computes within TOLERANCE; or several
      processes do this.
  """
  cluster.refuse('extract')
  package.check_place(out)
  config = directory.load_config(workdir)
  arch = choose(workdir, config_lib.space(config), text)
  run = restore.load(workdir, data)
  sources.check_classes(run.splits, run.model.space.classes)
  with xla.exact_products():
    child = _verified(run, arch, text, fold)
  package.save(out, child)
  whole = 'trained network' if arch_lib.is_one(run.model.space) else 'supernet'
  difference = child.info['parity']['max_abs_diff']
  console.say(f'wrote {out}: equal to the {whole} within {difference:.1e}')
  return child


def _verified(run: restore.Run, arch: Arch, text: str, fold: bool) -> Child:
  """Cuts a child out, and compares it with the supernet in float32.

  Whatever type the run computed in: rounding to bfloat16 differs between two
  programs by more than a wrong slice may.

  Raises:
    UserError: their logits differ.
  """
  config, model = run.config, dataclasses.replace(run.model, dtype=jnp.float32)
  inside = loop.evaluator(config, model, run.splits, run.splits.test)
  stats = inside.calibrate(run.params, arch)
  sliced = jax.device_get(
    network_lib.slice_child(
      model.space, {'params': run.params, 'batch_stats': stats}, arch
    )
  )
  network = arch_lib.pin(model.space, arch)
  batches = _batches(config, model, run.splits, 'test')
  alone = evaluation.Evaluator(model, [], batches, arch)
  ours = inside, run.params, stats
  parity = _difference(ours, (alone, *_arrays(sliced)), arch)
  if fold:
    kept = alone, *_arrays(sliced)
    network, sliced = folding.fold(network, sliced)
    folded = dataclasses.replace(model, space=network)
    alone = evaluation.Evaluator(folded, [], batches, arch)
    parity = parity.plus(_difference(kept, (alone, *_arrays(sliced)), arch))
  if not parity.over_scale <= TOLERANCE:
    raise errors.UserError(
      '--arch',
      text,
      f'a child within {TOLERANCE} of the largest logit, '
      f'{parity.logits_scale:.3g}; it is off by {parity.max_abs_diff:.3g}',
    )
  measured = {
    'batch_norm': 'folded' if fold else 'kept',
    'accuracy': alone.evaluate(*_arrays(sliced), arch)._asdict()
    | {'split': 'test'},
    'parity': parity.to_dict() | _as_trained(run, ours, arch),
    'source': {
      'step': run.step,
      'config_sha256': run.config_sha256,
      'version': bignas_jax.__version__,
    },
  }
  info = _info(config, model, arch) | measured
  info['class_names'] = list(run.splits.train.classes)
  info['data_identity'] = run.data_identity
  return Child(arch, network, sliced, info)


def _as_trained(run: restore.Run, ours: Any, arch: Arch) -> dict[str, Any]:
  """How far the run's own type is from float32; nothing, if it is float32."""
  if run.model.dtype == jnp.float32:
    return {}
  config = run.config
  batches = _batches(config, run.model, run.splits, 'test')
  rounded = evaluation.Evaluator(run.model, [], batches)
  off = _difference(ours, (rounded, *ours[1:]), arch)
  console.say(
    f'in {config.dtype}, as it was trained, logits differ by up to '
    f'{off.max_abs_diff:.1e} of {off.logits_scale:.3g}'
  )
  return {config.dtype: off.to_dict()}


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


def _arrays(variables: network_lib.Variables):
  return variables['params'], variables['batch_stats']


class Parity(NamedTuple):
  """How far two networks are from each other."""

  max_abs_diff: float  # of logits
  logits_scale: float  # the largest logit of the first one, without its sign
  images: int

  @property
  def over_scale(self) -> float:
    return self.max_abs_diff / (self.logits_scale or 1.0)

  def plus(self, other: 'Parity') -> 'Parity':
    """Returns what two steps one after the other may differ by."""
    both = self.max_abs_diff + other.max_abs_diff
    return self._replace(max_abs_diff=both)

  def to_dict(self) -> dict[str, Any]:
    return self._asdict() | {'max_diff_over_scale': self.over_scale}


def _difference(one, other, arch: Arch) -> Parity:
  """Compares logits on real images.

  Args:
    one: an evaluator, and the params and statistics to hand it.
    other: likewise.
    arch: of both.

  Returns:
    The largest difference, NaN if a logit is, over at least _PARITY_IMAGES
    images as far as the split has them.
  """
  worst, scale, images = 0.0, 0.0, 0
  for batch in one[0].split:
    mask = np.asarray(jax.device_get(batch['mask']))
    ours, theirs = (
      np.asarray(jax.device_get(e.logits(params, stats, batch, arch)))[mask]
      for e, params, stats in (one, other)
    )
    # NumPy's maximum is NaN where one of the two is; Python's is not.
    worst = np.maximum(worst, np.abs(ours - theirs).max(initial=0))
    scale = np.maximum(scale, np.abs(ours).max(initial=0))
    images += len(ours)
    if images >= _PARITY_IMAGES:
      break
  return Parity(float(worst), float(scale), images)


def _batches(config, model, splits, split):
  return pipeline.eval_batches(
    getattr(splits, split),
    config.data,
    batch_size=config.eval_batch_size,
    resolution=model.image_size,
  )
