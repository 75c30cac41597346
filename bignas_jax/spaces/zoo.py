"""The search spaces of the papers, as their tables print them."""

from bignas_jax.spaces import (
  zoo_elastic,
  zoo_one_of,
  zoo_parallel,
  zoo_residual,
)
from bignas_jax.spaces.space import Space
from bignas_jax.spaces.stage import SqueezeExcite, Stage
from bignas_jax.values import errors

_SE = SqueezeExcite(of='input', ratio=0.25, rounding='floor')


def _steps(first: int, last: int, step: int = 8) -> tuple[int, ...]:
  return tuple(range(first, last + 1, step))


# BigNAS (arXiv:2003.11142), section 4.1 and its table of the search space.
# 256 pixels are evaluated in selection but never trained.
BIGNAS = Space(
  name='bignas',
  resolution=(192, 224, 256, 288, 320),
  train_resolution=(192, 224, 288, 320),
  stem_width=_steps(32, 40),
  stages=(
    Stage(
      width=_steps(16, 24),
      depth=(1, 2),
      kernel_size=(3,),
      expand_ratio=(1,),
      stride=1,
      se=_SE,
    ),
    Stage(
      width=_steps(24, 32),
      depth=(2, 3),
      kernel_size=(3,),
      expand_ratio=(6,),
      stride=2,
      se=_SE,
    ),
    Stage(
      width=_steps(40, 48),
      depth=(2, 3),
      kernel_size=(3, 5),
      expand_ratio=(6,),
      stride=2,
      se=_SE,
    ),
    Stage(
      width=_steps(80, 88),
      depth=(2, 3, 4),
      kernel_size=(3, 5),
      expand_ratio=(6,),
      stride=2,
      se=_SE,
    ),
    Stage(
      width=_steps(112, 128),
      depth=(2, 3, 4, 5, 6),
      kernel_size=(3, 5),
      expand_ratio=(6,),
      stride=1,
      se=_SE,
    ),
    Stage(
      width=_steps(192, 216),
      depth=(2, 3, 4, 5, 6),
      kernel_size=(3, 5),
      expand_ratio=(6,),
      stride=2,
      se=_SE,
    ),
    Stage(
      width=_steps(320, 352),
      depth=(1, 2),
      kernel_size=(3, 5),
      expand_ratio=(6,),
      stride=1,
      se=_SE,
    ),
  ),
  head_width=_steps(1280, 1408),
  padding='same',
  bn_epsilon=1e-3,
)

# AttentiveNAS (arXiv:2011.09011), table 4; AlphaNet searches the same space.
ATTENTIVE_NAS = Space(
  name='attentive_nas',
  resolution=(192, 224, 256, 288),
  stem_width=(16, 24),
  stages=(
    Stage(
      width=(16, 24),
      depth=(1, 2),
      kernel_size=(3, 5),
      expand_ratio=(1,),
      stride=1,
    ),
    Stage(
      width=(24, 32),
      depth=(3, 4, 5),
      kernel_size=(3, 5),
      expand_ratio=(4, 5, 6),
      stride=2,
    ),
    Stage(
      width=(32, 40),
      depth=(3, 4, 5, 6),
      kernel_size=(3, 5),
      expand_ratio=(4, 5, 6),
      stride=2,
      se=zoo_elastic.SE_V3,
    ),
    Stage(
      width=(64, 72),
      depth=(3, 4, 5, 6),
      kernel_size=(3, 5),
      expand_ratio=(4, 5, 6),
      stride=2,
    ),
    Stage(
      width=(112, 120, 128),
      depth=(3, 4, 5, 6, 7, 8),
      kernel_size=(3, 5),
      expand_ratio=(4, 5, 6),
      stride=1,
      se=zoo_elastic.SE_V3,
    ),
    Stage(
      width=(192, 200, 208, 216),
      depth=(3, 4, 5, 6, 7, 8),
      kernel_size=(3, 5),
      expand_ratio=(6,),
      stride=2,
      se=zoo_elastic.SE_V3,
    ),
    Stage(
      width=(216, 224),
      depth=(1, 2),
      kernel_size=(3, 5),
      expand_ratio=(6,),
      stride=1,
      se=zoo_elastic.SE_V3,
    ),
  ),
  head_width=(1792, 1984),
  head_expand=6,
  padding='symmetric',
  bn_epsilon=1e-5,
)

# For 28-pixel digits: small enough to train in minutes on two CPU cores, and
# elastic in all five dimensions so that every mechanism of the big ones runs.
MNIST = Space(
  name='mnist',
  resolution=(28, 30, 32),
  train_resolution=(28, 32),
  stem_width=(8, 16),
  stages=(
    Stage(
      width=(16, 24),
      depth=(1,),
      kernel_size=(3, 5),
      expand_ratio=(1,),
      stride=2,
    ),
    Stage(
      width=(24, 32),
      depth=(1, 2, 3),
      kernel_size=(3,),
      expand_ratio=(2, 3),
      stride=1,
      se=_SE,
    ),
    Stage(
      width=(40, 48),
      depth=(1, 2),
      kernel_size=(3,),
      expand_ratio=(4,),
      stride=2,
      se=_SE,
    ),
  ),
  head_width=(128, 160),
  channels=1,
  classes=10,
)

SPACES = {
  space.name: space
  for space in (
    *(BIGNAS, ATTENTIVE_NAS, MNIST),
    *zoo_elastic.SPACES,
    *zoo_residual.SPACES,
    *zoo_one_of.SPACES,
    *zoo_parallel.SPACES,
  )
}


def get(space: str | Space, field: str = 'space') -> Space:
  """Returns the space of a name, or the given space itself.

  Raises:
    UserError: there is no space of this name; the error names `field`.
  """
  if isinstance(space, Space):
    return space
  if space not in SPACES:
    raise errors.UserError(field, space, errors.one_of(SPACES, space))
  return SPACES[space]
