"""The kinds of blocks as data: the convolutions that each is made of.

A block is a row of convolutions, most of them followed by batch norm, and a
shortcut that is added to their result. Costs, the elastic network, its
parameters and the graph of a child alone all read these rows.
"""

import dataclasses
from typing import Literal, NamedTuple

from bignas_jax.spaces import parallel as parallel_lib
from bignas_jax.spaces.stage import Choices, Stage, hidden_width


class Conv(NamedTuple):
  """A convolution of a block.

  Attributes:
    name: name of its parameters; those of its batch norm end in `_bn`.
    kind: `pointwise` (1x1), `depthwise` or `dense` (both of the block's kernel
      size).
    width: which width its output has: the block's `hidden` channels or its
      `out` channels.
    strided: whether the convolution has the block's stride.
    activated: whether the stage's activation follows batch norm.
    normed: whether batch norm follows.
  """

  name: str
  kind: Literal['pointwise', 'depthwise', 'dense']
  width: Literal['hidden', 'out']
  strided: bool = False
  activated: bool = True
  normed: bool = True


_EXPAND = Conv('expand', 'pointwise', 'hidden')
_DEPTHWISE = Conv('depthwise', 'depthwise', 'hidden', strided=True)
_PROJECT = Conv('project', 'pointwise', 'out')

# By `Stage.block`. The last convolution is activated in `separable` and in
# blocks of one convolution; the residual blocks of ResNet are activated after
# the sum.
CONVS = {
  'mbconv': (_EXPAND, _DEPTHWISE, _PROJECT._replace(activated=False)),
  'separable': (_DEPTHWISE, _PROJECT),
  'basic': (
    Conv('conv1', 'dense', 'hidden', strided=True),
    Conv('conv2', 'dense', 'out', activated=False),
  ),
  'bottleneck': (
    Conv('conv1', 'pointwise', 'hidden'),
    Conv('conv2', 'dense', 'hidden', strided=True),
    Conv('conv3', 'pointwise', 'out', activated=False),
  ),
  # The batch norm before the first convolution is called `pre_bn`.
  'preactivated': (
    Conv('conv1', 'dense', 'hidden', strided=True),
    Conv('conv2', 'dense', 'out', activated=False, normed=False),
  ),
  'conv': (Conv('conv', 'dense', 'out'),),
  'strided_conv': (Conv('conv', 'dense', 'out', strided=True),),
}
RESIDUAL = ('basic', 'bottleneck')  # blocks that are activated after the sum
BY_OUTPUT = (*RESIDUAL, 'preactivated')  # hidden channels follow the output's
MAX_POOLED = ('conv',)  # blocks whose stride is that of 3x3 maximum pooling
# By `Stage.shortcut`: those that are a convolution also where only the stride
# changes, and those whose stride is that of 2x2 average pooling.
PROJECTED_SHORTCUTS = ('projected', 'pooled_projected')
POOLED_SHORTCUTS = ('pooled', 'pooled_projected')


def convs(stage: Stage) -> tuple[Conv, ...]:
  """Returns the convolutions of a stage's blocks, in their order."""
  every = CONVS[stage.block]
  if max(stage.expand_ratio) == 0:
    return ()
  if stage.block == 'mbconv' and not stage.has_expand:
    return every[1:]
  return every


def has_normed_shortcut(stage: Stage) -> bool:
  """Returns whether batch norm follows a convolution in the shortcut."""
  return stage.shortcut in PROJECTED_SHORTCUTS and not stage.preactivated


def operations(stage: Stage, *, first: bool) -> tuple[tuple[int, int], ...]:
  """Returns kernel size and expand ratio of each operation, ascending.

  A block without convolutions needs a shortcut: in a stage whose shortcuts
  cannot change the width, the first block cannot be one.

  Args:
    stage: stage of the block.
    first: whether the block is the first of its stage.
  """
  sizes, ratios = stage.kernel_size, stage.expand_ratio
  some = [(size, ratio) for ratio in ratios if ratio for size in sizes]
  if 0 in ratios and not (first and stage.shortcut in ('identity', 'none')):
    some.insert(0, (sizes[0], 0))
  return tuple(some)


def masks(stage: Stage, *, first: bool, changes_width: bool) -> Choices:
  """Returns the masks of parallel members that a layer may have.

  Args:
    stage: stage of the layer.
    first: whether the layer is the first of its stage.
    changes_width: whether its output has another width than its input.
  """
  strided = first and stage.stride > 1 and CONVS[stage.block][0].strided
  same = not (strided or changes_width)
  return parallel_lib.allowed(stage.parallel, same_shape=same)


def squeezes(stage: Stage) -> Choices:
  """Returns the numbers of squeeze-excites that a block may have, 0 or 1."""
  if stage.se_choice:
    return 0, 1
  return (0,) if stage.se is None else (1,)


def alone(
  stage: Stage,
  kernel_size: int,
  expand_ratio: int,
  parallel: int = 0,
  squeeze_excite: int = 1,
) -> Stage:
  """Returns a stage of blocks of one kernel size and expand ratio.

  Args:
    stage: stage with choices.
    kernel_size: the kernel size.
    expand_ratio: the expand ratio.
    parallel: mask of the blocks' parallel members; 0: they have none.
    squeeze_excite: 0: the blocks have no squeeze-excite; 1: that of the stage.
  """
  own = dataclasses.replace(
    stage,
    kernel_size=(kernel_size,),
    expand_ratio=(expand_ratio,),
    kernel_transform=False,
    separate_weights=False,
    parallel=(parallel,) if parallel else (),
    se=stage.se if squeeze_excite else None,
    se_choice=False,
    shared_kernel=False,
    zero_start=False,
  )
  of = own if stage.separate_weights else stage
  return dataclasses.replace(own, expand_conv=of.has_expand)


def operation_name(kernel_size: int, expand_ratio: int) -> str:
  """Returns the name of an operation's parameters, such as `k3e6`."""
  return f'k{kernel_size}e{expand_ratio}' if expand_ratio else 'skip'


class Sized(NamedTuple):
  """A convolution of one child's block, with all its sizes.

  Attributes:
    conv: the convolution.
    kernel_size: side of its kernel, pixels.
    stride: its stride.
    width_in: channels of its input.
    width_out: channels of its output.
    size_in: pixels of its input's height and width.
    size_out: pixels of its output's height and width.
  """

  conv: Conv
  kernel_size: int
  stride: int
  width_in: int
  width_out: int
  size_in: int
  size_out: int


def sized(
  stage: Stage,
  *,
  kernel_size: int,
  expand_ratio: int,
  width_in: int,
  width_out: int,
  size_in: int,
  size_out: int,
  stride: int,
) -> list[Sized]:
  """Returns the convolutions of a child's block with their sizes."""
  if stage.separate_weights:
    stage = alone(stage, kernel_size, expand_ratio)
  widths = {
    'hidden': hidden_width(stage, width_in, width_out, expand_ratio),
    'out': width_out,
  }
  walk, width, size = [], width_in, size_in
  for conv in convs(stage):
    after = size_out if conv.strided else size
    side = 1 if conv.kind == 'pointwise' else kernel_size
    sides = widths[conv.width], size, after
    own = stride if conv.strided else 1
    walk.append(Sized(conv, side, own, width, *sides))
    width, size = widths[conv.width], after
  return walk


def has_shortcut_conv(
  stage: Stage, width_in: int, width_out: int, stride: int
) -> bool:
  """Returns whether a child's block has a convolution in its shortcut."""
  if stage.shortcut in ('identity', 'none'):
    return False
  if stage.shortcut == 'pooled':
    return width_in != width_out
  return width_in != width_out or stride > 1
