"""The sandwich rule, and the policies that are parts of it."""

from bignas_jax.policies import policies
from bignas_jax.policies.policies import Child, Policy, Score, State
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.space import Space


def sandwich(space: Space, random_children: int = 2) -> Policy:
  """Returns the sandwich rule: the biggest, the smallest and random children.

  US-Net (ICCV 2019), section 3, introduced it, and BigNAS uses it.
  """
  ends = policies.ends(space)

  def sample(
    state: State, seed: int, step: int, score: Score | None = None
  ) -> list[Child]:
    del state, score
    fixed = [Child(role, arch) for role, arch in ends.items()]
    return [*fixed, *random(space, seed, step, random_children)]

  return Policy((*ends, *('random',) * random_children), ends, sample)


def uniform(space: Space, random_children: int = 1) -> Policy:
  """Returns the policy of random children only, each drawn uniformly.

  Single-path supernets train so.
  """

  def sample(
    state: State, seed: int, step: int, score: Score | None = None
  ) -> list[Child]:
    del state, score
    return random(space, seed, step, random_children)

  return Policy(('random',) * random_children, {}, sample)


def alone(space: Space) -> Policy:
  """Returns the policy of the biggest child, all of a space of one network."""
  biggest = arch_lib.biggest(space)

  def sample(
    state: State, seed: int, step: int, score: Score | None = None
  ) -> list[Child]:
    del state, seed, step, score
    return [Child('biggest', biggest)]

  return Policy(('biggest',), {'biggest': biggest}, sample)


def random(space: Space, seed: int, step: int, number: int) -> list[Child]:
  """Returns children whose decisions are all drawn uniformly."""
  rng = arch_lib.generator(seed, step)
  archs = [arch_lib.sample(space, rng, training=True) for _ in range(number)]
  return [Child('random', arch) for arch in archs]
