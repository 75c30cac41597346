"""The decisions that a space leaves open, in the order of an Arch's fields."""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bignas_jax.spaces import block_kinds
from bignas_jax.spaces.space import Space, multiplied
from bignas_jax.spaces.stage import Choices
from bignas_jax.values import errors


class Gene(NamedTuple):
  """One decision: its place in an Arch, and its choices.

  The choices of a `multiplier` are positions in the space's multipliers, those
  of an `operation` positions in `block_kinds.operations`.
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


class Decision(NamedTuple):
  """A decision, and what it sets.

  Attributes:
    gene: the decision.
    places: numbers of the entries of an Arch that it sets (`entries`).
    rows: for each of its choices, the values of these entries.
  """

  gene: Gene
  places: tuple[int, ...]
  rows: tuple[Choices, ...]

  def row(self, value: int) -> Choices:
    """Returns the values of the entries, for a value of the decision."""
    if len(self.places) == 1:
      return (value,)
    return self.rows[self.gene.choices.index(value)]

  def value(self, row: Sequence[int]) -> int:
    """Returns the value of the decision; -1: it has none for these entries."""
    if len(self.places) == 1:
      return row[0]
    row = tuple(row)
    return self.gene.choices[self.rows.index(row)] if row in self.rows else -1


PER_BLOCK = ('kernel_size', 'expand_ratio')  # or per stage, as the space says
PARALLEL, SQUEEZE_EXCITE = 'parallel', 'squeeze_excite'
SOMETIMES = (PARALLEL, SQUEEZE_EXCITE)  # fields that are empty in most spaces


@functools.lru_cache(maxsize=64)
def per_block(space: Space) -> tuple[str, ...]:
  """Returns the fields of an Arch that have an entry for each block.

  They have an entry for each stage in spaces without choices per block.
  """
  there = {
    PARALLEL: any(stage.parallel for stage in space.stages),
    SQUEEZE_EXCITE: any(stage.se_choice for stage in space.stages),
  }
  return (*PER_BLOCK, *(field for field in SOMETIMES if there[field]))


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


def of_block(space: Space, number: int, block: int, field: str) -> Choices:
  """Returns the choices that a block of a stage has in a field.

  A block without parallel members has the mask 0.
  """
  stage, first = space.stages[number], block == 0
  if field == SQUEEZE_EXCITE:
    return block_kinds.squeezes(stage)
  if field != PARALLEL:
    return getattr(stage, field)
  changes = first and stage.width != space.widths[number]
  masks = block_kinds.masks(stage, first=first, changes_width=changes)
  return masks or (0,)


@functools.lru_cache(maxsize=64)
def entries(space: Space) -> tuple[Gene, ...]:
  """Returns all entries of an Arch with their choices, in its fields' order."""
  every = [Gene('resolution', None, space.resolution)]
  every += [Gene('width', i, choices) for i, choices in enumerate(space.widths)]
  every += [Gene('depth', i, s.depth) for i, s in enumerate(space.stages)]
  for field in per_block(space):
    choices = [
      of_block(space, number, block, field)
      for number, stage in enumerate(space.stages)
      for block in range(max(stage.depth) if space.per_block else 1)
    ]
    every += [Gene(field, i, some) for i, some in enumerate(choices)]
  return tuple(every)


@functools.lru_cache(maxsize=64)
def decisions(space: Space) -> tuple[Decision, ...]:
  """Returns all decisions of a space, the resolution first.

  Most set one entry. Where a space ties several entries, they are one decision.
  """
  every = entries(space)
  tied = [*_multiplier(space), *_kept(space), *_operations(space)]
  by_place = {decision.places[0]: decision for decision in tied}
  others = {number for decision in tied for number in decision.places[1:]}
  return tuple(
    by_place.get(number)
    or Decision(gene, (number,), tuple((choice,) for choice in gene.choices))
    for number, gene in enumerate(every)
    if number not in others
  )


def check_tied(space: Space, values: Sequence[int]) -> None:
  """Raises UserError if entries that are one decision do not fit together.

  Args:
    space: space of the architecture.
    values: values of the entries, in the order of `entries`.
  """
  for decision in decisions(space):
    given = [values[place] for place in decision.places]
    if len(given) > 1 and decision.value(given) < 0:
      names = [entries(space)[place].name for place in decision.places]
      allowed = f'one of {", ".join(str([*row]) for row in decision.rows[:3])}'
      allowed += f'{", ..." if decision.rows[3:] else ""} in space {space.name}'
      raise errors.UserError(f'arch.{names[0]} to {names[-1]}', given, allowed)


def drawn(choices: Choices, rng: np.random.Generator) -> int:
  """Draws as `rng.choice(choices)` does, in a sixth of the time."""
  return choices[int(rng.integers(len(choices)))]


@functools.lru_cache(maxsize=64)
def genes(space: Space) -> tuple[Gene, ...]:
  """Returns all decisions of a space without what they set."""
  return tuple(decision.gene for decision in decisions(space))


def _multiplier(space: Space) -> list[Decision]:
  """Returns the decision of all widths but the head's, if they are tied."""
  if not space.multipliers:
    return []
  gene = Gene('multiplier', None, tuple(range(len(space.multipliers))))
  places = tuple(range(1, len(space.stages) + 2))
  return [Decision(gene, places, tuple(multiplied(space)))]


def _kept(space: Space) -> list[Decision]:
  """Returns the decisions of widths that stages keep of their inputs.

  A stage that may have no block keeps the width of its input.
  """
  if space.multipliers:
    return []
  every, ties, place = entries(space), [], 1
  for number, stage in enumerate(space.stages):
    after = number + 2  # the entry of the stage's width
    if not stage.optional:
      place = after
      continue
    choices = every[place].choices
    rows = tuple((width,) * (after - place + 1) for width in choices)
    others = [decision for decision in ties if decision.places[0] != place]
    places = tuple(range(place, after + 1))
    ties = [*others, Decision(every[place], places, rows)]
  return ties


def _operations(space: Space) -> list[Decision]:
  """Returns the decision of each block (or stage) of separate operations."""
  first = 1 + len(space.widths) + len(space.stages)
  entries_of_a_field = of_stage(space, len(space.stages) - 1).stop
  ties = []
  for number, stage in enumerate(space.stages):
    if stage.separate_weights:
      own = of_stage(space, number)
      for entry in range(own.start, own.stop):
        rows = block_kinds.operations(stage, first=entry == own.start)
        gene = Gene('operation', entry, tuple(range(len(rows))))
        places = first + entry, first + entries_of_a_field + entry
        ties.append(Decision(gene, places, rows))
  return ties


def options(space: Space, number: int) -> list[int]:
  """Returns how many choices each block of a stage has, in `PER_BLOCK`."""
  own, numbers = of_stage(space, number), [1] * max(space.stages[number].depth)
  for gene in genes(space):
    if gene.field in ('operation', *per_block(space)):
      assert gene.position is not None
      if own.start <= gene.position < own.stop:
        numbers[gene.position - own.start] *= len(gene.choices)
  return numbers


def banks(space: Space) -> int:
  """Returns how many parameters of its own each batch norm has."""
  private = {
    'no': (0,),
    'width': space.multipliers,
    'resolution': space.train_resolution,
  }
  return len(private[space.private_norms])
