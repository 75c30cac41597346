"""The children that a step trains, as functions of (seed, step) alone.

Every host computes the same children, and so does a resumed run.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space

ROLES = ('biggest', 'random', 'smallest')


class Child(NamedTuple):
  """A child in a step, and its role there, one of `ROLES`."""

  role: str
  arch: Arch


# (space, seed, step) -> the children of that step, teachers first; their roles
# are the same in every step.
Policy = Callable[[Space, int, int], list[Child]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sandwich:
  """The sandwich rule: the biggest, the smallest and random children.

  US-Net (ICCV 2019), section 3, introduced it, and BigNAS uses it.
  """

  random_children: int = 2

  def __call__(self, space: Space, seed: int, step: int) -> list[Child]:
    return [
      Child('biggest', arch_lib.biggest(space)),
      Child('smallest', arch_lib.smallest(space)),
      *_random(space, seed, step, self.random_children),
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uniform:
  """Random children only, each decision drawn uniformly.

  Once-for-All (ICLR 2020) and single-path supernets train so.
  """

  random_children: int = 1

  def __call__(self, space: Space, seed: int, step: int) -> list[Child]:
    return _random(space, seed, step, self.random_children)


def _random(space: Space, seed: int, step: int, number: int) -> list[Child]:
  rng = arch_lib.generator(seed, step)
  archs = [arch_lib.sample(space, rng, training=True) for _ in range(number)]
  return [Child('random', arch) for arch in archs]


def alone(space: Space, seed: int, step: int) -> list[Child]:
  """Returns only the biggest child, which is all of a space of one network."""
  del seed, step
  return [Child('biggest', arch_lib.biggest(space))]


def roles(policy: Policy, space: Space) -> tuple[str, ...]:
  """Returns the roles of a step's children, in their order."""
  return tuple(child.role for child in policy(space, 0, 0))
