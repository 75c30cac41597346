"""Spaces over which distributions are learnt.

In most, layers choose one of several operations with parameters of their own.
Each literal is a table of a paper or of its authors' code, unless it says what
is otherwise.
"""

import dataclasses

from bignas_jax.spaces.space import Space
from bignas_jax.spaces.stage import Activation, Choices, Stage
from bignas_jax.spaces.zoo_elastic import SE_V3


def _layers(
  width: int, depth: int, stride: int, expand_ratio: Choices
) -> Stage:
  """Returns a stage each of whose layers chooses an inverted bottleneck."""
  return Stage(
    width=(width,),
    depth=(depth,),
    kernel_size=(3, 5, 7),
    expand_ratio=expand_ratio,
    stride=stride,
    activation='relu6',
    shortcut='identity',
    separate_weights=True,
  )


def _first(width: int) -> Stage:
  """Returns the first stage, one block that leaves no choice."""
  return Stage(
    width=(width,),
    depth=(1,),
    kernel_size=(3,),
    expand_ratio=(1,),
    activation='relu6',
    shortcut='identity',
  )


def _mobile(name: str, stem: int, *stages: Stage) -> Space:
  return Space(
    name=name,
    resolution=(224,),
    stem_width=(stem,),
    stages=stages,
    head_width=(1280,),
    activation='relu6',
    per_block=True,
    padding='symmetric',
    bn_epsilon=1e-5,
  )


_SIX = (3, 6)  # with three kernel sizes, six operations

# BN-NAS (arXiv:2108.07375): 21 layers in the paper; in the authors' code, four
# of them are fixed to do nothing, which leaves 6^17 networks.
BN_NAS = _mobile(
  'bn_nas',
  40,
  _first(24),
  _layers(32, 2, 2, _SIX),
  _layers(40, 2, 2, _SIX),
  _layers(80, 4, 2, _SIX),
  _layers(96, 4, 1, _SIX),
  _layers(192, 4, 2, _SIX),
  _layers(320, 1, 1, _SIX),
)

# ProxylessNAS (arXiv:1812.00332), section 4.2: a layer may also do nothing,
# unless it changes the shape.
PROXYLESS = _mobile(
  'proxyless',
  32,
  _first(16),
  _layers(24, 4, 2, (0, *_SIX)),
  _layers(40, 4, 2, (0, *_SIX)),
  _layers(80, 4, 2, (0, *_SIX)),
  _layers(96, 4, 1, (0, *_SIX)),
  _layers(192, 4, 2, (0, *_SIX)),
  _layers(320, 1, 1, _SIX),
)

# MDENAS (arXiv:1905.07529), the mobile space: nine operations a layer.
MDENAS = _mobile(
  'mdenas',
  32,
  _first(16),
  _layers(24, 4, 2, (1, 3, 6)),
  _layers(40, 4, 2, (1, 3, 6)),
  _layers(80, 4, 2, (1, 3, 6)),
  _layers(96, 4, 1, (1, 3, 6)),
  _layers(192, 4, 2, (1, 3, 6)),
  _layers(320, 1, 1, (1, 3, 6)),
)


def _elastic(
  widths: Choices, depth: int, stride: int, most: int, activation: Activation
) -> Stage:
  """Returns a stage whose blocks choose all but their width."""
  return Stage(
    width=widths,
    depth=(depth,),
    kernel_size=(3, 5),
    expand_ratio=tuple(range(1, most + 1)),
    stride=stride,
    se=SE_V3,
    se_choice=True,
    expand_conv=True,
    activation=activation,
    shortcut='identity',
  )


# In the manner of FBNetV2 (arXiv:2004.05565): kernel size, expand ratio, width
# and squeeze-excite are choices. The numbers are not its table's, and a width
# is that of a stage.
FBNET_V2 = dataclasses.replace(
  _mobile(
    'fbnet_v2',
    16,
    dataclasses.replace(_first(16), width=(12, 16)),
    _elastic((16, 20, 24, 28), 3, 2, 3, 'relu'),
    _elastic((16, 24, 32, 40), 3, 2, 3, 'relu'),
    _elastic(tuple(range(48, 97, 8)), 3, 2, 4, 'hard_swish'),
    _elastic(tuple(range(72, 129, 8)), 4, 1, 4, 'hard_swish'),
    _elastic(tuple(range(112, 217, 8)), 4, 2, 4, 'hard_swish'),
  ),
  head_width=(1984,),
  activation='hard_swish',
)


def _apart(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
  """Returns each block of the stages as a stage, with a width of its own."""
  return tuple(
    dataclasses.replace(stage, depth=(1,), stride=1 if block else stage.stride)
    for stage in stages
    for block in range(*stage.depth)
  )


# The same with a width a layer, as FBNetV2 and FP-NAS have it. A block of
# stride 1 adds its input where both of its widths are equal, as the blocks of
# FBNetV2's authors do (mobile_cv, `build_residual_connect`); their search adds
# masked channels whatever the widths are.
FBNET_V2_LAYERS = dataclasses.replace(
  FBNET_V2, name='fbnet_v2_layers', stages=_apart(FBNET_V2.stages)
)

SPACES = (BN_NAS, PROXYLESS, MDENAS, FBNET_V2, FBNET_V2_LAYERS)
