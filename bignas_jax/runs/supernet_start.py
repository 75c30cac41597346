"""A supernet that a run starts with: another run's work directory.

The run may have trained it, or `convert` may have made it of published weights.
It must have ended, so that its weights are those of one step for ever.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from etils import epath

from bignas_jax.data import identity
from bignas_jax.deploy import package
from bignas_jax.runs import checkpoints, directory
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Config
from bignas_jax.spaces.space import Space
from bignas_jax.supernet import network
from bignas_jax.system import console, digests
from bignas_jax.values import errors

_CLASSIFIER = 'classifier'
_ENDED = 'a run that has ended, with its last checkpoint whole'


class Supernet(NamedTuple):
  """A trained supernet in its work directory.

  Attributes:
    directory: work directory of its run.
    config: config of its run.
    space: space of its children.
    sha256: digest of the files of its last checkpoint.
    class_names: names of its classes; None: its run does not say.
  """

  directory: epath.Path
  config: Config
  space: Space
  sha256: str
  class_names: tuple[str, ...] | None


def is_run(path: epath.Path) -> bool:
  """Returns whether a directory is a run's, whatever state it is in.

  A child package has a `config.json`, too, for model hubs.
  """
  packaged = any((path / name).exists() for name in package.FILES)
  return not packaged and directory.claimed(path) is not None


def read(path: epath.Path) -> Supernet:
  """Reads what a run says of its supernet, and checks its last checkpoint.

  Raises:
    UserError: the run's config is damaged, the run has not ended, or a file of
      its last checkpoint is damaged.
  """
  manifest, config = directory.read(path), directory.load_config(path)
  there = checkpoints.steps(path)
  if config.steps not in there:
    reached = f'{max(there, default=0)} of {config.steps}'
    raise errors.UserError('its last checkpoint', f'step {reached}', _ENDED)
  last = checkpoints.place(path) / str(config.steps)
  wrong = digests.damage(last)
  if wrong is not None:
    raise errors.UserError(f'its checkpoint {config.steps}', wrong, _ENDED)
  described = (manifest.data or {}).get('classes')
  names = None if described is None else tuple(described['names'])
  space = config_lib.space(config)
  return Supernet(path, config, space, digests.of_sealed(last), names)


def params(supernet: Supernet, ours: Space, classes: Sequence[str]) -> Any:
  """Returns the parameters that a run of the same space starts with.

  It prints which arrays are left out, because they stand for other classes.

  Args:
    supernet: the supernet, as `read` returns it.
    ours: space of the run that starts.
    classes: class names of that run's data; empty: they are not compared.

  Returns:
    Arrays by part, such as `stem`; without the classifier if the classes differ
    in number or in name.
  """
  config = supernet.config
  name = 'ema' if config.ema_decay > 0 else 'params'
  given = checkpoints.read_entry(
    supernet.directory, config.steps, network.shapes(supernet.space), name
  )
  why = _other_classes(supernet, ours, classes)
  if why:
    anew = _named(given.pop(_CLASSIFIER))
    console.say(f'starting anew: {anew}, since {why}')
  return given


def _other_classes(
  supernet: Supernet, ours: Space, classes: Sequence[str]
) -> str:
  """Returns in words how the classes differ; '' if they do not."""
  there = supernet.space.classes
  if there != ours.classes:
    return f'the supernet has {there} classes, not {ours.classes}'
  if not classes or supernet.class_names is None:
    return ''
  changed = identity.other_classes(supernet.class_names, classes)
  return f'the supernet has other classes ({changed})' if changed else ''


def _named(arrays: Any) -> str:
  """Returns the names and the shapes of the classifier's arrays."""
  return ', '.join(
    f'{_CLASSIFIER}/{"/".join(str(key.key) for key in path)} {list(leaf.shape)}'
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays)
  )
