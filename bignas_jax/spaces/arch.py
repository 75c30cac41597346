"""An architecture as data, and all that is derived from its space's choices.

People read and write `Arch`; compiled programs take `Indices`, small integer
arrays, as an argument. Sampling, mutation, crossover, membership and counting
all use `genes`: the flat list of decisions that make an architecture.
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
    depth: number of blocks of each stage.
    kernel_size: kernel size of each stage's depthwise convolutions.
    expand_ratio: expand ratio of each stage's blocks.
  """

  resolution: int
  width: Choices
  depth: Choices
  kernel_size: Choices
  expand_ratio: Choices


class Indices(NamedTuple):
  """An architecture as positions in the space's tuples; stackable.

  The resolution is not included: it is the shape of the images.
  """

  width: Any  # int32[..., stages + 2]
  depth: Any  # int32[..., stages]
  kernel_size: Any  # int32[..., stages]
  expand_ratio: Any  # int32[..., stages]


class Gene(NamedTuple):
  """One decision: its place in an Arch, and its choices."""

  field: str
  position: int | None
  choices: Choices

  @property
  def name(self) -> str:
    """Returns the decision's name, such as `width[1]`."""
    if self.position is None:
      return self.field
    return f'{self.field}[{self.position}]'


PER_STAGE = ('depth', 'kernel_size', 'expand_ratio')


def genes(space: Space) -> list[Gene]:
  """Returns all decisions of a space, in the order of Arch's fields."""
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
  """Returns the architecture's values in the order of `genes`."""
  return [
    arch.resolution,
    *arch.width,
    *arch.depth,
    *arch.kernel_size,
    *arch.expand_ratio,
  ]


def write(space: Space, values: list[int]) -> Arch:
  """Returns the architecture with these values: the inverse of `read`."""
  fields: dict[str, Any] = {}
  for gene, value in zip(genes(space), values, strict=True):
    if gene.position is None:
      fields[gene.field] = int(value)
    else:
      fields[gene.field] = (*fields.get(gene.field, ()), int(value))
  return Arch(**fields)


def smallest(space: Space) -> Arch:
  """Returns the child of all minima, at the smallest training resolution."""
  arch = write(space, [gene.choices[0] for gene in genes(space)])
  return dataclasses.replace(arch, resolution=space.train_resolution[0])


def biggest(space: Space) -> Arch:
  """Returns the child of all maxima, at the biggest training resolution."""
  arch = write(space, [gene.choices[-1] for gene in genes(space)])
  return dataclasses.replace(arch, resolution=space.train_resolution[-1])


def sample(
  space: Space, rng: np.random.Generator, *, training: bool = False
) -> Arch:
  """Draws every decision uniformly and independently.

  Args:
    space: space to draw from.
    rng: generator, which is consumed; equal states give equal architectures.
    training: whether the resolution is drawn from the trained ones only.
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
  """Returns the number of architectures in the space."""
  return math.prod(len(gene.choices) for gene in genes(space))


def every(space: Space) -> Iterator[Arch]:
  """Yields all architectures of a small space, from smallest to biggest."""
  for values in itertools.product(*(gene.choices for gene in genes(space))):
    yield write(space, list(values))


def is_one(space: Space) -> bool:
  """Returns whether the space holds one architecture, as `pin`'s does."""
  return count(space) == 1


def contains(space: Space, arch: Arch) -> bool:
  """Returns whether the architecture is one of the space's."""
  try:
    check(space, arch)
  except errors.UserError:
    return False
  return True


def check(space: Space, arch: Arch) -> Arch:
  """Returns the architecture; UserError names its first wrong entry."""
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
  """Returns positions of the architecture's values in the space's tuples."""
  check(space, arch)
  entries: dict[str, list[int]] = {field: [] for field in Indices._fields}
  for gene, value in zip(genes(space), read(arch), strict=True):
    if gene.position is not None:
      entries[gene.field].append(gene.choices.index(value))
  return Indices(**{k: np.array(v, np.int32) for k, v in entries.items()})


def decode(space: Space, indices: Indices, resolution: int) -> Arch:
  """Returns the architecture at these positions: the inverse of `encode`."""
  values = [resolution] + [
    gene.choices[int(getattr(indices, gene.field)[gene.position])]
    for gene in genes(space)
    if gene.position is not None
  ]
  return check(space, write(space, values))


def pin(space: Space, arch: Arch) -> Space:
  """Returns the space of this architecture only: the child's own shape."""
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
  """Returns a dict with the fields' names as keys, ready for JSON."""
  fields = dataclasses.asdict(arch)
  return {k: v if k == 'resolution' else list(v) for k, v in fields.items()}


def to_json(arch: Arch) -> str:
  """Returns the architecture as JSON."""
  return json.dumps(to_dict(arch))


def from_dict(space: Space, fields: Any) -> Arch:
  """Reads the JSON form; UserError names a missing, unknown or wrong entry."""
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
  """Returns the generator of a path of numbers, such as (seed, step)."""
  return np.random.default_rng(np.random.SeedSequence(path))
