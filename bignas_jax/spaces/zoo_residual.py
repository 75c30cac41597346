"""Spaces of residual networks.

Each literal is a table of a paper or of its authors' code.
"""

import dataclasses
from typing import Literal

from bignas_jax.spaces import zoo_elastic
from bignas_jax.spaces.space import Space
from bignas_jax.spaces.stage import Choices, Stage, round_to_8


def _residual(
  block: Literal['basic', 'bottleneck'],
  width: int,
  depth: int,
  stride: int,
  percent: int,
) -> Stage:
  return Stage(
    width=(width,),
    depth=(depth,),
    kernel_size=(3,),
    expand_ratio=(percent,),
    stride=stride,
    block=block,
    activation='relu',
    shortcut='projected',
  )


# ResNet (arXiv:1512.03385), table 1; a stage's stride is that of its first 3x3
# convolution.
RESNET18 = Space(
  name='resnet18',
  resolution=(96, 128, 160, 192, 224),
  train_resolution=(224,),
  stem_width=(64,),
  stem_kernel=7,
  stem_pool=True,
  stages=(
    _residual('basic', 64, 2, 1, 100),
    _residual('basic', 128, 2, 2, 100),
    _residual('basic', 256, 2, 2, 100),
    _residual('basic', 512, 2, 2, 100),
  ),
  head_width=(),
  activation='relu',
  multipliers=zoo_elastic.MULTIPLIERS,
  padding='symmetric',
  bn_epsilon=1e-5,
)
RESNET50 = dataclasses.replace(
  RESNET18,
  name='resnet50',
  stages=(
    _residual('bottleneck', 256, 3, 1, 25),
    _residual('bottleneck', 512, 4, 2, 25),
    _residual('bottleneck', 1024, 6, 2, 25),
    _residual('bottleneck', 2048, 3, 2, 25),
  ),
)

# Once-for-All's ResNet-50, of its authors' code: ResNet-D (arXiv:1812.01187),
# section 4.2, whose stem's second convolution is residual and may be left out.
# Widths are those of the multipliers 0.65, 0.8 and 1, chosen for each stage.
_WIDTHS = (0.65, 0.8, 1.0)


def _times(width: int) -> Choices:
  """Returns a width times each multiplier, in multiples of 8."""
  return tuple(round_to_8(width * multiplier) for multiplier in _WIDTHS)


def _stem(
  width: Choices,
  depth: Choices,
  stride: int,
  shortcut: Literal['identity', 'none'],
) -> Stage:
  """Returns a part of a stem of several convolutions."""
  return Stage(
    width=width,
    depth=depth,
    kernel_size=(3,),
    expand_ratio=(1,),
    stride=stride,
    block='conv',
    activation='relu',
    shortcut=shortcut,
  )


def _bottleneck(width: int, depth: Choices, stride: int) -> Stage:
  """Returns a stage of ResNet-D with elastic widths."""
  return Stage(
    width=_times(width),
    depth=depth,
    kernel_size=(3,),
    expand_ratio=(20, 25, 35),
    stride=stride,
    block='bottleneck',
    activation='relu',
    shortcut='pooled_projected',
  )


_FIRST = tuple(sorted({round_to_8(width // 2) for width in _times(64)}))
OFA_RESNET50 = Space(
  name='ofa_resnet50',
  resolution=zoo_elastic.SIZES,
  train_resolution=(128, 160, 192, 224),
  stem_width=_FIRST,
  stages=(
    _stem(_FIRST, (0, 1), 1, 'identity'),
    _stem(_times(64), (1,), 2, 'none'),
    _bottleneck(256, (2, 3, 4), 1),
    _bottleneck(512, (2, 3, 4), 2),
    _bottleneck(1024, (4, 5, 6), 2),
    _bottleneck(2048, (2, 3, 4), 2),
  ),
  head_width=(),
  activation='relu',
  per_block=True,
  padding='symmetric',
  bn_epsilon=1e-5,
)


def _preactivated(width: Choices, stride: int) -> Stage:
  """Returns a stage of a wide residual network."""
  return Stage(
    width=width,
    depth=(2, 3, 4),
    kernel_size=(3,),
    expand_ratio=(100,),
    stride=stride,
    block='preactivated',
    activation='relu',
    shortcut='projected',
  )


# Wide residual networks (arXiv:1605.07146), table 1, for CIFAR; the biggest
# child is WRN-28-10 without dropout, widths are 5, 7.5 and 10 times 16, 32, 64.
WRN_28_10 = Space(
  name='wrn_28_10',
  resolution=(32,),
  stem_width=(16,),
  stem_stride=1,
  stages=(
    _preactivated((80, 120, 160), 1),
    _preactivated((160, 240, 320), 2),
    _preactivated((320, 480, 640), 2),
  ),
  head_width=(),
  activation='relu',
  padding='symmetric',
  bn_epsilon=1e-5,
  classes=10,
)

SPACES = (RESNET18, RESNET50, OFA_RESNET50, WRN_28_10)
