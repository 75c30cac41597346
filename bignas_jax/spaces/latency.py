"""A latency table: what each part of a space's children takes on a device.

A child is a stem, blocks and a head. The table holds milliseconds of every part
that some child has, measured alone, and three numbers that make a sum of them
the latency of a whole child: a part on its own pays for a call, and finds its
input in the cache.

Nothing here needs JAX: a search asks thousands of times a second.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.values import errors

MEASURED = 'latency.json'  # beside a child: what it took as a whole


class Part(NamedTuple):
  """A stem, block or head as a program of its own; all static.

  Attributes:
    stage: 0 for the stem, from 1 for blocks, one more for the head.
    first: of its stage; the others have stride 1, and one width.
    size: of its input, pixels.
    width_in: channels; of the stem, those of an image.
    width_out: channels; of the head, those that the classifier reads.
    kernel_size: of a block's depthwise convolution; 0 for stem and head.
    expand_ratio: of a block; 0 for stem and head.
  """

  stage: int
  first: bool
  size: int
  width_in: int
  width_out: int
  kernel_size: int = 0
  expand_ratio: int = 0


class Fit(NamedTuple):
  """From parts to a child: network + sum over parts of (part + scale * ms)."""

  network_ms: float = 0.0
  part_ms: float = 0.0
  scale: float = 1.0


def name(space: Space, part: Part) -> str:
  """What files call a part, such as `stage3.first 28px 24>40 k5 e6`."""
  shape = f'{part.size}px {part.width_in}>{part.width_out}'
  if part.kernel_size == 0:
    return f'{"head" if part.stage else "stem"} {shape}'
  which = 'first' if part.first else 'rest'
  return (
    f'stage{part.stage}.{which} {shape} k{part.kernel_size} '
    f'e{part.expand_ratio}'
  )


def parts(space: Space, arch: Arch) -> list[Part]:
  """The child's, in their order; blocks that are alike are there as often."""
  size = -(-arch.resolution // space.stem_stride)
  width = arch.width[0]
  found = [Part(0, True, arch.resolution, space.channels, width)]
  for i, stage in enumerate(space.stages):
    choice = arch.kernel_size[i], arch.expand_ratio[i]
    width_out = arch.width[i + 1]
    found.append(Part(i + 1, True, size, width, width_out, *choice))
    size, width = -(-size // stage.stride), width_out
    rest = Part(i + 1, False, size, width, width, *choice)
    found += [rest] * (arch.depth[i] - 1)
  found.append(Part(len(space.stages) + 1, True, size, width, arch.width[-1]))
  return found


def all_parts(space: Space, resolutions: Iterable[int]) -> list[Part]:
  """Each part that some child of these resolutions has, once."""
  found = []
  for resolution in resolutions:
    size = -(-resolution // space.stem_stride)
    found += [
      Part(0, True, resolution, space.channels, w) for w in space.stem_width
    ]
    before = space.stem_width
    for i, stage in enumerate(space.stages):
      choices = [(k, e) for k in stage.kernel_size for e in stage.expand_ratio]
      found += [
        Part(i + 1, True, size, width_in, width, *choice)
        for width_in in before
        for width in stage.width
        for choice in choices
      ]
      size, before = -(-size // stage.stride), stage.width
      found += [
        Part(i + 1, False, size, width, width, *choice)
        for width in stage.width
        for choice in choices
        if max(stage.depth) > 1
      ]
    last = len(space.stages) + 1
    found += [
      Part(last, True, size, width, head)
      for width in before
      for head in space.head_width
    ]
  return list(dict.fromkeys(found))


@dataclasses.dataclass(frozen=True)
class Table:
  """Milliseconds of every part, of a space at some of its resolutions.

  Attributes:
    space: whose children it predicts.
    resolutions: theirs, pixels.
    about: what else the file says: `runtime`, `batch`, `device`, `versions`,
      `statistic` of several runs, `median` or `least`;
      `estimate`, whether a compiler said it and no clock.
    entries: what a part adds to a prediction, milliseconds.
    network_ms: what a child takes beside its parts.
  """

  space: Space
  resolutions: tuple[int, ...]
  about: dict[str, Any]
  entries: dict[Part, float]
  network_ms: float = 0.0

  @property
  def estimate(self) -> bool:
    """Whether predictions have to be called estimates of the compiler's."""
    return bool(self.about['estimate'])

  def predict(self, arch: Arch) -> float:
    """Milliseconds that one batch takes the child.

    Raises:
      UserError: the child is not of the space, or of another resolution.
    """
    try:
      # fsum, so that no order of the parts changes a bit
      return self.network_ms + math.fsum(
        self.entries[part] for part in parts(self.space, arch)
      )
    except (KeyError, IndexError):
      arch_lib.check(self.space, arch)
      raise errors.UserError(
        'arch.resolution', arch.resolution, _one_of(self.resolutions)
      ) from None

  def least(self) -> tuple[float, Arch]:
    """The fastest child of the table's resolutions, and its milliseconds."""
    return self._extreme(min)

  def most(self) -> tuple[float, Arch]:
    """The slowest child of the table's resolutions, and its milliseconds."""
    return self._extreme(max)

  def _extreme(self, pick: Callable) -> tuple[float, Arch]:
    """Of all children, block by block: what follows depends on a width only."""
    ends = [self._path(pick, resolution) for resolution in self.resolutions]
    _, arch = pick(ends, key=lambda end: end[0])
    return self.predict(arch), arch

  def _path(self, pick: Callable, resolution: int) -> tuple[float, Arch]:
    space, ms = self.space, self.entries
    size = -(-resolution // space.stem_stride)
    ways: dict[int, tuple[float, Arch]] = {
      width: (
        ms[Part(0, True, resolution, space.channels, width)],
        Arch(
          resolution=resolution,
          width=(width,),
          depth=(),
          kernel_size=(),
          expand_ratio=(),
        ),
      )
      for width in space.stem_width
    }
    for i, stage in enumerate(space.stages):
      found: dict[int, list[tuple[float, Arch]]] = {w: [] for w in stage.width}
      small = -(-size // stage.stride)
      for before, (sum_ms, arch) in ways.items():
        for width, depth, *choice in _choices(stage):
          total = sum_ms + ms[Part(i + 1, True, size, before, width, *choice)]
          if depth > 1:
            rest = Part(i + 1, False, small, width, width, *choice)
            total += (depth - 1) * ms[rest]
          found[width].append((total, _longer(arch, width, depth, *choice)))
      ways = {w: pick(f, key=lambda way: way[0]) for w, f in found.items()}
      size = small
    return pick(
      (
        (
          sum_ms + ms[Part(len(space.stages) + 1, True, size, before, head)],
          dataclasses.replace(arch, width=(*arch.width, head)),
        )
        for before, (sum_ms, arch) in ways.items()
        for head in space.head_width
      ),
      key=lambda end: end[0],
    )


def _choices(stage) -> list[tuple[int, int, int, int]]:
  return [
    (width, depth, kernel_size, expand_ratio)
    for width in stage.width
    for depth in {min(stage.depth), max(stage.depth)}  # linear in between
    for kernel_size in stage.kernel_size
    for expand_ratio in stage.expand_ratio
  ]


def _longer(arch, width, depth, kernel_size, expand_ratio) -> Arch:
  """The beginning of a child, and one stage more."""
  return dataclasses.replace(
    arch,
    width=(*arch.width, width),
    depth=(*arch.depth, depth),
    kernel_size=(*arch.kernel_size, kernel_size),
    expand_ratio=(*arch.expand_ratio, expand_ratio),
  )


def _one_of(resolutions: Sequence[int]) -> str:
  known = ', '.join(map(str, resolutions))
  return f'a resolution of the latency table: {known}'
