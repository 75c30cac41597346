"""A supernet of another code base as a run that has ended.

Searches, extraction and all that follows then work on it as on any run: what
they need is the config, the images and the parameters. No child of it has
batch-norm statistics until it is calibrated, on the user's images.
"""

import contextlib
import dataclasses
from typing import Any

from etils import epath

from bignas_jax.conversion import published_files
from bignas_jax.conversion.layouts import Layout
from bignas_jax.data import identity, sources
from bignas_jax.runs import checkpoints, directory, warm_start
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Config
from bignas_jax.system import cluster, files
from bignas_jax.training import recovery, states
from bignas_jax.values import errors

# What an interrupted conversion leaves, until its checkpoint is complete.
_BEGUN = {'.lock', 'config.json', 'checkpoints', directory.ORIGIN}


def convert(
  config: Config,
  weights: epath.Path,
  layout: str,
  workdir: epath.Path,
  license_: str = '',
) -> dict[str, Any]:
  """Writes a work directory whose last step has the parameters of a file.

  Args:
    config: space of the file, images of its children's calibration, search.
    weights: file that `torch.save` wrote.
    layout: name of a supernet's layout (`published_files.LAYOUTS`).
    workdir: the directory, missing or empty.
    license_: the weights' licence, which is kept with them.

  Returns:
    The content of `origin.json`, and the directory.

  Raises:
    UserError: the file's tensors are not the space's, or the directory is not
      empty; nothing was written then.
  """
  cluster.refuse('convert')
  there = published_files.layout(layout, single=False)
  directory.check_place(workdir)
  _check_empty(workdir)
  config = _as_there(config_lib.check(warm_start.resolve(config)), there)
  space = config_lib.space(config)
  variables, origin = published_files.read(weights, layout, space, license_)
  splits = sources.load(config.data, space.channels)
  identity.check_classes(splits, space.classes)
  workdir.mkdir(parents=True, exist_ok=True)
  again = 'to convert anew'
  full = recovery.full_disk_as_failed(workdir, again)
  with full, directory.lock(workdir):
    directory.claim(workdir, config, splits)
    files.write_json(workdir / directory.ORIGIN, origin)
    _save(config, variables['params'], workdir)
  return {'workdir': str(workdir), 'step': config.steps} | origin


def _as_there(config: Config, layout: Layout) -> Config:
  """Returns the config with images of the size and resizing of a code base.

  A size that the config sets itself stays.
  """
  config = dataclasses.replace(
    config, image_size=config.image_size or layout.image_size
  )
  if layout.resize is None:
    return config
  space = dataclasses.replace(config_lib.space(config), resize=layout.resize)
  return dataclasses.replace(config, space=space)


def _check_empty(workdir: epath.Path) -> None:
  """Checks that a directory has nothing in it, or what a kill left of this.

  Raises:
    UserError: there is more.
  """
  names = {path.name for path in workdir.iterdir()} if workdir.exists() else {}
  if not set(names) <= _BEGUN or checkpoints.steps(workdir):
    raise errors.UserError('--workdir', str(workdir), 'an empty directory')


def _save(config: Config, params: Any, workdir: epath.Path) -> None:
  """Saves the state of the last step: as if training had ended with these."""
  state = states.initial(config_lib.setup(config), params, config.steps)
  with contextlib.closing(checkpoints.Checkpoints(workdir)) as saved:
    saved.save(config.steps, state)
