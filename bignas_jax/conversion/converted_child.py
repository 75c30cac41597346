"""A single network of another code base as a child package.

Its batch norms' running averages are its statistics, so that nothing is
calibrated, and there is no supernet to compare it with.
"""

import dataclasses
from typing import Any

import jax
from etils import epath

import bignas_jax
from bignas_jax.conversion import published_files
from bignas_jax.data import identity, pipeline, sources
from bignas_jax.deploy import package
from bignas_jax.deploy.package import Child
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Config
from bignas_jax.selection import extraction
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning
from bignas_jax.spaces.arch import Arch
from bignas_jax.supernet import evaluation
from bignas_jax.supernet.model import Model
from bignas_jax.system import cluster, console, xla
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.values import errors

_BATCH = 256  # images, whatever batches the config's own devices would hold
# What `extract` writes of a supernet, a calibration and a run.
_NOT_MADE_HERE = {
  'batch_norm': 'kept',
  'calibration': None,
  'parity': None,
  'source': {
    'step': None,
    'config_sha256': None,
    'version': bignas_jax.__version__,
  },
}


def convert(
  config: Config,
  weights: epath.Path,
  layout: str,
  out: epath.Path,
  license_: str = '',
) -> Child:
  """Writes a child package with the weights and statistics of a file.

  Args:
    config: space of the network, and the images that it is evaluated on. They
      are normalised as the layout says, whatever the config says.
    weights: file that `torch.save` wrote.
    layout: name of a single network's layout (`published_files.LAYOUTS`).
    out: directory of the package.
    license_: the weights' licence, which is kept with them.

  Raises:
    UserError: the file's tensors are not the space's, or the directory may not
      be written to; nothing was written then.
  """
  cluster.refuse('convert')
  single = published_files.layout(layout, single=True).single
  assert single is not None
  package.check_place(out)
  space = config_lib.space(config)
  if not arch_lib.is_one(space):
    raise errors.UserError('config.space', space.name, 'that of one network')
  variables, origin = published_files.read(weights, layout, space, license_)
  data = dataclasses.replace(config.data, **single._asdict())
  config = dataclasses.replace(config, data=sources.placed(data))
  splits = sources.load(config.data, space.channels)
  identity.check_classes(splits, space.classes)
  arch = arch_lib.biggest(space)
  model = Model(
    space=pinning.pin(space, arch),
    mesh=mesh_lib.create(jax.devices()[:1]),
    mean=single.mean,
    std=single.std,
    image_size=config_lib.image_size(config),
  )
  score = _evaluate(model, variables, arch, config.data, splits.test)
  info = extraction.describe(config, model, arch) | {
    'accuracy': score._asdict() | {'split': 'test'},
    'class_names': list(splits.train.classes),
    'data_identity': identity.describe(splits),
    'origin': origin,
  }
  child = Child(arch, model.space, variables, info | _NOT_MADE_HERE)
  package.save(out, child)
  console.say(f'wrote {out}: top-1 {score.top1:.4f} on {score.images} images')
  return child


def _evaluate(
  model: Model,
  variables: dict[str, Any],
  arch: Arch,
  data: sources.Data,
  split: sources.Source,
) -> evaluation.Score:
  """Returns the network's accuracy on a split, as `evaluate` measures it."""
  batches = pipeline.eval_batches(
    split, data, batch_size=_BATCH, resolution=model.image_size
  )
  with xla.exact_products():
    return evaluation.Evaluator(model, [], batches).evaluate(
      variables['params'], variables['batch_stats'], arch
    )
