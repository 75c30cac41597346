"""The configuration of a run: typed, checked, comparable.

A config file is a short program with `get_config() -> Config`. Only this
layer and those above see a config; below it, functions take plain arguments.
"""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Literal

import jax.numpy as jnp
from jax.sharding import Mesh

from bignas_jax.data import sources
from bignas_jax.methods import loss_graph, optim, schedules, step, trained
from bignas_jax.methods.optim import Optimizer
from bignas_jax.methods.schedules import Schedule
from bignas_jax.policies import attentive, fixed, progressive, sampling
from bignas_jax.policies.mdenas import Settings as MdenasSettings
from bignas_jax.policies.parsec import Settings as ParsecSettings
from bignas_jax.policies.policies import Policy
from bignas_jax.policies.rep_nas import Settings as RepNasSettings
from bignas_jax.policies.sandwich import SmallestResolution
from bignas_jax.runs import external
from bignas_jax.runs.supervision import Profile, Recovery, TrackerName
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import zoo
from bignas_jax.spaces.space import Space
from bignas_jax.strategies.problem import Search
from bignas_jax.supernet.evaluation import Calibration
from bignas_jax.supernet.model import Model
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.values import errors, schema, structs

# One annotation: ml_collections takes no bare union.
SpaceOrName = Annotated[str | Space, 'a name, or a literal']


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """Everything that a run depends on.

  Attributes:
    space: a name (`spaces.zoo`) or a literal of one's own; '' where
      `arch` or `init_from` determines it.
    arch: one network of the space, to be trained alone: what every `--arch`
      takes (`spaces.presets`); '' for the whole space. A preset and a
      `child.json` determine their space.
    init_from: child package or supernet's run to start with; '' for neither.
    init_sha256: digest of `init_from`'s weights, set at start (`warm_start`).
    classes: classes of the network, whatever the space says; 0: the space's.
    image_size: pixels of a batch's images, which each child's are resized from;
      0: the biggest trained resolution, or that of `init_from` or `arch`.
    data: dataset that the run is trained on.
    seed: seed of initialisation, children, data order, augmentation, dropout.
    zero_scales: whether residual blocks start as their shortcuts alone.
    steps: number of updates.
    batch_size: images in a step, over all devices.
    policy: children that a step trains (`policies.sampling`).
    random_children: number of random children in a step.
    smallest_resolution: resolution of the smallest child of a sandwich: the
      smallest trained one, or `drawn` anew in each step.
    candidates: number of candidates of a `best_up` or `worst_up` child.
    scores: what these candidates are compared by.
    children: the children of policy `fixed`, teachers first.
    phases: the phases of policy `progressive`.
    mdenas: how the policy of this name learns.
    parsec: how the policy of this name learns.
    rep_nas: how the policy of this name learns.
    rule: the loss graph and the regularisation.
    optimizer: how gradients become updates.
    schedule: the learning rate.
    dtype: dtype of activations; all else is float32.
    bn_group_size: images that share batch statistics; 0: the whole batch.
    recompute: whether blocks of the biggest and the smallest child, too, are
      computed again in the backward pass, for less memory and more time.
    ema_decay: decay of averaged parameters, which are then evaluated; 0: none.
    log_every: steps between logged lines.
    eval_every: steps between evaluations of the biggest and the smallest.
    checkpoint_every: steps between checkpoints.
    keep_checkpoints: how many of the newest checkpoints stay, and how many of
      the scheduled ones, which a diverged run goes back to.
    recovery: recovery from divergence.
    eval_batch_size: images in a batch of evaluation.
    calibration: calibration of batch norm.
    search: search for children; may differ when a run is resumed.
    profile: profiled steps; may differ when a run is resumed.
    trackers: what else gets the metrics; may differ when a run is resumed.
    layout: the devices' mesh and its use; may differ when a run is resumed.
  """

  space: SpaceOrName = ''
  arch: str = ''
  init_from: str = ''
  init_sha256: str = ''
  classes: schema.Whole = 0
  image_size: schema.Whole = 0
  data: sources.Data
  seed: schema.Seed = 0
  zero_scales: bool = True
  steps: schema.Natural
  batch_size: schema.Natural
  policy: sampling.Name = 'sandwich'
  random_children: schema.Few = 2
  smallest_resolution: SmallestResolution = 'smallest'
  candidates: Annotated[int, schema.Meta(ge=2, le=100)] = 3
  scores: attentive.Scores = dataclasses.field(default_factory=attentive.Scores)
  children: tuple[fixed.NamedArch, ...] = ()
  phases: tuple[progressive.Phase, ...] = ()
  mdenas: MdenasSettings = dataclasses.field(default_factory=MdenasSettings)
  parsec: ParsecSettings = dataclasses.field(default_factory=ParsecSettings)
  rep_nas: RepNasSettings = dataclasses.field(default_factory=RepNasSettings)
  rule: loss_graph.Rule = dataclasses.field(default_factory=loss_graph.Rule)
  optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
  schedule: Schedule
  dtype: Literal['float32', 'bfloat16'] = 'float32'
  bn_group_size: schema.Whole = 0
  recompute: bool = False
  ema_decay: schema.Share = 0.0
  log_every: schema.Natural = 100
  eval_every: schema.Natural = 1000
  checkpoint_every: schema.Natural = 1000
  keep_checkpoints: schema.Natural = 3
  recovery: Recovery = dataclasses.field(default_factory=Recovery)
  eval_batch_size: schema.Natural = 256
  calibration: Calibration = dataclasses.field(default_factory=Calibration)
  search: Search = dataclasses.field(default_factory=Search)
  profile: Profile = dataclasses.field(default_factory=Profile)
  trackers: tuple[TrackerName, ...] = ()
  layout: mesh_lib.Layout = dataclasses.field(default_factory=mesh_lib.Layout)


def check(config: Config) -> Config:
  """Returns the config with its fields in their types, if all are allowed.

  Args:
    config: a config that `warm_start` has resolved.

  Raises:
    UserError: a value is not allowed; names the field.
  """
  config = schema.check(config)
  alone = arch_lib.is_one(space(config))
  assert alone or not config.arch, 'not resolved'
  for field, right, allowed in _requirements(config):
    if not right:
      raise errors.UserError(field, structs.get(config, field), allowed)
  mesh_lib.check(config.layout)
  mesh_lib.check_batches(batches(config), devices=1)
  loss_graph.check(config.rule, policy(config).roles)
  return config


def _requirements(config: Config) -> Iterator[tuple[str, bool, str]]:
  """Yields (field, whether it is right, what is allowed) of related fields."""
  named = loss_graph.teachers(config.rule)
  right = space(config).bn_epsilon is not None
  yield 'space.bn_epsilon', right, 'a number > 0'
  right = config.policy == 'alone' or not arch_lib.is_one(space(config))
  yield 'policy', right, 'alone, for a space of one network'
  right = config.policy != 'uniform' or config.random_children > 0
  yield 'random_children', right, 'a whole number >= 1, for uniform'
  sandwich = config.policy in ('sandwich', 'best_up', 'worst_up')
  right = sandwich or config.smallest_resolution == 'smallest'
  yield 'smallest_resolution', right, f'smallest, for policy {config.policy}'
  predicted = config.scores.by == 'predictor'
  right = not predicted or config.policy in ('best_up', 'worst_up')
  yield 'scores.by', right, f'loss, for policy {config.policy}'
  right = predicted == bool(config.scores.archive)
  allowed = 'a file, for scores.by predictor, and nothing for loss'
  yield 'scores.archive', right, allowed
  right = config.optimizer.name != 'rmsprop' or config.optimizer.epsilon > 0
  yield 'optimizer.epsilon', right, 'a number > 0, for rmsprop'
  right = config.ema_decay > 0 or loss_graph.EMA not in named
  yield 'ema_decay', right, f'a number > 0, for edges from {loss_graph.EMA}'
  images, batch = config.calibration.images, config.calibration.batch_size
  allowed = f'a multiple of calibration.batch_size {batch}'
  yield 'calibration.images', images % batch == 0, allowed
  right = len({*config.trackers}) == len(config.trackers)
  yield 'trackers', right, 'each name once'
  needs, of_policy = policy(config), f'for policy {config.policy}'
  right = config.data.second > 0 or not needs.second_batches
  yield 'data.second', right, f'a whole number >= 1, {of_policy}'
  right = config.rule.aggregate == 'sum' or not needs.weighs
  yield 'rule.aggregate', right, f'sum, {of_policy}'


def variant(name: str, *allowed: str) -> str:
  """Checks the argument of `get_config`, as in `--config=FILE.py:NAME`.

  Args:
    name: name of a variant of the config; '': none.
    *allowed: names of all variants.

  Raises:
    UserError: there is no such variant.
  """
  if name and name not in allowed:
    choices = errors.one_of(allowed, name) if allowed else 'none'
    raise errors.UserError('variant of the config', name, choices)
  return name


def space(config: Config) -> Space:
  """Returns the space, with the config's number of classes."""
  base = zoo.get(config.space)
  classes = config.classes or base.classes
  return dataclasses.replace(base, classes=classes)


def image_size(config: Config) -> int:
  """Returns the pixels of the images in a batch."""
  return config.image_size or max(space(config).train_resolution)


def policy(config: Config, predicted: attentive.Errors | None = None) -> Policy:
  """Returns the policy that chooses the children of each step.

  Args:
    config: config of the run.
    predicted: predicts errors of candidates (`external.predicted`); a policy
      that is only described needs none.
  """
  return sampling.create(
    space(config),
    config.policy,
    random_children=config.random_children,
    smallest_resolution=config.smallest_resolution,
    candidates=config.candidates,
    scored_by=config.scores.by,
    predicted=predicted,
    children=config.children,
    phases=config.phases,
    of_mdenas=config.mdenas,
    of_rep_nas=config.rep_nas,
    of_parsec=config.parsec,
    images=config.batch_size,
  )


def batches(config: Config) -> list[mesh_lib.Batch]:
  """Returns the batches that devices share; a step's batch comes first.

  Evaluation is given its statistics, so it needs no groups of images.
  """
  group, calibrated = config.bn_group_size, config.calibration.batch_size
  return [
    mesh_lib.Batch('batch_size', config.batch_size, group),
    mesh_lib.Batch('calibration.batch_size', calibrated, group),
    mesh_lib.Batch('eval_batch_size', config.eval_batch_size),
  ]


def model(config: Config, mesh: Mesh) -> Model:
  """Returns the supernet on a mesh, without a check of the batches."""
  return Model(
    space=space(config),
    mesh=mesh,
    mean=config.data.mean,
    std=config.data.std,
    dtype=jnp.dtype(config.dtype),
    bn_group_size=config.bn_group_size or None,
    recompute=config.recompute,
    image_size=image_size(config),
  )


def setup(config: Config, mesh: Mesh | None = None) -> step.Setup:
  """Returns what a run's programs depend on.

  Args:
    config: config of the run.
    mesh: mesh of devices; None: one of all devices.

  Raises:
    UserError: the devices cannot share one of the run's batches, or a package
      that teaches or the children that a predictor learns from are not there.
  """
  if mesh is None:
    mesh = mesh_lib.create(layout=config.layout)
  mesh_lib.check_batches(batches(config), mesh.size)
  learning_rate = schedules.create(config.schedule, config.steps)
  predicted = external.predicted(config.scores, space(config), config.seed)
  the_policy = policy(config, predicted)
  rule = loss_graph.among(config.rule, the_policy.roles)
  network = model(config, mesh)
  optimizer = optim.create(config.optimizer, learning_rate)
  return step.Setup(
    model=network,
    rule=rule,
    optimizer=trained.only(config.optimizer.trains, optimizer, space(config)),
    rate=learning_rate,
    batch_size=config.batch_size,
    policy=the_policy,
    packages=external.load(rule, network),
    ema_decay=config.ema_decay,
    seed=config.seed,
    zero_scales=config.zero_scales,
    placement=config.layout.rules,
  )
