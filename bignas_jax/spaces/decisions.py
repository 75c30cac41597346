"""The decisions that a space leaves open, in the order of an Arch's fields."""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bignas_jax.spaces.space import Space, multiplied
from bignas_jax.spaces.stage import Choices


class Gene(NamedTuple):
  """One decision: its place in an Arch, and its choices.

  The choices of a `multiplier` are positions in the space's multipliers.
  """

  field: str
  position: int | None
  choices: Choices

  @property
  def name(self) -> str:
    """Returns the decision's name, such as `width[1]`."""
    if self.position is None:
      return self.field
    return f'{self.field}[{self.position}]'


PER_BLOCK = ('kernel_size', 'expand_ratio')  # or per stage, as the space says


def of_stage(space: Space, number: int) -> slice:
  """Returns the entries of `PER_BLOCK` fields that belong to a stage."""
  return slice(*starts(space)[number : number + 2])


@functools.lru_cache(maxsize=64)
def starts(space: Space) -> tuple[int, ...]:
  """Returns the first entry of each stage in `PER_BLOCK`, and the end."""
  every = [max(s.depth) if space.per_block else 1 for s in space.stages]
  return (0, *itertools.accumulate(every))


def place(space: Space, number: int, block: int) -> int:
  """Returns the entry of `PER_BLOCK` fields that belongs to a block."""
  first = of_stage(space, number).start
  return first + block if space.per_block else first


@functools.lru_cache(maxsize=64)
def entries(space: Space) -> tuple[Gene, ...]:
  """Returns all entries of an Arch with their choices, in its fields' order."""
  every = [Gene('resolution', None, space.resolution)]
  every += [Gene('width', i, choices) for i, choices in enumerate(space.widths)]
  every += [Gene('depth', i, s.depth) for i, s in enumerate(space.stages)]
  for field in PER_BLOCK:
    choices = [
      getattr(stage, field)
      for stage in space.stages
      for _ in range(max(stage.depth) if space.per_block else 1)
    ]
    every += [Gene(field, i, some) for i, some in enumerate(choices)]
  return tuple(every)


@functools.lru_cache(maxsize=64)
def genes(space: Space) -> tuple[Gene, ...]:
  """Returns all decisions of a space: its entries, those that are tied as one.

  The first is the resolution. All widths of a space with multipliers are tied;
  in any space, the width of a stage that may have no block is tied to that of
  its input.
  """
  every = entries(space)
  if not space.multipliers:
    kept = _kept(space)
    return tuple(entry for i, entry in enumerate(every) if i not in kept)
  tied = len(space.stages) + 1
  multiplier = Gene('multiplier', None, tuple(range(len(space.multipliers))))
  return every[0], multiplier, *every[1 + tied :]


def drawn(choices: Choices, rng: np.random.Generator) -> int:
  """Draws as `rng.choice(choices)` does, in a sixth of the time."""
  return choices[int(rng.integers(len(choices)))]


def of_entries(space: Space, values: Sequence[int]) -> list[int]:
  """Returns the values of all genes, from those of all entries.

  The value of a multiplier is -1 if the widths are those of none.
  """
  if not space.multipliers:
    kept = _kept(space)
    return [value for i, value in enumerate(values) if i not in kept]
  tied, rows = len(space.stages) + 1, multiplied(space)
  widths = tuple(values[1 : 1 + tied])
  row = rows.index(widths) if widths in rows else -1
  return [values[0], row, *values[1 + tied :]]


def of_genes(space: Space, values: Sequence[int]) -> list[int]:
  """Returns the values of all entries, from those of all genes."""
  values = [int(value) for value in values]
  if space.multipliers:
    values[1:2] = multiplied(space)[values[1]]
    return values
  for i in _kept(space):
    values.insert(i, values[i - 1])
  return values


def _kept(space: Space) -> list[int]:
  """Returns the entries that are the width of the stage's input."""
  return [i + 2 for i, stage in enumerate(space.stages) if stage.optional]


def banks(space: Space) -> int:
  """Returns how many parameters of its own each batch norm has."""
  private = {
    'no': (0,),
    'width': space.multipliers,
    'resolution': space.train_resolution,
  }
  return len(private[space.private_norms])
