"""The spaces that `fit` chooses from, as literals, from small to large.

They are narrower than the spaces of the papers, which are made for ImageNet:
these train in minutes to hours. Their stages have the papers' form.
"""

import dataclasses

from bignas_jax.spaces import zoo
from bignas_jax.spaces.space import Space
from bignas_jax.spaces.stage import SqueezeExcite, Stage

_SE = SqueezeExcite(of='input', ratio=0.25, rounding='floor')


def _stage(
  width: tuple[int, ...],
  depth: tuple[int, ...],
  stride: int,
  expand: tuple[int, ...],
  kernel: tuple[int, ...] = (3,),
  se: SqueezeExcite | None = _SE,
) -> Stage:
  return Stage(
    width=width,
    depth=depth,
    kernel_size=kernel,
    expand_ratio=expand,
    stride=stride,
    se=se,
  )


# For images of up to 40 pixels: the stem keeps their size.
SMALL = Space(
  name='small',
  resolution=(32,),
  stem_width=(8, 16),
  stem_stride=1,
  stages=(
    _stage((16, 24), (1,), 2, (1,), kernel=(3, 5), se=None),
    _stage((24, 32), (1, 2, 3), 1, (2, 3)),
    _stage((40, 48), (1, 2), 2, (4,)),
  ),
  head_width=(128, 160),
)

# The same, wider and deeper.
WIDE = dataclasses.replace(
  SMALL,
  name='wide',
  stem_width=(16, 24),
  stages=(
    _stage((24, 32), (1, 2), 1, (1,), kernel=(3, 5), se=None),
    _stage((40, 48), (1, 2, 3), 2, (3, 4)),
    _stage((80, 96), (1, 2, 3), 2, (4,), kernel=(3, 5)),
  ),
  head_width=(256, 320),
)

# For images of 48 to 100 pixels.
MEDIUM = Space(
  name='medium',
  resolution=(64,),
  stem_width=(8, 16),
  stages=(
    _stage((16, 24), (1,), 1, (1,), se=None),
    _stage((24, 32), (1, 2), 2, (3, 4)),
    _stage((40, 48), (1, 2, 3), 2, (3, 4), kernel=(3, 5)),
    _stage((80, 96), (1, 2), 2, (4,)),
  ),
  head_width=(256, 320),
)

# For photos: BigNAS's stages at half the width, with fewer blocks.
LARGE = Space(
  name='large',
  resolution=(160,),
  stem_width=(16, 24),
  stages=(
    _stage((8, 16), (1,), 1, (1,)),
    _stage((16, 24), (1, 2), 2, (4, 6)),
    _stage((24, 32), (1, 2, 3), 2, (4, 6), kernel=(3, 5)),
    _stage((40, 48), (1, 2, 3), 2, (6,), kernel=(3, 5)),
    _stage((56, 64), (1, 2, 3), 1, (6,), kernel=(3, 5)),
    _stage((96, 112), (1, 2, 3), 2, (6,), kernel=(3, 5)),
  ),
  head_width=(640, 704),
)

SPACES = {
  space.name: space for space in (SMALL, WIDE, MEDIUM, LARGE, zoo.BIGNAS)
}


def at(
  name: str, side: int, several: bool, channels: int, classes: int
) -> Space:
  """Returns a space for the given images.

  Args:
    name: name of the space.
    side: largest resolution of its children, pixels.
    several: whether children have three resolutions, of which two are trained;
      else all have one.
    channels: channels of an image.
    classes: number of classes.
  """
  trained = (_even(side * 3 / 4), side) if several else (side,)
  evaluated = (trained[0], _even(side * 7 / 8), side) if several else trained
  return dataclasses.replace(
    SPACES[name],
    name=f'{name}_{side}',
    resolution=tuple(dict.fromkeys(evaluated)),
    train_resolution=trained,
    channels=channels,
    classes=classes,
  )


def _even(side: float) -> int:
  """Returns a side, in pixels, as a multiple of four."""
  return 4 * round(side / 4)
