"""An architecture as data, and everything that derives from a space's table.

`Arch` is what people read and write; `Indices` is the same as small integer
arrays, which compiled programs take as an argument. Sampling, mutation,
crossover, membership and counting all go through `genes`: the flat list of
decisions that make an architecture.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from bignas_jax.spaces.space import Choices, Space
from bignas_jax.values import errors


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class Arch:
  """One child network.

  Attributes:
    resolution: input size in pixels.
    width: channels of the stem, of each stage, and of the head.
    depth: blocks of each stage.
    kernel_size: of each stage's depthwise convolutions.
    expand_ratio: of each stage's blocks.
  """

  resolution: int
  width: Choices
  depth: Choices
  kernel_size: Choices
  expand_ratio: Choices


class Indices(NamedTuple):
  """An architecture as positions in the space's tuples; stackable.

  The resolution is not among them: it is the shape of the images.
  """

  width: Any  # int32[..., stages + 2]
  depth: Any  # int32[..., stages]
  kernel_size: Any  # int32[..., stages]
  expand_ratio: Any  # int32[..., stages]


class Gene(NamedTuple):
  """One decision: where it stands in an Arch, and what it may be."""

  field: str
  position: int | None
  choices: Choices

  @property
  def name(self) -> str:
    if self.position is None:
      return self.field
    return f'{self.field}[{self.position}]'


PER_STAGE = ('depth', 'kernel_size', 'expand_ratio')


def genes(space: Space) -> list[Gene]:
  """All decisions of a space, in the order of Arch's fields."""
  widths = [space.stem_width, *(s.width for s in space.stages)]
  widths.append(space.head_width)
  entries = [Gene('resolution', None, space.resolution)]
  entries += [Gene('width', i, choices) for i, choices in enumerate(widths)]
  for field in PER_STAGE:
    entries += [
      Gene(field, i, getattr(stage, field))
      for i, stage in enumerate(space.stages)
    ]
  return entries


def read(arch: Arch) -> list[int]:
  """The architecture's values in the order of `genes`."""
  return [
    arch.resolution,
    *arch.width,
    *arch.depth,
    *arch.kernel_size,
    *arch.expand_ratio,
  ]


def write(space: Space, values: list[int]) -> Arch:
  """The inverse of `read`."""
  fields: dict[str, Any] = {}
  for gene, value in zip(genes(space), values, strict=True):
    if gene.position is None:
      fields[gene.field] = int(value)
    else:
      fields[gene.field] = (*fields.get(gene.field, ()), int(value))
  return Arch(**fields)


def smallest(space: Space) -> Arch:
  """The minimum in every dimension, among the trained resolutions."""
  arch = write(space, [gene.choices[0] for gene in genes(space)])
  return dataclasses.replace(arch, resolution=space.train_resolution[0])


def biggest(space: Space) -> Arch:
  """The maximum in every dimension, among the trained resolutions."""
  arch = write(space, [gene.choices[-1] for gene in genes(space)])
  return dataclasses.replace(arch, resolution=space.train_resolution[-1])


def sample(
  space: Space, rng: np.random.Generator, *, training: bool = False
) -> Arch:
  """Draws every decision uniformly and independently.

  Args:
    space: where to draw from.
    rng: consumed; the same state gives the same architecture.
    training: draw the resolution among the trained ones only.
  """
  arch = write(space, [int(rng.choice(g.choices)) for g in genes(space)])
  if training:
    size = int(rng.choice(space.train_resolution))
    arch = dataclasses.replace(arch, resolution=size)
  return arch


def mutate(
  space: Space, arch: Arch, rng: np.random.Generator, probability: float
) -> Arch:
  """Redraws each decision with the given probability."""
  values = [
    int(rng.choice(gene.choices)) if rng.random() < probability else value
    for gene, value in zip(genes(space), read(arch), strict=True)
  ]
  return write(space, values)


def crossover(
  space: Space, mother: Arch, father: Arch, rng: np.random.Generator
) -> Arch:
  """Takes each decision from either parent with equal chance."""
  pairs = zip(read(mother), read(father), strict=True)
  return write(space, [int(rng.choice(pair)) for pair in pairs])


def count(space: Space) -> int:
  """The number of architectures in the space."""
  return math.prod(len(gene.choices) for gene in genes(space))


def every(space: Space) -> Iterator[Arch]:
  """All architectures of a small space, from the smallest to the biggest."""
  for values in itertools.product(*(gene.choices for gene in genes(space))):
    yield write(space, list(values))


def is_one(space: Space) -> bool:
  """Whether it holds a single architecture, as `pin` leaves it."""
  return count(space) == 1


def contains(space: Space, arch: Arch) -> bool:
  """Whether the architecture is one of the space's."""
  try:
    check(space, arch)
  except errors.UserError:
    return False
  return True


def check(space: Space, arch: Arch) -> Arch:
  """Returns the architecture; UserError names the first foreign entry."""
  lengths = {'width': len(space.stages) + 2} | dict.fromkeys(
    PER_STAGE, len(space.stages)
  )
  for field, length in lengths.items():
    if len(getattr(arch, field)) != length:
      raise errors.UserError(
        f'arch.{field}', getattr(arch, field), f'{length} numbers'
      )
  for gene, value in zip(genes(space), read(arch), strict=True):
    if value not in gene.choices:
      raise errors.UserError(
        f'arch.{gene.name}',
        value,
        f'one of {", ".join(map(str, gene.choices))} in space {space.name}',
      )
  return arch


def encode(space: Space, arch: Arch) -> Indices:
  """Positions of the architecture's values in the space's tuples."""
  check(space, arch)
  entries: dict[str, list[int]] = {field: [] for field in Indices._fields}
  for gene, value in zip(genes(space), read(arch), strict=True):
    if gene.position is not None:
      entries[gene.field].append(gene.choices.index(value))
  return Indices(**{k: np.array(v, np.int32) for k, v in entries.items()})


def decode(space: Space, indices: Indices, resolution: int) -> Arch:
  """The inverse of `encode`."""
  values = [resolution] + [
    gene.choices[int(getattr(indices, gene.field)[gene.position])]
    for gene in genes(space)
    if gene.position is not None
  ]
  return check(space, write(space, values))


def pin(space: Space, arch: Arch) -> Space:
  """The space that holds this architecture only: the child's own shape."""
  check(space, arch)
  stages = [
    dataclasses.replace(
      stage,
      width=(arch.width[i + 1],),
      expand_conv=stage.has_expand,
      **{field: (getattr(arch, field)[i],) for field in PER_STAGE},
    )
    for i, stage in enumerate(space.stages)
  ]
  return dataclasses.replace(
    space,
    resolution=(arch.resolution,),
    train_resolution=(arch.resolution,),
    stem_width=arch.width[:1],
    stages=tuple(stages),
    head_width=arch.width[-1:],
  )


def to_dict(arch: Arch) -> dict[str, Any]:
  """The field's own keys, ready for JSON."""
  fields = dataclasses.asdict(arch)
  return {k: v if k == 'resolution' else list(v) for k, v in fields.items()}


def to_json(arch: Arch) -> str:
  return json.dumps(to_dict(arch))


def from_dict(space: Space, fields: Any) -> Arch:
  """Reads the JSON form; UserError names a missing, foreign or odd entry."""
  names = [field.name for field in dataclasses.fields(Arch)]
  if not isinstance(fields, dict) or set(fields) != set(names):
    raise errors.UserError(
      'arch', fields, 'a JSON object with the keys ' + ', '.join(names)
    )
  for name, value in fields.items():
    entries = [value] if name == 'resolution' else value
    whole = isinstance(entries, list | tuple)
    if not whole or any(type(entry) is not int for entry in entries):
      kind = 'a whole number' if name == 'resolution' else 'whole numbers'
      raise errors.UserError(f'arch.{name}', value, kind)
  values: dict[str, Any] = {
    k: v if k == 'resolution' else tuple(v) for k, v in fields.items()
  }
  return check(space, Arch(**values))


def generator(*path: int) -> np.random.Generator:
  """A generator of its own for a path of numbers, such as (seed, step)."""
  return np.random.default_rng(np.random.SeedSequence(path))
