"""A latency table: the latency of each layer of a space's children on a device.

A child is a stem, blocks and a head. The table holds milliseconds of every
layer that some child has, measured alone, and three numbers that turn a sum of
them into the latency of a whole child: a layer measured alone includes the cost
of a call, and finds its input in the cache.

Nothing here needs JAX: a search asks thousands of times a second.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from bignas_jax.costs.layers import Layer, downsample, layers, stem_size
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import block_kinds
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.values import errors

MEASURED = 'latency.json'  # beside a child: what it took as a whole


class Fit(NamedTuple):
  """A fit of child latency: network + sum of (part + scale * ms) of layers."""

  network_ms: float = 0.0
  part_ms: float = 0.0
  scale: float = 1.0


def name(layer: Layer) -> str:
  """Returns a layer's name in a file: `stage3.first 28px 24>40 k5 e6`.

  ` no se` follows if the layer leaves out the squeeze-excite of its stage.
  """
  shape = f'{layer.size_in}px {layer.width_in}>{layer.width_out}'
  if not layer.is_block:
    return f'{layer.name} {shape}'
  which = 'rest' if layer.block else 'first'
  choices = f'k{layer.kernel_size} e{layer.expand_ratio}'
  choices += ' no se' if layer.leaves_out_se else ''
  return f'stage{layer.stage}.{which} {shape} {choices}'


def measured(space: Space, arch: Arch) -> list[Layer]:
  """Returns a child's layers as table keys, later blocks as the second.

  Blocks after the second take as long as the second.
  """
  return [
    layer._replace(block=min(layer.block, 1)) for layer in layers(space, arch)
  ]


def all_layers(space: Space, resolutions: Iterable[int]) -> list[Layer]:
  """Returns each layer that some child has, once.

  Args:
    space: space of the children.
    resolutions: resolutions of the children, pixels.
  """
  every: dict[Layer, None] = {}
  for resolution in resolutions:
    size = stem_size(space, resolution)
    for width in space.stem_width:
      every[Layer(0, 0, resolution, size, space.channels, width)] = None
    widths_in = space.stem_width
    for i, stage in enumerate(space.stages):
      small = downsample(size, stage.stride)
      pairs = [*itertools.product(widths_in, stage.width)]
      if stage.optional:
        pairs = [(width, width) for width in stage.width]
      first = [(0, size, small, *pair) for pair in pairs]
      later = [(1, small, small, w, w) for w in stage.width]
      if max(stage.depth) == 1:
        later = []
      without = (False, True) if stage.se_choice else (False,)
      for sizes in first + later:
        operations = block_kinds.operations(stage, first=not sizes[0])
        for choice, one in itertools.product(operations, without):
          if choice[1] or not sizes[0]:  # others return their input
            every[Layer(i + 1, *sizes, *choice, one)] = None
      size, widths_in = small, stage.width
    heads = [(w, f) for w in widths_in for f in space.head_width or [w]]
    for pair in heads:
      every[Layer(len(space.stages) + 1, 0, size, 1, *pair)] = None
  return list(every)


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of every layer's milliseconds, at some of a space's resolutions.

  Attributes:
    space: the space whose children the table predicts.
    resolutions: resolutions of these children, pixels.
    about: other entries of the file: `runtime`, `batch`, `device`, `versions`;
      `statistic` of several runs, `median` or `least`; `estimate`, whether a
      compiler estimated the latencies and no clock measured them.
    entries: milliseconds that a layer adds to a prediction.
    network_ms: milliseconds that a child takes beside its layers.
  """

  space: Space
  resolutions: tuple[int, ...]
  about: dict[str, Any]
  entries: dict[Layer, float]
  network_ms: float = 0.0

  @property
  def estimate(self) -> bool:
    """Returns whether predictions are a compiler's estimates, not measured."""
    return bool(self.about['estimate'])

  def predict(self, arch: Arch) -> float:
    """Returns the predicted milliseconds of a child for one batch.

    Raises:
      UserError: the space lacks the child, or the table its resolution.
    """
    try:
      # fsum, so that no order of the layers changes a bit
      return self.network_ms + math.fsum(
        self.entries[layer] for layer in measured(self.space, arch)
      )
    except (KeyError, IndexError):
      arch_lib.check(self.space, arch)
      raise errors.UserError(
        'arch.resolution', arch.resolution, _one_of(self.resolutions)
      ) from None


def _one_of(resolutions: Sequence[int]) -> str:
  names = ', '.join(map(str, resolutions))
  return f'a resolution of the latency table: {names}'
