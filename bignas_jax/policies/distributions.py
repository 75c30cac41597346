"""Learnt distributions over the architectures of a space.

A distribution is one categorical for each group of decisions. With one decision
in each group it is factorised; a group of several decisions has a joint
categorical over the product of their choices. The categoricals lie in one array
of logits, a row for each group, padded with -inf.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.spaces.stage import Choices


class Factors(NamedTuple):
  """The categoricals whose product a distribution is: what each is over.

  Attributes:
    sizes: number of choices of each decision.
    groups: numbers of the decisions of each categorical. Each decision is in
      one group.
  """

  sizes: tuple[int, ...]
  groups: tuple[tuple[int, ...], ...]

  def shape(self, group: int) -> tuple[int, ...]:
    """Returns the number of choices of each decision of a group."""
    return tuple(self.sizes[number] for number in self.groups[group])


def choices(space: Space) -> tuple[Choices, ...]:
  """Returns the choices of each decision; of resolutions, the trained ones."""
  return tuple(
    space.train_resolution if gene.field == 'resolution' else gene.choices
    for gene in decisions.genes(space)
  )


def of_space(space: Space) -> Factors:
  """Returns a factor for each decision of a space."""
  return factorised([len(some) for some in choices(space)])


def factorised(sizes: Sequence[int]) -> Factors:
  """Returns a factor for each decision, which is a group of its own."""
  return Factors(tuple(sizes), tuple((i,) for i in range(len(sizes))))


def uniform(factors: Factors) -> Float[np.ndarray, 'groups choices']:
  """Returns the logits of uniform categoricals."""
  lengths = [math.prod(factors.shape(i)) for i in range(len(factors.groups))]
  logits = np.full((len(lengths), max(lengths)), -np.inf)
  for row, length in zip(logits, lengths, strict=True):
    row[:length] = 0
  return logits


def joined(
  factors: Factors,
  logits: Float[np.ndarray, 'groups choices'],
  groups: Sequence[Sequence[int]],
) -> tuple[Factors, Float[np.ndarray, 'joint products']]:
  """Returns joint categoricals that are the same distribution as before.

  The logit of a combination is the sum of its choices' logits (FP-NAS, CVPR
  2021: from coarse to fine).

  Args:
    factors: factors of any groups.
    logits: logits of these groups.
    groups: for each new group, the numbers of the old groups that it joins.
  """
  assert sorted(i for some in groups for i in some) == [*range(len(logits))]
  joint = Factors(
    factors.sizes,
    tuple(tuple(d for i in some for d in factors.groups[i]) for some in groups),
  )
  result = np.full_like(uniform(joint), -np.inf)
  for row, some in zip(result, groups, strict=True):
    total = np.zeros(1)
    for i in some:
      length = math.prod(factors.shape(i))
      total = np.add.outer(total, logits[i, :length]).ravel()
    row[: len(total)] = total
  return joint, result


def _log_softmax(logits: Float[np.ndarray, '*n']) -> Float[np.ndarray, '*n']:
  shifted = logits - logits.max(-1, keepdims=True)
  return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def probabilities(
  logits: Float[np.ndarray, 'groups choices'],
) -> Float[np.ndarray, 'groups choices']:
  """Returns the probability of each choice; 0 for padding."""
  return np.exp(_log_softmax(logits))


def entropy(logits: Float[np.ndarray, 'groups choices']) -> float:
  """Returns the entropy in nats, the sum of the groups' entropies."""
  logs = _log_softmax(logits)
  finite = np.where(np.isfinite(logs), logs, 0)
  return float(-(np.exp(logs) * finite).sum())


def draw(
  probability: Float[np.ndarray, 'groups choices'],
  number: int,
  rng: np.random.Generator,
) -> Int[np.ndarray, 'number groups']:
  """Draws a choice for each group, independently.

  Args:
    probability: probabilities. Those below 0 count as 0, and the sums need not
      be 1.
    number: number of draws.
    rng: generator, which is consumed; equal states give equal draws.
  """
  sums = np.maximum(probability, 0).cumsum(1)
  sums /= sums[:, -1:]  # so the last is 1, which no random number reaches
  points = rng.random((number, len(sums)))
  return (points[..., None] >= sums).sum(-1)


def most_probable(
  weight: Float[np.ndarray, 'groups choices'],
) -> Int[np.ndarray, 'groups']:
  """Returns the likeliest choice of each group, by logits or probabilities."""
  return weight.argmax(1)


def log_probability(
  logits: Float[np.ndarray, 'groups choices'],
  picks: Int[np.ndarray, 'number groups'],
) -> Float[np.ndarray, 'number']:
  """Returns the log-probability of each draw."""
  logs = _log_softmax(logits)
  return logs[np.arange(len(logs)), picks].sum(1)


def weighted_gradient(
  logits: Float[np.ndarray, 'groups choices'],
  picks: Int[np.ndarray, 'number groups'],
  weight: Float[np.ndarray, 'number'],
  matters: Bool[np.ndarray, 'number groups'] | None = None,
) -> Float[np.ndarray, 'groups choices']:
  """Returns the gradient of the weighted sum of the log-probabilities.

  Args:
    logits: logits, with respect to which the gradient is.
    picks: draws.
    weight: weight of each draw's log-probability.
    matters: whether the architecture of a draw depends on each group's choice;
      the probability of the architecture is that of these choices alone. None:
      it depends on all.
  """
  share = np.ones(picks.shape) if matters is None else matters
  share = share * weight[:, None]
  gradient = -share.sum(0)[:, None] * probabilities(logits)
  for pick, one in zip(picks, share, strict=True):
    gradient[np.arange(len(pick)), pick] += one
  return gradient


def positions(
  factors: Factors, pick: Int[np.ndarray, 'groups']
) -> Int[np.ndarray, 'decisions']:
  """Returns the position of each decision's choice in a draw."""
  result = np.zeros(len(factors.sizes), int)
  for group, index in enumerate(pick):
    own = np.unravel_index(int(index), factors.shape(group))
    result[list(factors.groups[group])] = own
  return result


def picked(
  factors: Factors, position: Int[np.ndarray, 'decisions']
) -> Int[np.ndarray, 'groups']:
  """Returns the draw in which decisions have these positions."""
  return np.array(
    [
      np.ravel_multi_index(position[list(own)], factors.shape(group))
      for group, own in enumerate(factors.groups)
    ]
  )


def blocks(space: Space) -> tuple[tuple[int, ...], ...]:
  """Returns the numbers of all decisions, those of one block together.

  The width of a stage belongs to its first block. Where all blocks of a stage
  have the same choices, they count as one block.
  """
  starts = decisions.starts(space)
  groups: dict[object, list[int]] = {}
  for number, gene in enumerate(decisions.genes(space)):
    place = gene.position or 0
    block: object = gene.name  # a group of its own
    of_block = ('operation', *decisions.PER_BLOCK, decisions.SQUEEZE_EXCITE)
    if gene.field in of_block:
      block = place
    elif gene.field == 'width' and 0 < place <= len(space.stages):
      block = starts[place - 1]
    groups.setdefault(block, []).append(number)
  return tuple(tuple(group) for group in groups.values())


def arch(
  space: Space, factors: Factors, pick: Int[np.ndarray, 'groups']
) -> Arch:
  """Returns the architecture of a draw."""
  drawn = zip(choices(space), positions(factors, pick), strict=True)
  return arch_lib.write(space, [some[position] for some, position in drawn])


def chosen(space: Space, one: Arch) -> Int[np.ndarray, 'decisions']:
  """Returns the position of each decision's choice in an architecture."""
  values = zip(choices(space), arch_lib.read(space, one), strict=True)
  return np.array([some.index(value) for some, value in values])


def matters(space: Space, one: Arch) -> Bool[np.ndarray, 'decisions']:
  """Returns whether each decision is of a block that the architecture has."""
  result = []
  for gene in decisions.genes(space):
    position, present = gene.position, True
    if gene.field in ('operation', *decisions.per_block(space)):
      assert position is not None
      starts = decisions.starts(space)
      stage = int(np.searchsorted(starts, position, 'right')) - 1
      present = position - starts[stage] < one.depth[stage]
    result.append(present)
  return np.array(result)


def groups_that_matter(
  space: Space, factors: Factors, one: Arch
) -> Bool[np.ndarray, 'groups']:
  """Returns whether each group has a decision of a block that there is."""
  single = matters(space, one)
  return np.array([single[list(group)].any() for group in factors.groups])
