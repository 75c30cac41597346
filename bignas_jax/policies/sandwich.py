"""The sandwich rule, and the policies that are parts of it."""

import dataclasses
from typing import Literal

from bignas_jax.policies import policies
from bignas_jax.policies.policies import Child, Policy, Score, State
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.space import Space

# Resolution of the smallest child: the smallest trained one, or one that is
# drawn in each step.
SmallestResolution = Literal['smallest', 'drawn']


def sandwich(
  space: Space,
  random_children: int = 2,
  smallest_resolution: SmallestResolution = 'smallest',
) -> Policy:
  """Returns the sandwich rule: the biggest, the smallest and random children.

  US-Net (ICCV 2019), section 3, introduced it, and BigNAS uses it.

  Args:
    space: space of the children.
    random_children: number of random children in a step.
    smallest_resolution: resolution of the smallest child. MutualNet (ECCV 2020)
      draws it. All else of this child is the smallest in any case.
  """
  if smallest_resolution == 'drawn' and len(space.train_resolution) > 1:
    return _drawn(space, random_children)
  ends = policies.ends(space)

  def sample(
    state: State, seed: int, draw: int, score: Score | None = None
  ) -> list[Child]:
    del state, score
    fixed = [Child(role, arch) for role, arch in ends.items()]
    return [*fixed, *random(space, seed, draw, random_children)]

  return Policy((*ends, *('random',) * random_children), ends, sample)


def _drawn(space: Space, random_children: int) -> Policy:
  """Returns the sandwich rule whose smallest child's resolution is drawn.

  This child is not static. It comes last, so that the programs that it shares
  with random children have their name.
  """
  plain = sandwich(space, random_children)

  def sample(
    state: State, seed: int, draw: int, score: Score | None = None
  ) -> list[Child]:
    biggest, smallest, *others = plain.sample(state, seed, draw, score)
    rng = arch_lib.generator(seed, draw, 1)  # random children are the plain's
    size = int(rng.choice(space.train_resolution))
    arch = dataclasses.replace(smallest.arch, resolution=size)
    return [biggest, *others, Child('smallest', arch)]

  static = {'biggest': plain.static['biggest']}
  roles = 'biggest', *('random',) * random_children, 'smallest'
  return Policy(roles, static, sample)


def uniform(space: Space, random_children: int = 1) -> Policy:
  """Returns the policy of random children only, each drawn uniformly.

  Single-path supernets train so.
  """

  def sample(
    state: State, seed: int, draw: int, score: Score | None = None
  ) -> list[Child]:
    del state, score
    return random(space, seed, draw, random_children)

  return Policy(('random',) * random_children, {}, sample)


def alone(space: Space) -> Policy:
  """Returns the policy of the biggest child, all of a space of one network."""
  biggest = arch_lib.biggest(space)

  def sample(
    state: State, seed: int, draw: int, score: Score | None = None
  ) -> list[Child]:
    del state, seed, draw, score
    return [Child('biggest', biggest)]

  return Policy(('biggest',), {'biggest': biggest}, sample)


def random(space: Space, seed: int, draw: int, number: int) -> list[Child]:
  """Returns children whose decisions are all drawn uniformly."""
  rng = arch_lib.generator(seed, draw)
  archs = [arch_lib.sample(space, rng, training=True) for _ in range(number)]
  return [Child('random', arch) for arch in archs]
