"""The restoring of a trained supernet from its work directory."""

import dataclasses
import hashlib
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from bignas_jax.data import identity as identity_lib
from bignas_jax.data import pipeline, sources
from bignas_jax.runs import checkpoints, directory
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Config
from bignas_jax.supernet import evaluation, network
from bignas_jax.supernet.model import Model
from bignas_jax.system import cluster, console, xla
from bignas_jax.system import mesh as mesh_lib


class Run(NamedTuple):
  """A trained supernet, ready to be used."""

  config: Config
  model: Model
  splits: sources.Splits
  step: int
  params: Any
  config_sha256: str  # as it was when the run started
  data_identity: dict[str, Any]


def weights(run: Run) -> str:
  """Returns a digest of the parameters, equal on every mesh."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(run.params):
    array = np.asarray(leaf.addressable_data(0))  # replicated: all of it
    digest.update(f'{path} {array.shape} {array.dtype}'.encode())
    digest.update(array.tobytes())
  return digest.hexdigest()


def _mesh(config: Config) -> Mesh:
  """Returns a mesh of as many devices as can share a trained run's batches.

  Several processes take all devices: none of them may be left without work.
  """
  _, *used = config_lib.batches(config)
  devices = jax.devices()
  if jax.process_count() > 1:
    mesh_lib.check_batches(used, len(devices))
    return mesh_lib.create()
  mesh_lib.check_batches(used, devices=1)
  number = next(
    n for n in range(len(devices), 0, -1) if mesh_lib.can_share(used, n)
  )
  if number < len(devices):
    sizes = ' and '.join(f'{one.field} {one.images}' for one in used)
    console.say(
      f'using {number} of {len(devices)} devices: more cannot share {sizes}'
    )
  return mesh_lib.create(devices[:number])


def _data(
  config: Config, workdir: epath.Path
) -> tuple[sources.Splits, dict[str, Any]]:
  """Returns the images that a run was trained on, and their identity."""
  splits = sources.load(config.data, config_lib.space(config).channels)
  here = identity_lib.describe(splits)
  record = directory.read(workdir).data
  identity_lib.check(record, here, config.data.directory, str(workdir))
  return splits, here


def load(workdir: epath.Path, data: str = '') -> Run:
  """Reads the newest checkpoint's parameters (the averaged ones, if kept).

  Args:
    workdir: directory of the run.
    data: directory of the run's data; '': the one in its config.

  Raises:
    UserError: the directory is not a trained run's; the data are not those
      that it was trained on; or several processes cannot share its batches.
  """
  config = directory.load_config(workdir)
  config.data = sources.placed(config.data, data)
  splits, identity = cluster.each(lambda: _data(config, workdir))
  xla.keep_programs(workdir / 'compiled')
  model = config_lib.model(config, _mesh(config))
  like = mesh_lib.described(
    model.mesh, network.shapes(model.space), mesh_lib.REPLICATED
  )
  name = 'ema' if config.ema_decay > 0 else 'params'
  step, params = checkpoints.restore_params(workdir, like, name)
  sha256 = directory.config_sha256(workdir, config)
  return Run(config, model, splits, step, params, sha256, identity)


def evaluator(
  config: Config, model: Model, splits: sources.Splits, split: sources.Source
) -> evaluation.Evaluator:
  """Returns an evaluator on the images of a split.

  Args:
    config: config of the run.
    model: the run's supernet on its mesh.
    splits: all images of the run; batch norms are calibrated on `train`.
    split: the images that children are evaluated on.
  """

  def make() -> evaluation.Evaluator:
    size, settings = model.image_size, dataclasses.asdict(config.calibration)
    calibration = pipeline.calibration_batches(
      splits.train, config.data, resolution=size, **settings
    )
    evaluated = pipeline.eval_batches(
      split, config.data, batch_size=config.eval_batch_size, resolution=size
    )
    return evaluation.Evaluator(model, calibration, evaluated)

  return cluster.each(make)
