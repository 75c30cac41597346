"""The layers of a child: its stem, blocks and head, in the order they run.

Costs, latency, pictures and exports read the sizes of a child's layers from
here, so that they cannot disagree.
"""

import dataclasses
from typing import NamedTuple

from bignas_jax.spaces import block_kinds, decisions
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.spaces.stage import Stage


class Layer(NamedTuple):
  """A stem, a block or a head of a child, with all its sizes.

  Attributes:
    stage: number of the block's stage, from 1; 0 for the stem, and one more
      than the last stage for the head.
    block: position of the block in its stage, from 0; 0 for stem and head.
    size_in: pixels of the input's height and width.
    size_out: pixels of the output's height and width, after the stem's pooling;
      1 for the head.
    width_in: channels of the input; for the stem, those of an image.
    width_out: channels of the output; for the head, the classifier's input.
    kernel_size: kernel size of a block's depthwise and dense convolutions; 0
      for stem and head.
    expand_ratio: expand ratio of a block; 0 for stem and head, and for a block
      that is its shortcut alone.
    leaves_out_se: whether a block leaves out the squeeze-excite of its stage.
  """

  stage: int
  block: int
  size_in: int
  size_out: int
  width_in: int
  width_out: int
  kernel_size: int = 0
  expand_ratio: int = 0
  leaves_out_se: bool = False

  @property
  def is_block(self) -> bool:
    """Returns whether the layer is a block."""
    return self.kernel_size > 0

  @property
  def name(self) -> str:
    """Returns the layer's name, such as `stage2.block1`."""
    if self.is_block:
      return f'stage{self.stage}.block{self.block + 1}'
    return 'head' if self.stage else 'stem'

  def of(self, space: Space) -> Stage:
    """Returns the stage of a block, without `se` if the block has none."""
    stage = space.stages[self.stage - 1]
    if not self.leaves_out_se:
      return stage
    return dataclasses.replace(stage, se=None, se_choice=False)

  def stride(self, space: Space) -> int:
    """Returns the stride of a block."""
    return 1 if self.block else space.stages[self.stage - 1].stride

  def convs(self, space: Space) -> list[block_kinds.Sized]:
    """Returns the convolutions of a block with their sizes."""
    return block_kinds.sized(
      self.of(space),
      kernel_size=self.kernel_size,
      expand_ratio=self.expand_ratio,
      width_in=self.width_in,
      width_out=self.width_out,
      size_in=self.size_in,
      size_out=self.size_out,
      stride=self.stride(space),
    )

  def has_shortcut(self, space: Space) -> bool:
    """Returns whether something is added to a block's result."""
    rule = self.of(space).shortcut
    if rule == 'identity':
      same = self.width_in == self.width_out
      return same and self.stride(space) == 1
    return rule != 'none'

  def has_shortcut_conv(self, space: Space) -> bool:
    """Returns whether a block has a convolution in its shortcut."""
    widths = self.width_in, self.width_out
    return block_kinds.has_shortcut_conv(
      self.of(space), *widths, self.stride(space)
    )


def downsample(size: int, stride: int) -> int:
  """Returns the pixels of a side after a stride."""
  return -(-size // stride)


def stem_size(space: Space, resolution: int) -> int:
  """Returns the pixels of a side of the stem's output."""
  size = downsample(resolution, space.stem_stride)
  return downsample(size, 2) if space.stem_pool else size


def layers(space: Space, arch: Arch) -> list[Layer]:
  """Returns the layers of a child, which is not checked: searches ask often."""
  size, width = stem_size(space, arch.resolution), arch.width[0]
  starts = decisions.starts(space)
  walk = [Layer(0, 0, arch.resolution, size, space.channels, width)]
  for i, stage in enumerate(space.stages):
    for block in range(arch.depth[i]):
      place = starts[i] + (block if space.per_block else 0)
      choices = arch.kernel_size[place], arch.expand_ratio[place]
      if block and not choices[1]:
        continue  # it returns its input
      small = size if block else downsample(size, stage.stride)
      sizes = size, small, width, arch.width[i + 1]
      without = stage.se_choice and not arch.squeeze_excite[place]
      walk.append(Layer(i + 1, block, *sizes, *choices, without))
      size, width = small, arch.width[i + 1]
  last = len(space.stages) + 1
  features = arch.width[-1] if space.head_width else width
  return [*walk, Layer(last, 0, size, 1, width, features)]
