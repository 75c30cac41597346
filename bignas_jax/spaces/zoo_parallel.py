"""Plain networks whose layers are sums of parallel members in training.

RepNAS (arXiv:2109.03508) chooses the members of each layer. What is deployed
has the layers of RepVGG (arXiv:2101.03697, table 2) or VGG-16 (arXiv:1409.1556,
table 1, column D).
"""

from typing import Literal

from bignas_jax.spaces import parallel
from bignas_jax.spaces.space import Space
from bignas_jax.spaces.stage import Stage

EVERY = parallel.subsets(*parallel.MEMBERS)


def layers(
  width: int,
  depth: int,
  stride: int,
  block: Literal['conv', 'strided_conv'] = 'strided_conv',
  groups: int = 1,
) -> Stage:
  """Returns a stage of 3x3 convolutions, each of any members."""
  return Stage(
    width=(width,),
    depth=(depth,),
    kernel_size=(3,),
    expand_ratio=(1,),
    stride=stride,
    block=block,
    activation='relu',
    shortcut='none',
    parallel=EVERY,
    groups=groups,
  )


def _plain(name: str, stem: int, stem_stride: int, *stages: Stage) -> Space:
  return Space(
    name=name,
    resolution=(224,),
    stem_width=(stem,),
    stem_stride=stem_stride,
    stages=stages,
    head_width=(),
    activation='relu',
    per_block=True,
    padding='symmetric',
    bn_epsilon=1e-5,
  )


def _repvgg(
  name: str, depths: tuple[int, ...], a: float, b: float, groups: int = 1
) -> Space:
  """Returns a RepVGG, whose stem has no members here.

  Args:
    name: name of the space.
    depths: layers of each stage after the stem.
    a: factor of the widths of all stages but the last.
    b: factor of the last stage's width.
    groups: groups of channels of every second layer of a stage. If there are
      any, each layer is a stage here, because their kernels differ in shape.
  """
  widths = [round(64 * a), round(128 * a), round(256 * a), round(512 * b)]
  rows = [*zip(widths, depths, strict=True)]
  stages = [layers(width, depth, stride=2) for width, depth in rows]
  if groups > 1:
    stages = [
      layers(width, 1, 1 if i else 2, groups=groups if i % 2 else 1)
      for width, depth in rows
      for i in range(depth)
    ]
  return _plain(f'repvgg_{name}', min(64, widths[0]), 2, *stages)


_A, _B = (2, 4, 14, 1), (4, 6, 16, 1)

# VGG-16 without its two hidden dense layers; pooling is 3x3 here, not 2x2.
VGG16 = _plain(
  'vgg16',
  64,
  1,
  layers(64, 1, 2, 'conv'),
  layers(128, 1, 1, 'conv'),
  layers(128, 1, 2, 'conv'),
  layers(256, 2, 1, 'conv'),
  layers(256, 1, 2, 'conv'),
  layers(512, 2, 1, 'conv'),
  layers(512, 1, 2, 'conv'),
  layers(512, 2, 1, 'conv'),
  layers(512, 1, 2, 'conv'),
)

SPACES = (
  _repvgg('a0', _A, 0.75, 2.5),
  _repvgg('a1', _A, 1, 2.5),
  _repvgg('a2', _A, 1.5, 2.75),
  _repvgg('b0', _B, 1, 2.5),
  _repvgg('b1', _B, 2, 4),
  _repvgg('b1g4', _B, 2, 4, groups=4),
  _repvgg('b2', _B, 2.5, 5),
  _repvgg('b2g4', _B, 2.5, 5, groups=4),
  _repvgg('b3', _B, 3, 5),
  _repvgg('b3g4', _B, 3, 5, groups=4),
  VGG16,
)
