"""A stage of a space as data: its blocks, and the choices that they leave."""

import dataclasses
from typing import Literal

from bignas_jax.spaces import parallel as parallel_lib
from bignas_jax.values import errors, schema

Choices = tuple[int, ...]
Activation = Literal['swish', 'relu', 'relu6', 'hard_swish']
_DEPTHWISE = 'mbconv', 'separable'  # kinds of blocks with such kernels
_SINGLE = 'conv', 'strided_conv'  # kinds of blocks that are one convolution
CHOICES = ('width', 'depth', 'kernel_size', 'expand_ratio')  # of a stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class SqueezeExcite:
  """Squeeze-excite, which scales hidden channels by their spatial means.

  Attributes:
    of: width that the squeeze width derives from: the block's active `input`
      channels or its active `hidden` (expanded) channels.
    ratio: squeeze width as a fraction of the width named by `of`.
    rounding: rounding of the squeeze width, `floor` (EfficientNet) or
      `round_to_8` (MobileNetV3).
    activation: activation between the two dense layers.
    gate: activation after the two dense layers; `hard_sigmoid` is relu6(x + 3)
      / 6.
  """

  of: Literal['input', 'hidden'] = 'input'
  ratio: schema.Positive = 0.25
  rounding: Literal['floor', 'round_to_8'] = 'floor'
  activation: Literal['swish', 'relu'] = 'swish'
  gate: Literal['sigmoid', 'hard_sigmoid'] = 'sigmoid'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
  """A stage of equal blocks, whose first may change width and stride.

  Attributes:
    width: allowed output channels.
    depth: allowed numbers of blocks. If 0 is one of them, the stage keeps the
      size and the width of its input.
    kernel_size: allowed kernel sizes of depthwise and dense convolutions, odd.
    expand_ratio: allowed ratios of hidden to input channels; of a `bottleneck`,
      hidden channels in percent of the output's; 0: the block is its shortcut
      alone.
    stride: stride of the first block.
    se: squeeze-excite on the hidden channels of an `mbconv`; None: there is
      none.
    se_choice: whether children choose to have `se`, block by block if the space
      has choices per block; else all have it.
    expand_conv: whether an `mbconv` begins with an expanding convolution; None:
      it does unless the largest expand ratio is 1.
    block: kind of the blocks (`block_kinds.CONVS`): `mbconv`, the inverted
      bottleneck of the mobile networks; `separable`, that of MobileNetV1; the
      residual blocks of ResNet, `basic` and `bottleneck`; `preactivated`, the
      basic block whose batch norms and activations come before convolutions;
      `conv`, one convolution, followed by 3x3 maximum pooling if the stride is
      2; or `strided_conv`, one convolution, which has the stride.
    activation: activation after batch norms.
    shortcut: what is added to a block's result. `pooled`: the input, after 2x2
      average pooling if the stride is 2 and a 1x1 convolution if the width
      changes (AttentiveNAS, BigNAS); `identity`: the input, if neither stride
      nor width changes, else nothing (MobileNetV2); `projected`: the input, or
      its strided 1x1 convolution and batch norm if stride or width change
      (ResNet), of a `preactivated` block the 1x1 convolution of the activated
      input without batch norm; `pooled_projected`: as `projected`, but 2x2
      average pooling has the stride (ResNet-D); `none`: nothing.
    kernel_transform: whether smaller kernels are linear functions of bigger
      ones, which are learnt (Once-for-All); else they are their centres.
    separate_weights: whether each kernel size and expand ratio of an `mbconv`
      is an operation with parameters of its own, as in single-path supernets;
      else smaller ones are slices of the biggest.
    parallel: sets of parallel members (`parallel.MEMBERS`), as bit masks, one
      of which each layer of a `conv` or `strided_conv` is the sum of; (): it is
      a convolution without members. A layer that changes the shape has no
      identity, whatever its mask says.
    groups: number of groups of channels that each convolution of a `conv` or
      `strided_conv` has, those of its members, too.
    shared_kernel: whether the kernels of a layer's members are the centres of
      one learnt kernel (`parallel.Step.shared`); else each has its own.
    zero_start: whether all members of a layer but `square` start as 0: the
      scales of their last batch norms do.
  """

  width: Choices
  depth: Choices
  kernel_size: Choices
  expand_ratio: Choices
  stride: int = 1
  se: SqueezeExcite | None = None
  se_choice: bool = False
  expand_conv: bool | None = None
  block: Literal[
    'mbconv',
    'separable',
    'basic',
    'bottleneck',
    'preactivated',
    'conv',
    'strided_conv',
  ] = 'mbconv'
  activation: Activation = 'swish'
  shortcut: Literal[
    'pooled', 'identity', 'projected', 'pooled_projected', 'none'
  ] = 'pooled'
  kernel_transform: bool = False
  separate_weights: bool = False
  parallel: Choices = ()
  groups: int = 1
  shared_kernel: bool = False
  zero_start: bool = False

  @property
  def has_expand(self) -> bool:
    """Returns whether an `mbconv` begins with an expanding convolution."""
    if self.expand_conv is None:
      return max(self.expand_ratio) > 1
    return self.expand_conv

  @property
  def preactivated(self) -> bool:
    """Returns whether blocks begin with batch norm and activation."""
    return self.block == 'preactivated'

  @property
  def optional(self) -> bool:
    """Returns whether some children have no block of the stage."""
    return 0 in self.depth


def round_to_8(value: float) -> int:
  """Returns the nearest multiple of 8 that is not below 0.9 of the value."""
  rounded = max(1, int(value + 4) // 8 * 8)
  return rounded + 8 if rounded < 0.9 * value else rounded


def hidden_width(
  stage: Stage, width_in: int, width_out: int, expand_ratio: int
) -> int:
  """Returns the channels between a block's first and last convolution."""
  if stage.block in _SINGLE:
    return 0
  if stage.block in ('basic', 'preactivated'):
    return width_out
  if stage.block == 'bottleneck':
    return round_to_8(round(width_out * expand_ratio / 100))
  if stage.block == 'separable' or not stage.has_expand:
    return width_in
  return round_to_8(round(width_in * expand_ratio))


def squeeze_width(se: SqueezeExcite, width_in: int, hidden: int) -> int:
  """Returns the channels between the two dense layers of squeeze-excite."""
  base = (width_in if se.of == 'input' else hidden) * se.ratio
  return round_to_8(base) if se.rounding == 'round_to_8' else max(1, int(base))


def check(field: str, stage: object) -> None:
  """Raises UserError, which names the field, if a stage is malformed."""
  if not isinstance(stage, Stage):
    raise errors.UserError(field, stage, 'a Stage')
  for name in CHOICES:
    skips = name == 'expand_ratio' and stage.block == 'mbconv'
    least = 0 if skips or name == 'depth' else 1
    check_choices(f'{field}.{name}', getattr(stage, name), least)
  if any(k % 2 == 0 for k in stage.kernel_size):
    raise errors.UserError(
      f'{field}.kernel_size', stage.kernel_size, 'odd sizes only'
    )
  if stage.parallel != ():
    check_choices(f'{field}.parallel', stage.parallel)
  if type(stage.groups) is not int or stage.groups < 1:
    raise errors.UserError(
      f'{field}.groups', stage.groups, 'a whole number >= 1'
    )
  check_number(f'{field}.stride', stage.stride, (1, 2))
  if stage.se is not None and not isinstance(stage.se, SqueezeExcite):
    raise errors.UserError(f'{field}.se', stage.se, 'None or a SqueezeExcite')
  for name, allowed in _wrong(stage).items():
    raise errors.UserError(f'{field}.{name}', getattr(stage, name), allowed)


def _wrong(stage: Stage) -> dict[str, str]:
  """Returns what is allowed for each field that does not fit another one."""
  kind, separate = f'for block {stage.block}', stage.separate_weights
  other, dense = (stage.block not in some for some in (('mbconv',), _DEPTHWISE))
  projected = stage.shortcut == 'projected'
  empty, optional = stage.depth == (0,), 'where the depth may be 0'
  skips = 0 in stage.expand_ratio[:-1]
  sums, most = bool(stage.parallel), parallel_lib.ALL
  grouped = stage.groups > 1
  square = any(mask & parallel_lib.mask('square') for mask in stage.parallel)
  rules = (
    ('kernel_size', dense and len(stage.kernel_size) > 1, f'one size, {kind}'),
    ('se', other and stage.se is not None, f'None, {kind}'),
    (
      'se_choice',
      stage.se_choice and stage.se is None,
      'False, where se is None',
    ),
    ('se_choice', stage.se_choice and separate, 'False, with separate_weights'),
    ('kernel_transform', dense and stage.kernel_transform, f'False, {kind}'),
    ('shortcut', stage.preactivated and not projected, f'projected, {kind}'),
    ('separate_weights', other and separate, f'False, {kind}'),
    ('depth', empty, 'at least one block in some children'),
    ('stride', stage.optional and stage.stride > 1, f'1, {optional}'),
    (
      'kernel_transform',
      stage.kernel_transform and (stage.optional or separate),
      f'False, with separate_weights or {optional}',
    ),
    ('separate_weights', stage.optional and separate, f'False, {optional}'),
    (
      'block',
      stage.optional and stage.preactivated,
      f'another block, {optional}',
    ),
    (
      'expand_ratio',
      skips and not separate,
      'ratios above 0, or separate_weights=True',
    ),
    ('parallel', sums and stage.block not in _SINGLE, f'(), {kind}'),
    ('groups', grouped and stage.block not in _SINGLE, f'1, {kind}'),
    *(
      (
        name,
        getattr(stage, name) and not square,
        'False, without member square',
      )
      for name in ('shared_kernel', 'zero_start')
    ),
    ('parallel', max(stage.parallel, default=0) > most, f'masks up to {most}'),
    ('parallel', sums and stage.optional, f'(), {optional}'),
    ('shortcut', sums and stage.shortcut != 'none', 'none, with parallel'),
    (
      'width',
      (sums or grouped) and len(stage.width) > 1,
      'one width, with parallel or groups',
    ),
  )
  return {name: allowed for name, wrong, allowed in rules if wrong}


def check_choices(field: str, choices: object, least: int = 1) -> None:
  entries = list(choices) if isinstance(choices, tuple) else []
  whole = all(type(c) is int and c >= least for c in entries)
  if not entries or not whole or entries != sorted(set(entries)):
    raise errors.UserError(
      field, choices, f'a tuple of increasing whole numbers >= {least}'
    )


def check_number(field: str, value: object, allowed: tuple) -> None:
  if value not in allowed:
    raise errors.UserError(
      field, value, 'one of ' + ', '.join(map(str, allowed))
    )
