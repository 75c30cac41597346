"""The arms that BigNAS's claims compare: what each changes of a config."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from bignas_jax.methods import loss_graph
from bignas_jax.methods.loss_graph import Rule
from bignas_jax.runs.config import Config
from bignas_jax.selection import trained_alone
from bignas_jax.selection.trained_alone import Recipe
from bignas_jax.spaces.arch import Arch
from bignas_jax.values import errors, structs

BASELINE = 'baseline'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alone:
  """How an arm trains the child that was chosen in the baseline's supernet.

  Attributes:
    steps: number of updates, as a share of the supernet's.
    rate: peak of the learning rate, as a share of the supernet's.
    sliced: whether it starts with the weights that the supernet has for it.
  """

  steps: float = 1.0
  rate: float = 1.0
  sliced: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
  """What an arm trains, and what differs from the config.

  Attributes:
    words: what is different, for a table.
    changes: other values of the config's fields, by dotted path.
    alone: how the chosen child is trained alone; None: a supernet is trained.
  """

  words: str
  changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  alone: Alone | None = None


ARMS = {
  BASELINE: Arm(words='the config as it is'),
  'scales_of_one': Arm(
    words='no scale of a batch norm starts at 0',
    changes={'zero_scales': False},
  ),
  'no_floor': Arm(
    words='the exponential decay has no floor',
    changes={'schedule.floor': 0.0},
  ),
  'all_regularised': Arm(
    words='dropout, weight decay and label smoothing are on all children',
    changes={'rule.regularised': loss_graph.ALL},
  ),
  'labels': Arm(
    words='all children learn from the label',
    changes={
      'rule.edges': loss_graph.from_label('biggest', 'smallest', 'random')
    },
  ),
  # As configs/finetune.py: a third of the epochs, at a small, falling rate.
  'finetuned': Arm(
    words='the chosen child, trained further from its slice',
    changes={'schedule.name': 'cosine'},
    alone=Alone(steps=0.3, rate=0.1, sliced=True),
  ),
  'scratch': Arm(
    words='the chosen child, trained alone from random weights',
    alone=Alone(),
  ),
}


def check(config: Config, name: str) -> None:
  """Checks that an arm of this config is another run than the baseline.

  Args:
    config: config of the baseline.
    name: name of the arm.

  Raises:
    UserError: a field's value makes the arm equal to the baseline, or means
      that the baseline is not BigNAS's method.
  """
  for arms, field, right, allowed in _requirements(config):
    if name in arms and not right:
      value = structs.get(config, field)
      raise errors.UserError(f'{field}, for arm {name}', value, allowed)


def _requirements(
  config: Config,
) -> Iterator[tuple[tuple[str, ...], str, bool, str]]:
  """Yields (arms, field, whether its value is right, what is allowed)."""
  every = tuple(ARMS)
  of_child = tuple(name for name, arm in ARMS.items() if arm.alone)
  yield every, 'policy', config.policy == 'sandwich', 'sandwich'
  yield every, 'init_from', not config.init_from, 'nothing'
  right = config.rule.edges == Rule().edges
  yield every, 'rule.edges', right, 'in-place distillation, the default'
  right = config.rule.regularised == 'biggest'
  yield every, 'rule.regularised', right, 'biggest'
  yield ('scales_of_one',), 'zero_scales', config.zero_scales, 'true'
  schedule, rule = config.schedule, config.rule
  right = schedule.name == 'exponential'
  yield ('no_floor',), 'schedule.name', right, 'exponential'
  lowest = schedule.decay_rate ** (config.steps / schedule.decay_steps)
  allowed = f'fewer, so that the rate falls below the floor {schedule.floor}'
  allowed += f' in {config.steps} steps'
  right = lowest < schedule.floor
  yield ('no_floor',), 'schedule.decay_steps', right, allowed
  # Weight decay is too weak to be compared in a run without dropout.
  right = rule.dropout > 0 or rule.drop_connect > 0
  yield ('all_regularised',), 'rule.dropout', right, 'a number > 0'
  right = config.data.held_out > 0
  yield of_child, 'data.held_out', right, 'a number > 0, to find a child by'


def config_of(
  config: Config,
  name: str,
  seed: int,
  child: Arch | None = None,
  package: str = '',
) -> Config:
  """Returns the config of an arm's run.

  Args:
    config: config of the baseline.
    name: name of the arm.
    seed: seed of the run.
    child: the child that was chosen, for arms that train it alone.
    package: directory of the child's package, with the slice's weights.
  """
  arm = ARMS[name]
  config = dataclasses.replace(config, seed=seed)
  if arm.alone is not None:
    assert child is not None
    steps = max(1, round(arm.alone.steps * config.steps))
    recipe = Recipe(steps, arm.alone.rate * config.schedule.peak)
    config = trained_alone.config_of(config, child, recipe)
    if arm.alone.sliced:
      config = dataclasses.replace(config, init_from=package)
  for path, value in arm.changes.items():
    config = structs.replaced(config, path, value)
  return config
