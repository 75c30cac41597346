"""The architecture and the weights that a run may take from elsewhere.

A config may name an architecture (`arch`), or a child package or the work
directory of a trained supernet (`init_from`).
What follows from them is written into the config, and so into its
`config.json`, when a run starts. The run can be resumed even if they are gone.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from bignas_jax.data import identity, sources
from bignas_jax.deploy import package
from bignas_jax.deploy.package import Child
from bignas_jax.policies import fixed
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import directory as directory_lib
from bignas_jax.runs import external, supernet_start
from bignas_jax.runs.config import Config
from bignas_jax.runs.supernet_start import Supernet
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning, presets, zoo
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.system import console, storage
from bignas_jax.values import errors, schema, structs


class _Network(NamedTuple):
  """What a config's `arch` and `init_from` determine.

  Attributes:
    space: space of the architecture.
    arch: architecture of the network; None: all of the space.
    image_size: side of the images, pixels; 0: not given.
    sha256: digest of the weights; '': there are none.
  """

  space: Space
  arch: Arch | None
  image_size: int
  sha256: str


@dataclasses.dataclass(frozen=True)
class _Input:
  """What `child.json` says about images."""

  image_size: schema.Whole = 0


@dataclasses.dataclass(frozen=True)
class _ChildInfo:
  """What is read of the file that `arch` names, apart from the architecture."""

  input: _Input = _Input()


def resolve(config: Config, workdir: epath.Path | None = None) -> Config:
  """Returns the config with the `space` and `init_sha256` that follow from it.

  The path of the data becomes absolute, for commands that run elsewhere, and
  the architectures of listed children become JSON; packages that teach and
  children that a predictor learns from get their digests.

  Args:
    config: config of a run; not changed.
    workdir: work directory of the run; if the run has started, the values that
      were resolved then stay.

  Raises:
    UserError: `arch` or `init_from` names nothing, or they do not fit each
      other or the space; or a field has another type or is out of its range.
  """
  config = schema.check(config)
  config = dataclasses.replace(
    config,
    data=sources.placed(config.data),
    rule=external.digested(config.rule),
  )
  if not config.arch and not config.init_from:
    return _of_policy(config, workdir)
  network = _before(config, workdir) or _read(config)
  space = zoo.get(config.space) if config.space else network.space
  if network.arch is not None:
    space = pinning.pin(space, network.arch)
  config = dataclasses.replace(
    config,
    space=space,
    image_size=config.image_size or network.image_size,
    init_sha256=network.sha256,
  )
  return _of_policy(config, workdir)


def _of_policy(config: Config, workdir: epath.Path | None) -> Config:
  """Returns the config with what its policy takes from files."""
  if config.policy == 'fixed':
    children = fixed.resolved(config_lib.space(config), config.children)
    return dataclasses.replace(config, children=children)
  scores = config.scores
  if scores.by == 'predictor' and scores.archive:
    run = _run_there(workdir)
    if run is not None and not scores.children:
      # The file may have grown since then.
      scores = dataclasses.replace(scores, children=run.scores.children)
    scores = external.learnt_from(scores, config_lib.space(config))
  return dataclasses.replace(config, scores=scores)


def _run_there(workdir: epath.Path | None) -> Config | None:
  """Returns the config of the directory's run; None: none has started."""
  if workdir is None or directory_lib.claimed(workdir) is None:
    return None
  return directory_lib.load_config(workdir)


def _before(config: Config, workdir: epath.Path | None) -> _Network | None:
  """Returns what the directory's run took from the same places, or None."""
  run = _run_there(workdir)
  if run is None or (run.arch, run.init_from) != (
    config.arch,
    config.init_from,
  ):
    return None
  space = config_lib.space(run)
  if not arch_lib.is_one(space):
    return _Network(space, None, run.image_size, run.init_sha256)
  arch = arch_lib.biggest(space)
  if config.space and not arch_lib.contains(zoo.get(config.space), arch):
    # Where blocks have choices of their own, each is a stage of the run's
    # space: `arch` has to be read again.
    return None
  return _Network(space, arch, run.image_size, run.init_sha256)


def _read(config: Config) -> _Network:
  space = zoo.get(config.space) if config.space else None
  if not config.init_from:
    space = space or presets.space_of(config.arch)
    arch, info = presets.parse(space, config.arch), presets.read(config.arch)
    child_info = schema.convert(_ChildInfo, info or {}, 'arch', others=True)
    return _Network(space, arch, child_info.input.image_size, '')
  path = storage.path(config.init_from, 'init_from')
  if supernet_start.is_run(path):
    return _of_supernet(config, _supernet(config, path), space)
  child, sha256 = _load(config)
  if space is None:
    space, arch = child.space, child.own_arch
  else:
    arch = child.arch
  _check_fits(config, child, space)
  return _Network(space, arch, child.info['input']['image_size'], sha256)


def _of_supernet(
  config: Config, supernet: Supernet, space: Space | None
) -> _Network:
  """Returns what follows from a supernet that the config's run starts with.

  Raises:
    UserError: the config means one network, or another space.
  """
  if config.arch:
    allowed = "nothing, where init_from is a supernet's work directory (for one"
    allowed += ' network, name a child package that `extract` wrote)'
    raise errors.UserError('arch', config.arch, allowed)
  if space is not None:
    allowed = f'a supernet of space {space.name}'
    _check_same(config, supernet.space, space, allowed)
  size = config_lib.image_size(supernet.config)
  return _Network(supernet.space, None, size, supernet.sha256)


def _supernet(config: Config, path: epath.Path) -> Supernet:
  """Returns the supernet of `init_from`."""
  try:
    return supernet_start.read(path)
  except errors.UserError as error:
    allowed = f'a trained supernet ({error})'
    raise errors.UserError('init_from', config.init_from, allowed) from None


def _check_same(
  config: Config, there: Space, ours: Space, allowed: str
) -> None:
  """Raises UserError if two spaces differ in more than name and classes."""
  differences = structs.differences(_described(there), _described(ours))
  if differences:
    allowed += f'; this one differs in {differences[0]}'
    raise errors.UserError('init_from', config.init_from, allowed)


def _check_fits(config: Config, child: Child, space: Space) -> None:
  """Raises UserError unless the child is the network that the config means."""
  allowed = f'a child of space {space.name}'
  own = child.own_arch if space == child.space else child.arch
  wanted = presets.parse(space, config.arch) if config.arch else own
  if wanted != own:
    allowed += f', of the architecture {arch_lib.to_json(wanted)}'
    raise errors.UserError('init_from', config.init_from, allowed)
  try:
    ours = pinning.pin(space, own)
  except errors.UserError as error:
    allowed += f' ({error})'
    raise errors.UserError('init_from', config.init_from, allowed) from None
  _check_same(config, child.space, ours, allowed)


def _described(space: Space) -> dict[str, Any]:
  """Returns a space as plain values, without its name and its classes."""
  return structs.without(schema.plain(space), ('name', 'classes'))


def weights(config: Config, classes: Sequence[str] = ()) -> dict[str, Any]:
  """Returns the parameters that step 0 takes from what `init_from` names.

  Args:
    config: resolved config.
    classes: class names of the data; empty: the child's are not compared.

  Returns:
    Arrays by part, such as `stem`; without the classifier if the classes differ
    in number or, of a supernet, in name; empty if the config names nothing.

  Raises:
    UserError: the package or the supernet is gone, or is not the one that was
      resolved.
  """
  if not config.init_from:
    return {}
  path = storage.path(config.init_from, 'init_from')
  if supernet_start.is_run(path):
    supernet = _supernet(config, path)
    _check_digest(config, supernet.sha256, 'supernet')
    ours, data = config_lib.space(config), supernet.config.data
    _say_start(config, 'supernet', {'mean': data.mean, 'std': data.std})
    return supernet_start.params(supernet, ours, classes)
  child, sha256 = _load(config)
  _check_digest(config, sha256, 'child')
  _say_start(config, 'child', child.info['input'])
  return _of_child(config, child, classes)


def _of_child(
  config: Config, child: Child, classes: Sequence[str]
) -> dict[str, Any]:
  """Returns a child's parameters, and prints what its classes have to do."""
  params = dict(child.variables['params'])
  ours, theirs = config_lib.space(config).classes, child.space.classes
  if ours != theirs:
    del params['classifier']
    console.say(f'a fresh classifier: {ours} classes, the child has {theirs}')
  elif classes and 'class_names' in child.info:
    changed = identity.other_classes(child.info['class_names'], classes)
    if changed:
      console.say(
        f'warning: the classifier is for classes of other names: {changed}'
      )
  return params


def _check_digest(config: Config, sha256: str, what: str) -> None:
  """Raises UserError unless the weights are those that were resolved."""
  if sha256 != config.init_sha256:
    raise errors.UserError(
      'init_from',
      config.init_from,
      f'the {what} that the run was started with, sha256 {config.init_sha256}',
    )


def _say_start(config: Config, what: str, pixels: Mapping[str, Any]) -> None:
  """Prints where the weights are from, and how pixels were normalised there."""
  console.say(f'starting with the weights of {config.init_from}')
  for name in 'mean', 'std':
    there, here = list(pixels[name]), list(getattr(config.data, name))
    if there != here:
      console.say(f'warning: data.{name} is {here}, the {what} had {there}')


def _load(config: Config) -> tuple[Child, str]:
  """Returns the child of `init_from`, and the digest of its weights."""
  directory = storage.path(config.init_from, 'init_from')
  try:
    return package.load(directory), package.sha256(directory)
  except errors.UserError as error:
    allowed = f"a child package, or a supernet's work directory ({error})"
    raise errors.UserError('init_from', config.init_from, allowed) from None
