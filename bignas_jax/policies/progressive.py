"""The policy of random children whose choices grow from phase to phase."""

import bisect
import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from bignas_jax.policies.policies import Child, Policy, Score, State
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.values import errors, schema


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
  """A phase of progressive training, in a config.

  Attributes:
    steps: number of steps; the last phase lasts to the end of the run.
    random_children: number of children in a step.
    kernel_size: how many of the largest choices of each decision on a kernel
      size children may take; 0: all.
    depth: the same for depths.
    expand_ratio: the same for expand ratios.
    width: the same for widths.
    resort: whether hidden channels are sorted by importance when it begins.
  """

  steps: schema.Natural
  random_children: schema.Natural = 1
  kernel_size: schema.Whole = 0
  depth: schema.Whole = 0
  expand_ratio: schema.Whole = 0
  width: schema.Whole = 0
  resort: bool = False


def progressive(space: Space, phases: Sequence[Phase]) -> Policy:
  """Returns the policy of Once-for-All (ICLR 2020, section 3.3).

  Children are drawn uniformly from the choices of the phase. All of a step have
  one resolution, as in the authors' code. Skipped draws of a rollback count as
  steps of a phase.

  Raises:
    UserError: there is no phase, or channels are to be sorted in a space with
      private batch norms.
  """
  if not phases:
    allowed = 'at least one, for policy progressive'
    raise errors.UserError('phases', (), allowed)
  resorted = any(phase.resort for phase in phases)
  if resorted and space.private_norms != 'no':
    field, allowed = 'space.private_norms', 'no, for phases that resort'
    raise errors.UserError(field, space.private_norms, allowed)
  ends = list(itertools.accumulate(phase.steps for phase in phases[:-1]))
  numbers = [phase.random_children for phase in phases]

  def sample(
    state: State, seed: int, draw: int, score: Score | None = None
  ) -> list[Child]:
    del state, score
    phase = phases[bisect.bisect_right(ends, draw)]
    rng = arch_lib.generator(seed, draw)
    size = int(rng.choice(space.train_resolution))
    archs = [_drawn(space, phase, rng) for _ in range(phase.random_children)]
    return [
      Child('random', dataclasses.replace(arch, resolution=size))
      for arch in archs
    ]

  roles = ('random',) * max(numbers)
  starts = zip([0, *ends], phases, strict=True)
  return Policy(
    roles,
    {},
    sample,
    varies=min(numbers) < max(numbers),
    resorts=frozenset(start for start, phase in starts if phase.resort),
  )


def _drawn(space: Space, phase: Phase, rng: np.random.Generator) -> Arch:
  """Returns a child of a phase's choices, drawn uniformly."""
  values = []
  for gene in decisions.genes(space):
    number = getattr(phase, gene.field, 0)
    values.append(int(rng.choice(gene.choices[-number:])))  # [-0:] is all
  return arch_lib.write(space, values)
