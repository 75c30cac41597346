"""An architecture as data, and all that is derived from its space's choices.

People read and write `Arch`; compiled programs take `Indices`, small arrays.
All else follows from the flat list of a space's decisions (`decisions.genes`).
"""

import collections
import dataclasses
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bignas_jax.spaces import decisions
from bignas_jax.spaces.decisions import PER_BLOCK, drawn, entries, genes
from bignas_jax.spaces.space import Space
from bignas_jax.spaces.stage import Choices
from bignas_jax.values import errors, structs


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class Arch:
  """One child network.

  Attributes:
    resolution: input size in pixels.
    width: channels of the stem, of each stage, and of the head if there is one.
    depth: number of blocks of each stage.
    kernel_size: kernel size of each stage's convolutions that have one; in a
      space with choices per block, of each block of each stage at its largest
      depth. Blocks that the child has not have the smallest choice.
    expand_ratio: expand ratio of each stage's blocks, or of each block.
    parallel: mask of each block's parallel members, 0 for one without; empty in
      a space that has none.
    squeeze_excite: 1 for each stage's blocks, or each block, with
      squeeze-excite, 0 for those without; empty in a space where it is no
      choice.
  """

  resolution: int
  width: Choices
  depth: Choices
  kernel_size: Choices
  expand_ratio: Choices
  parallel: Choices = ()
  squeeze_excite: Choices = ()


class Indices(NamedTuple):
  """An architecture as positions in the space's tuples; stackable.

  The resolution is not included: it is the shape of the images. In a space with
  private batch norms, the bank is the number of their parameters.
  """

  width: Any  # int32[..., stages + 2], or + 1 without a head
  depth: Any  # int32[..., stages]
  kernel_size: Any  # int32[..., stages or blocks]
  expand_ratio: Any  # int32[..., stages or blocks]
  bank: Any = None  # int32[...]
  parallel: Any = None  # int32[..., blocks]
  squeeze_excite: Any = None  # int32[..., stages or blocks]


_LISTS = ('width', 'depth', *PER_BLOCK, *decisions.SOMETIMES)


def _flat(arch: Arch) -> list[int]:
  lists = (getattr(arch, field) for field in _LISTS)
  return [arch.resolution, *itertools.chain(*lists)]


def read(space: Space, arch: Arch) -> list[int]:
  """Returns the architecture's values in the order of `genes`.

  The value of a decision that sets several entries is -1 if they have values
  that it cannot give them.
  """
  flat = _flat(arch)
  return [
    decision.value([flat[place] for place in decision.places])
    for decision in decisions.decisions(space)
  ]


def write(space: Space, values: Sequence[int]) -> Arch:
  """Returns the architecture with these values: the inverse of `read`.

  Values of blocks that the architecture has not are not used.
  """
  flat = [0] * len(entries(space))
  for decision, value in zip(decisions.decisions(space), values, strict=True):
    row = decision.row(int(value))
    for place, entry in zip(decision.places, row, strict=True):
      flat[place] = entry
  fields: dict[str, Any] = {}
  for entry, value in zip(entries(space), flat, strict=True):
    if entry.position is None:
      fields[entry.field] = value
    else:
      fields.setdefault(entry.field, []).append(value)
  fields = {k: tuple(v) if k != 'resolution' else v for k, v in fields.items()}
  arch = Arch(**fields)
  return canonical(space, arch) if space.per_block else arch


def canonical(space: Space, arch: Arch) -> Arch:
  """Returns the architecture with the smallest choices for absent blocks."""
  names = decisions.per_block(space)
  fields = {field: [*getattr(arch, field)] for field in names}
  starts = decisions.starts(space)
  for i, stage in enumerate(space.stages):
    for block in range(arch.depth[i], max(stage.depth)):
      for field, values in fields.items():
        least = decisions.of_block(space, i, block, field)[0]
        values[starts[i] + block] = least
  return dataclasses.replace(arch, **{k: tuple(v) for k, v in fields.items()})


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
  arch = write(space, [drawn(g.choices, rng) for g in genes(space)])
  if training:
    size = int(rng.choice(space.train_resolution))
    arch = dataclasses.replace(arch, resolution=size)
  return arch


def count(space: Space) -> int:
  """Returns the number of architectures in the space."""
  of_blocks = ('depth', 'operation', *decisions.per_block(space))
  number = math.prod(
    len(gene.choices)
    for gene in genes(space)
    if not (space.per_block and gene.field in of_blocks)
  )
  if space.per_block:  # choices of absent blocks make no difference
    for i, stage in enumerate(space.stages):
      options = decisions.options(space, i)
      number *= sum(math.prod(options[:depth]) for depth in stage.depth)
  return number


def every(space: Space) -> Iterator[Arch]:
  """Yields all architectures of a small space, from smallest to biggest."""
  for values in itertools.product(*(gene.choices for gene in genes(space))):
    arch = write(space, values)
    if not space.per_block or read(space, arch) == [*values]:
      yield arch


def is_one(space: Space) -> bool:
  """Returns whether the space holds one architecture, as `pin`'s does."""
  return count(space) == 1


def contains(space: Space, arch: Arch) -> bool:
  """Returns whether the architecture is one of the space's."""
  try:
    return check(space, arch) is arch
  except errors.UserError:
    return False


def check(space: Space, arch: Arch) -> Arch:
  """Returns the architecture; UserError names its first wrong entry."""
  every = entries(space)
  lengths = collections.Counter(entry.field for entry in every)
  for field in _LISTS:
    given, length = getattr(arch, field), lengths[field]
    if len(given) != length:
      raise errors.UserError(f'arch.{field}', given, f'{length} numbers')
  for entry, value in zip(every, _flat(arch), strict=True):
    if value not in entry.choices:
      raise errors.UserError(
        f'arch.{entry.name}',
        value,
        f'one of {", ".join(map(str, entry.choices))} in space {space.name}',
      )
  decisions.check_tied(space, _flat(arch))
  if space.per_block and arch != canonical(space, arch):
    wrong = structs.differences(to_dict(arch), to_dict(canonical(space, arch)))
    allowed = 'the smallest choice where the child has no block'
    raise errors.UserError('arch', wrong[0], allowed)
  return arch


def encode(space: Space, arch: Arch) -> Indices:
  """Returns positions of the architecture's values in the space's tuples."""
  check(space, arch)
  positions: dict[str, list[int]] = {field: [] for field in _LISTS}
  for entry, value in zip(entries(space), _flat(arch), strict=True):
    if entry.position is not None:
      positions[entry.field].append(entry.choices.index(value))
  arrays = {
    k: np.array(v, np.int32)
    for k, v in positions.items()
    if v or k not in decisions.SOMETIMES
  }
  if space.private_norms != 'no':
    arrays['bank'] = np.array(_bank(space, arch), np.int32)
  return Indices(**arrays)


def _bank(space: Space, arch: Arch) -> int:
  """Returns the bank of a child; of other resolutions, that of the nearest."""
  if space.private_norms == 'width':
    return read(space, arch)[1]
  off = [abs(size - arch.resolution) for size in space.train_resolution]
  return off.index(min(off))


def decode(space: Space, indices: Indices, resolution: int) -> Arch:
  """Returns the architecture at these positions: the inverse of `encode`."""
  fields: dict[str, list[int]] = {field: [] for field in _LISTS}
  for entry in entries(space):
    if entry.position is not None:
      index = int(getattr(indices, entry.field)[entry.position])
      fields[entry.field].append(entry.choices[index])
  arch = Arch(resolution=resolution, **{k: tuple(v) for k, v in fields.items()})
  return check(space, arch)


def of_block(
  space: Space, arch: Arch, number: int, block: int
) -> dict[str, int]:
  """Returns the `kernel_size` and `expand_ratio` of a block of a stage.

  It returns `parallel` and `squeeze_excite`, too, if the space has them.
  """
  place = decisions.place(space, number, block)
  fields = decisions.per_block(space)
  return {field: getattr(arch, field)[place] for field in fields}


def to_dict(arch: Arch) -> dict[str, Any]:
  """Returns a dict with the fields' names as keys, ready for JSON."""
  fields = dataclasses.asdict(arch)
  return {
    k: v if k == 'resolution' else list(v)
    for k, v in fields.items()
    if v or k not in decisions.SOMETIMES
  }


def to_json(arch: Arch) -> str:
  """Returns the architecture as JSON."""
  return json.dumps(to_dict(arch))


def from_dict(space: Space, fields: Any) -> Arch:
  """Reads the JSON form; UserError names a missing, unknown or wrong entry."""
  return check(space, parse(fields))


def parse(fields: Any) -> Arch:
  """Reads the JSON form of an architecture of any space."""
  names = [field.name for field in dataclasses.fields(Arch)]
  needed = [name for name in names if name not in decisions.SOMETIMES]
  if not isinstance(fields, dict) or not {*needed} <= {*fields} <= {*names}:
    allowed = 'a JSON object with the keys ' + ', '.join(needed)
    raise errors.UserError('arch', fields, allowed)
  for name, value in fields.items():
    entries = [value] if name == 'resolution' else value
    listed = isinstance(entries, list | tuple)
    if not listed or any(type(entry) is not int for entry in entries):
      kind = 'a whole number' if name == 'resolution' else 'whole numbers'
      raise errors.UserError(f'arch.{name}', value, kind)
  values: dict[str, Any] = {
    k: v if k == 'resolution' else tuple(v) for k, v in fields.items()
  }
  return Arch(**values)


def generator(*path: int) -> np.random.Generator:
  """Returns the generator of a path of numbers, such as (seed, step)."""
  return np.random.default_rng(np.random.SeedSequence(path))
