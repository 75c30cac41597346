"""RepNAS (arXiv:2109.03508): a policy that learns which members layers keep.

Each member of each layer has a logit. A step trains the child of the members
that are greatest of the whole network, after noise was added. Its mask learns
as if it were the sigmoid of the noisy logits (straight-through).
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Bool, Float

from bignas_jax.policies.policies import Child, Measured, Policy, Score, State
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions, parallel
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.values import errors, schema

_MEMBERS = len(parallel.MEMBERS)
_BETAS = 0.5, 0.999  # of Adam
_EPSILON = 1e-8
_TIES = 1e-9  # deviation of logits at the start, which are else 0

Table = Float[np.ndarray, 'layers members']  # one row for each layer


@dataclasses.dataclass(kw_only=True, slots=True)
class Settings:
  """What RepNAS depends on, in a config.

  Attributes:
    share: share of all members of all layers that a child has.
    rate: learning rate of the logits.
    warmup_steps: number of steps before the logits learn.
    joint_steps: number of steps after these, in which the logits learn; in all
      later steps the child is that of the greatest logits.
  """

  share: schema.PositiveShare = 0.34
  rate: schema.AtLeastZero = 1e-4
  warmup_steps: schema.Whole = 0
  joint_steps: schema.Whole = 1000


def rep_nas(space: Space, settings: Settings) -> Policy:
  """Returns the policy of RepNAS: one child a step, of the greatest logits.

  Args:
    space: space that children are drawn from. Its layers have any set of their
      members.
    settings: size of the children, phases, and how the logits learn.

  Raises:
    UserError: a layer has not all sets of its members, a stage has several
      depths, or the share leaves less than one member for each layer.
  """
  allowed = members(space)
  number = kept(space, settings)
  until = settings.warmup_steps + settings.joint_steps

  def init(seed: int) -> State:
    # Logits that never learn choose at random, and not the first members.
    ties = _TIES * arch_lib.generator(seed).normal(size=allowed.shape)
    averages = {n: np.zeros(allowed.shape) for n in ('first', 'second')}
    numbers = {'done': 0, 'seed': seed}
    return {
      'logits': np.where(allowed, ties, 0),
      **averages,
      **{n: np.array([v], np.int64) for n, v in numbers.items()},
    }

  def noisy(state: State) -> Table:
    (done,), (seed,) = state['done'], state['seed']
    if done >= until:
      return state['logits']
    rng = arch_lib.generator(int(seed), int(done))
    one, other = rng.gumbel(size=(2, *allowed.shape))
    return state['logits'] + one - other

  def sample(
    state: State, seed: int, draw: int, score: Score | None = None
  ) -> list[Child]:
    del seed, draw, score
    return [
      Child('random', arch(space, greatest(noisy(state), allowed, number)))
    ]

  def update(state: State, children: list[Child], measured: Measured) -> State:
    del children
    (metrics,), done = measured, int(state['done'][0])
    after = state | {'done': state['done'] + 1}
    if not settings.warmup_steps <= done < until:
      return after
    slope = 1 / (1 + np.exp(-noisy(state)))
    gradient = np.where(allowed, metrics['gates'] * slope * (1 - slope), 0)
    moved = adam(state, gradient, settings.rate, done - settings.warmup_steps)
    return after | moved

  def learnt(state: State) -> Arch:
    return arch(space, greatest(state['logits'], allowed, number))

  return Policy(
    ('random',), {}, sample, init=init, update=update, learnt=learnt, gated=True
  )


def members(space: Space) -> Bool[np.ndarray, 'layers members']:
  """Returns which members each layer may have; stages without have none."""
  rows = []
  for i, stage in enumerate(space.stages):
    for block in range(max(stage.depth)):
      masks = decisions.of_block(space, i, block, decisions.PARALLEL)
      names = parallel.members(max(masks))
      rows.append([name in names for name in parallel.MEMBERS])
      whole = stage.parallel and masks == parallel.subsets(*names)
      if len(stage.depth) > 1 or (stage.parallel and not whole):
        allowed = 'a space of one depth a stage, and of all sets of members'
        raise errors.UserError('policy', 'rep_nas', allowed)
  table = np.array(rows)
  if not table.any():
    allowed = 'a space whose layers have parallel members'
    raise errors.UserError('policy', 'rep_nas', allowed)
  return table


def kept(space: Space, settings: Settings) -> int:
  """Returns the number of members of a child."""
  table = members(space)
  number = int(settings.share * table.sum())
  layers = int(table.any(axis=1).sum())
  if number < layers:
    allowed = f'a share of {layers} of {table.sum()} members, one a layer'
    raise errors.UserError('rep_nas.share', settings.share, allowed)
  return number


def greatest(
  scores: Table, allowed: Bool[np.ndarray, 'layers members'], number: int
) -> Bool[np.ndarray, 'layers members']:
  """Returns which members are the greatest of all layers.

  A layer keeps its greatest member, even if others are greater: a layer without
  members would cut the network. Of equal ones, the first are taken.

  Args:
    scores: score of each member of each layer.
    allowed: members that layers may have.
    number: number of members, at least one a layer.
  """
  scores = np.where(allowed, scores, -np.inf)
  layers = np.flatnonzero(allowed.any(axis=1))
  chosen = np.zeros(allowed.shape, bool)
  chosen[layers, scores[layers].argmax(axis=1)] = True
  others = np.where(chosen, np.inf, scores)  # the chosen come first
  order = np.argsort(-others, axis=None, kind='stable')[:number]
  return np.isin(np.arange(scores.size), order).reshape(scores.shape)


def arch(space: Space, chosen: Bool[np.ndarray, 'layers members']) -> Arch:
  """Returns the child that has these members."""
  masks = chosen @ (1 << np.arange(_MEMBERS))
  whole = arch_lib.biggest(space)
  return arch_lib.check(
    space, dataclasses.replace(whole, parallel=tuple(map(int, masks)))
  )


def adam(
  state: State, gradient: Table, rate: float, steps: int
) -> dict[str, Table]:
  """Returns the logits and their averages after a step of Adam.

  Args:
    state: `logits`, and `first` and `second` moments of their gradients.
    gradient: gradient of the logits.
    rate: learning rate.
    steps: number of steps before this one.
  """
  step = functools.partial(_averaged, steps=int(steps) + 1)
  first, mean = step(state['first'], gradient, _BETAS[0])
  second, square = step(state['second'], gradient**2, _BETAS[1])
  moved = rate * mean / (np.sqrt(square) + _EPSILON)
  return {
    'logits': state['logits'] - moved,
    'first': first,
    'second': second,
  }


def _averaged(
  average: Table, value: Table, beta: float, steps: int
) -> tuple[Table, Table]:
  """Returns the running average, and the same without its start from 0."""
  average = beta * average + (1 - beta) * value
  return average, average / (1 - beta**steps)
