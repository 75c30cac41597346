"""The children that a step trains, as functions of (seed, step).

A policy may ask for scores of children on the step's batch, which follow from
the state. So every host computes the same children, and so does a resumed run.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import cost_buckets, counting
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space

Name = Literal['sandwich', 'best_up', 'worst_up', 'uniform', 'alone']
ROLES = ('biggest', 'random', 'smallest')


class Child(NamedTuple):
  """A child in a step, and its role there, one of `ROLES`."""

  role: str
  arch: Arch


# Children -> their losses on the step's batch, equal on all hosts.
Score = Callable[[list[Arch]], list[float]]
# (space, seed, step, score) -> the children of that step, teachers first; their
# roles are the same in every step. Without a score, any children of these roles
# may be returned.
Policy = Callable[[Space, int, int, Score | None], list[Child]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sandwich:
  """The sandwich rule: the biggest, the smallest and random children.

  US-Net (ICCV 2019), section 3, introduced it, and BigNAS uses it.
  """

  random_children: int = 2

  def __call__(
    self, space: Space, seed: int, step: int, score: Score | None = None
  ) -> list[Child]:
    del score
    return [*_ends(space), *_random(space, seed, step, self.random_children)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uniform:
  """Random children only, each decision drawn uniformly.

  Once-for-All (ICLR 2020) and single-path supernets train so.
  """

  random_children: int = 1

  def __call__(
    self, space: Space, seed: int, step: int, score: Score | None = None
  ) -> list[Child]:
    del score
    return _random(space, seed, step, self.random_children)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attentive:
  """The sandwich rule with random children that are chosen by their losses.

  AttentiveNAS (CVPR 2021, section 3): for each random child, candidates of one
  drawn cost are compared, and the one with the lowest loss (BestUp) or with the
  highest loss (WorstUp) is trained.

  Attributes:
    choice: which of the candidates is trained.
    candidates: number of candidates for each random child.
    random_children: number of random children in a step.
    bucket_macs: greatest width of the buckets of cost, MACs.
  """

  choice: Literal['best', 'worst'] = 'best'
  candidates: int = 3
  random_children: int = 2
  bucket_macs: int = 25_000_000

  def __call__(
    self, space: Space, seed: int, step: int, score: Score | None = None
  ) -> list[Child]:
    if score is None:
      return [*_ends(space), *_random(space, seed, step, self.random_children)]
    rng = arch_lib.generator(seed, step)
    most = counting.cost(space, arch_lib.biggest(space)).macs
    width = min(self.bucket_macs, most // _FEWEST)
    table = cost_buckets.build(space, width, _SAMPLES)
    slots = [
      cost_buckets.draw(space, table, self.candidates, rng)
      for _ in range(self.random_children)
    ]
    losses = np.array(score([arch for slot in slots for arch in slot]))
    losses = losses.reshape(len(slots), self.candidates)
    best = losses.argmin(1) if self.choice == 'best' else losses.argmax(1)
    chosen = [slot[i] for slot, i in zip(slots, best, strict=True)]
    return [*_ends(space), *(Child('random', arch) for arch in chosen)]


_SAMPLES = 5000  # children that costs are counted of, in seconds
_FEWEST = 20  # buckets of a space whose children cost little


def create(name: Name, random_children: int, candidates: int) -> Policy:
  """Returns a policy by its name in configs.

  Args:
    name: `sandwich` (the biggest, the smallest and random children); `best_up`
      or `worst_up` (a sandwich whose random children have the lowest or the
      highest loss of their candidates); `uniform` (random children only); or
      `alone` (the biggest, which is all of a space of one network).
    random_children: number of random children in a step.
    candidates: number of candidates for each of them.
  """
  if name == 'alone':
    return alone
  if name == 'sandwich':
    return Sandwich(random_children=random_children)
  if name == 'uniform':
    return Uniform(random_children=random_children)
  return Attentive(
    choice='best' if name == 'best_up' else 'worst',
    candidates=candidates,
    random_children=random_children,
  )


def asks_for_scores(policy: Policy) -> bool:
  """Returns whether a policy scores children on the step's batch."""
  return isinstance(policy, Attentive)


def _ends(space: Space) -> list[Child]:
  return [
    Child('biggest', arch_lib.biggest(space)),
    Child('smallest', arch_lib.smallest(space)),
  ]


def _random(space: Space, seed: int, step: int, number: int) -> list[Child]:
  rng = arch_lib.generator(seed, step)
  archs = [arch_lib.sample(space, rng, training=True) for _ in range(number)]
  return [Child('random', arch) for arch in archs]


def alone(
  space: Space, seed: int, step: int, score: Score | None = None
) -> list[Child]:
  """Returns only the biggest child, which is all of a space of one network."""
  del seed, step, score
  return [Child('biggest', arch_lib.biggest(space))]


def roles(policy: Policy, space: Space) -> tuple[str, ...]:
  """Returns the roles of a step's children, in their order."""
  return tuple(child.role for child in policy(space, 0, 0, None))
