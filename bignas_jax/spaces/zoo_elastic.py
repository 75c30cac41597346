"""Spaces of elastic networks before BigNAS: Once-for-All, slimmable networks.

Each literal is a table of a paper or of its authors' code.
"""

import dataclasses

from bignas_jax.spaces.space import Space
from bignas_jax.spaces.stage import (
  Activation,
  Choices,
  SqueezeExcite,
  Stage,
  round_to_8,
)

# MobileNetV3's.
SE_V3 = SqueezeExcite(
  of='hidden',
  ratio=0.25,
  rounding='round_to_8',
  activation='relu',
  gate='hard_sigmoid',
)
SIZES = tuple(range(128, 225, 4))


def _ofa(
  width: int,
  stride: int,
  activation: Activation,
  se: SqueezeExcite | None = None,
  depth: Choices = (2, 3, 4),
) -> Stage:
  """Returns a stage of Once-for-All, each of whose blocks has own choices."""
  return Stage(
    width=(width,),
    depth=depth,
    kernel_size=(3, 5, 7),
    expand_ratio=(3, 4, 6),
    stride=stride,
    se=se,
    activation=activation,
    shortcut='identity',
    kernel_transform=True,
  )


def _first(activation: Activation) -> Stage:
  """Returns Once-for-All's first stage, one block that leaves no choice."""
  return Stage(
    width=(16,),
    depth=(1,),
    kernel_size=(3,),
    expand_ratio=(1,),
    activation=activation,
    shortcut='identity',
  )


# Once-for-All (arXiv:1908.09791), section 4.1: MobileNetV3-Large with elastic
# kernels, expand ratios, depths and resolutions. Supernets are trained at four
# resolutions here, each of which is a compiled program.
OFA_MBV3 = Space(
  name='ofa_mbv3',
  resolution=SIZES,
  train_resolution=(128, 160, 192, 224),
  stem_width=(16,),
  stages=(
    _first('relu'),
    _ofa(24, 2, 'relu'),
    _ofa(40, 2, 'relu', SE_V3),
    _ofa(80, 2, 'hard_swish'),
    _ofa(112, 1, 'hard_swish', SE_V3),
    _ofa(160, 2, 'hard_swish', SE_V3),
  ),
  head_width=(1280,),
  head_expand=6,
  activation='hard_swish',
  per_block=True,
  padding='symmetric',
  bn_epsilon=1e-5,
)


def _wider(space: Space, name: str, factor: float) -> Space:
  """Returns a space of one width a layer with widths times a factor."""
  wider = lambda widths: tuple(round_to_8(w * factor) for w in widths)  # noqa: E731
  return dataclasses.replace(
    space,
    name=name,
    stem_width=wider(space.stem_width),
    stages=tuple(
      dataclasses.replace(stage, width=wider(stage.width))
      for stage in space.stages
    ),
    head_width=wider(space.head_width),
  )


OFA_MBV3_W12 = _wider(OFA_MBV3, 'ofa_mbv3_w1.2', 1.2)

# The same elasticity on ProxylessNAS's widths, times 1.3 as published.
OFA_PROXYLESS = _wider(
  Space(
    name='',
    resolution=SIZES,
    train_resolution=(128, 160, 192, 224),
    stem_width=(32,),
    stages=(
      _first('relu6'),
      _ofa(24, 2, 'relu6'),
      _ofa(40, 2, 'relu6'),
      _ofa(80, 2, 'relu6'),
      _ofa(96, 1, 'relu6'),
      _ofa(192, 2, 'relu6'),
      _ofa(320, 1, 'relu6', depth=(1,)),
    ),
    head_width=(1280,),
    activation='relu6',
    per_block=True,
    padding='symmetric',
    bn_epsilon=1e-3,
  ),
  'ofa_proxyless',
  1.3,
)

# US-Net (arXiv:1903.05134) trains any width from 0.25 on; a step of 0.025
# changes each layer by at least 8 channels where it is widest.
MULTIPLIERS = tuple(round(0.25 + 0.025 * i, 3) for i in range(31))


def _separable(width: int, depth: int, stride: int) -> Stage:
  return Stage(
    width=(width,),
    depth=(depth,),
    kernel_size=(3,),
    expand_ratio=(1,),
    stride=stride,
    block='separable',
    activation='relu',
    shortcut='none',
  )


# MobileNet (arXiv:1704.04861), table 1.
MOBILENET_V1 = Space(
  name='mobilenet_v1',
  resolution=(128, 160, 192, 224),
  train_resolution=(224,),
  stem_width=(32,),
  stages=(
    _separable(64, 1, 1),
    _separable(128, 2, 2),
    _separable(256, 2, 2),
    _separable(512, 6, 2),
    _separable(1024, 2, 2),
  ),
  head_width=(),
  activation='relu',
  multipliers=MULTIPLIERS,
  padding='symmetric',
  bn_epsilon=1e-5,
)


def _inverted(
  width: int, depth: int, stride: int, kernel_size: int = 3, expand: int = 6
) -> Stage:
  return Stage(
    width=(width,),
    depth=(depth,),
    kernel_size=(kernel_size,),
    expand_ratio=(expand,),
    stride=stride,
    activation='relu6',
    shortcut='identity',
  )


# MobileNetV2 (arXiv:1801.04381), table 2. The head keeps its width below 1.
MOBILENET_V2 = Space(
  name='mobilenet_v2',
  resolution=(128, 160, 192, 224),
  train_resolution=(224,),
  stem_width=(32,),
  stages=(
    _inverted(16, 1, 1, expand=1),
    _inverted(24, 2, 2),
    _inverted(32, 3, 2),
    _inverted(64, 4, 2),
    _inverted(96, 3, 1),
    _inverted(160, 3, 2),
    _inverted(320, 1, 1),
  ),
  head_width=(1280,),
  activation='relu6',
  multipliers=MULTIPLIERS,
  padding='symmetric',
  bn_epsilon=1e-5,
)

# EfficientNet-Lite0: EfficientNet-B0 without squeeze-excite, with relu6.
EFFICIENTNET_LITE0 = Space(
  name='efficientnet_lite0',
  resolution=(224,),
  stem_width=(32,),
  stages=(
    _inverted(16, 1, 1, expand=1),
    _inverted(24, 2, 2),
    _inverted(40, 2, 2, kernel_size=5),
    _inverted(80, 3, 2),
    _inverted(112, 3, 1, kernel_size=5),
    _inverted(192, 4, 2, kernel_size=5),
    _inverted(320, 1, 1),
  ),
  head_width=(1280,),
  activation='relu6',
  padding='same',
  bn_epsilon=1e-3,
)

# EfficientNet-B0 (arXiv:1905.11946), table 1: squeeze-excite of the input.
EFFICIENTNET_B0 = dataclasses.replace(
  EFFICIENTNET_LITE0,
  name='efficientnet_b0',
  stages=tuple(
    dataclasses.replace(
      stage,
      activation='swish',
      se=SqueezeExcite(of='input', ratio=0.25, rounding='floor'),
    )
    for stage in EFFICIENTNET_LITE0.stages
  ),
  activation='swish',
)


SPACES = (
  OFA_MBV3,
  OFA_MBV3_W12,
  OFA_PROXYLESS,
  MOBILENET_V1,
  MOBILENET_V2,
  EFFICIENTNET_B0,
  EFFICIENTNET_LITE0,
)
