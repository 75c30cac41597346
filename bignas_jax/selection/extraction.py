"""Extraction of child packages from a trained supernet."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

import bignas_jax
from bignas_jax.costs import counting
from bignas_jax.data import identity, pipeline
from bignas_jax.deploy import folding, package
from bignas_jax.deploy.package import Child
from bignas_jax.reporting import children_table
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import config_record, directory, restore
from bignas_jax.runs.config import Config
from bignas_jax.selection import recommended
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning, presets
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.supernet import evaluation
from bignas_jax.supernet import network as network_lib
from bignas_jax.supernet.model import Model
from bignas_jax.system import cluster, console, files, xla
from bignas_jax.values import errors

# Between logits of the supernet and the child, over the largest logit.
TOLERANCE = 1e-4
_PARITY_IMAGES = 256


def choose(workdir: epath.Path, space: Space, text: str) -> Arch:
  """Returns the child that `best` names, or that `presets.parse` reads.

  `best` is the best child of the run's last search. In a run of a single
  network it is that network, without any search. `recommended:2` is the second
  child of `search/recommended.json`, `table:3` the third of
  `search/children.csv`.
  """
  listed, _, number = text.partition(':')
  if listed == 'recommended':
    return recommended.child(workdir, space, number)
  if listed == 'table':
    table = workdir / 'search' / children_table.NAME
    return children_table.child(table, space, number)
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
  license_: str = '',
) -> Child:
  """Writes a child package after checking that it agrees with the supernet.

  Args:
    workdir: work directory of a trained run.
    text: name of the child, as `choose` reads it.
    out: directory of the package.
    fold: whether to fold batch norms into the kernels before them; a child with
      parallel members is always folded.
    data: where the run's data are now; '': the data are where they were.
    license_: the package's licence; '': that of converted weights, if any.

  Raises:
    UserError: there is no such child or run; the child alone does not compute
      what the supernet computes within TOLERANCE; or several processes run
      this.
  """
  cluster.refuse('extract')
  package.check_place(out)
  config = directory.load_config(workdir)
  arch = choose(workdir, config_lib.space(config), text)
  run = restore.load(workdir, data)
  identity.check_classes(run.splits, run.model.space.classes)
  with xla.exact_products():
    child = _verified(run, arch, text, fold)
  if (origin := directory.origin(workdir)) is not None:
    child.info['origin'] = origin
  if license_:
    child.info['license'] = license_
  package.save(out, child)
  whole = 'trained network' if arch_lib.is_one(run.model.space) else 'supernet'
  difference = child.info['parity']['max_abs_diff']
  console.say(f'wrote {out}: equal to the {whole} within {difference:.1e}')
  try:
    recommended.refresh(workdir)
  except errors.UserError as error:
    console.say(f'warning: the child is not entered: {error}')
  return child


class _Weighted(NamedTuple):
  """An evaluator, and the arrays that it evaluates."""

  evaluator: evaluation.Evaluator
  params: Any
  stats: Any


def _verified(run: restore.Run, arch: Arch, text: str, fold: bool) -> Child:
  """Slices a child out of the supernet, and compares the two in float32.

  The comparison is in float32 whatever dtype the run used, because two programs
  may round to bfloat16 with larger differences than a wrong slice makes.

  Raises:
    UserError: the logits of child and supernet differ by more than TOLERANCE.
  """
  config, model = run.config, dataclasses.replace(run.model, dtype=jnp.float32)
  inside = restore.evaluator(config, model, run.splits, run.splits.test)
  stats = inside.calibrate(run.params, arch)
  sliced = jax.device_get(
    network_lib.slice_child(
      model.space, {'params': run.params, 'batch_stats': stats}, arch
    )
  )
  network = pinning.pin(model.space, arch)
  fold = fold or any(stage.parallel for stage in network.stages)
  batches = _batches(config, model, run.splits, 'test')
  own = dataclasses.replace(model, space=network)
  alone = evaluation.Evaluator(own, [], batches)
  supernet = _Weighted(inside, run.params, stats)
  child = _Weighted(alone, *_arrays(sliced))
  parity = _difference(supernet, child, arch)
  if fold:
    network, sliced = folding.fold(network, sliced)
    folded = dataclasses.replace(model, space=network)
    alone = evaluation.Evaluator(folded, [], batches)
    unfolded, child = child, _Weighted(alone, *_arrays(sliced))
    parity = parity.plus(_difference(unfolded, child, arch))
  if not parity.over_scale <= TOLERANCE:
    raise errors.UserError(
      '--arch',
      text,
      f'a child within {TOLERANCE} of the largest logit, '
      f'{parity.logits_scale:.3g}; it is off by {parity.max_abs_diff:.3g}',
    )
  measured = {
    'batch_norm': 'folded' if fold else 'kept',
    'accuracy': alone.evaluate(child.params, child.stats, arch)._asdict()
    | {'split': 'test'},
    'parity': parity.to_dict() | _as_trained(run, supernet, arch),
    'source': {
      'step': run.step,
      'config_sha256': run.config_sha256,
      'version': bignas_jax.__version__,
    },
  }
  info = describe(config, model, arch) | measured
  info['class_names'] = list(run.splits.train.classes)
  info['data_identity'] = run.data_identity
  return Child(arch, network, sliced, info)


def _as_trained(
  run: restore.Run, supernet: _Weighted, arch: Arch
) -> dict[str, Any]:
  """Returns how far the run's own dtype is from float32; empty for float32."""
  if run.model.dtype == jnp.float32:
    return {}
  config = run.config
  batches = _batches(config, run.model, run.splits, 'test')
  rounding = evaluation.Evaluator(run.model, [], batches)
  rounded = supernet._replace(evaluator=rounding)
  off = _difference(supernet, rounded, arch)
  console.say(
    f'in {config.dtype}, as it was trained, logits differ by up to '
    f'{off.max_abs_diff:.1e} of {off.logits_scale:.3g}'
  )
  return {config.dtype: off.to_dict()}


def describe(config: Config, model: Model, arch: Arch) -> dict[str, Any]:
  """Returns what `child.json` says of a child before the child is measured."""
  return describe_network(model, arch) | {
    'calibration': {
      'images': config.calibration.images,
      'seed': config.calibration.seed,
    },
    'data': config_record.to_dict(config)['data'],
  }


def describe_network(model: Model, arch: Arch) -> dict[str, Any]:
  """Returns what `child.json` says of a child, whatever images it is for."""
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
  }


def _arrays(variables: network_lib.Variables):
  return variables['params'], variables['batch_stats']


class Parity(NamedTuple):
  """The difference between the logits of two networks.

  Attributes:
    max_abs_diff: largest absolute difference of logits.
    logits_scale: largest absolute logit of the first network.
    images: number of images that were compared.
  """

  max_abs_diff: float
  logits_scale: float
  images: int

  @property
  def over_scale(self) -> float:
    """Returns the largest difference as a share of the largest logit."""
    return self.max_abs_diff / (self.logits_scale or 1.0)

  def plus(self, other: 'Parity') -> 'Parity':
    """Returns a bound on the difference of two steps, one after the other."""
    both = self.max_abs_diff + other.max_abs_diff
    return self._replace(max_abs_diff=both)

  def to_dict(self) -> dict[str, Any]:
    """Returns the fields, with `max_diff_over_scale`, as plain values."""
    return self._asdict() | {'max_diff_over_scale': self.over_scale}


def _difference(one: _Weighted, other: _Weighted, arch: Arch) -> Parity:
  """Compares the logits of two networks on real images.

  Args:
    one: the first network.
    other: the second network.
    arch: architecture of both networks.

  Returns:
    The largest difference, NaN if any logit is NaN, over at least
    _PARITY_IMAGES images, or over all images of a smaller split.
  """
  worst, scale, images = 0.0, 0.0, 0
  for batch in one.evaluator.split:
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
