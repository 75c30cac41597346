"""A search space as data, to be compared with the table of a paper.

A `Space` describes every network that one supernet contains. It is a literal of
tuples of allowed values per stage. If every tuple has one value, it describes a
single network; `pinning.pin` makes one.
"""

import dataclasses
from typing import Literal

from bignas_jax.values import errors, schema

Choices = tuple[int, ...]
Activation = Literal['swish', 'relu', 'relu6', 'hard_swish']
_CHOICES = ('width', 'depth', 'kernel_size', 'expand_ratio')  # of a stage


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
    depth: allowed numbers of blocks.
    kernel_size: allowed kernel sizes of depthwise and dense convolutions, odd.
    expand_ratio: allowed ratios of hidden to input channels; of a `bottleneck`,
      hidden channels in percent of the output's.
    stride: stride of the first block.
    se: squeeze-excite on the hidden channels of an `mbconv`; None: there is
      none.
    expand_conv: whether an `mbconv` begins with an expanding convolution; None:
      it does unless the largest expand ratio is 1.
    block: kind of the blocks (`block_kinds.CONVS`): `mbconv`, the inverted
      bottleneck of the mobile networks; `separable`, that of MobileNetV1; or
      the residual blocks of ResNet, `basic` and `bottleneck`.
    activation: activation after batch norms.
    shortcut: what is added to a block's result. `pooled`: the input, after 2x2
      average pooling if the stride is 2 and a 1x1 convolution if the width
      changes (AttentiveNAS, BigNAS); `identity`: the input, if neither stride
      nor width changes, else nothing (MobileNetV2); `projected`: the input, or
      its strided 1x1 convolution and batch norm if stride or width change
      (ResNet); `none`: nothing.
    kernel_transform: whether smaller kernels are linear functions of bigger
      ones, which are learnt (Once-for-All); else they are their centres.
  """

  width: Choices
  depth: Choices
  kernel_size: Choices
  expand_ratio: Choices
  stride: int = 1
  se: SqueezeExcite | None = None
  expand_conv: bool | None = None
  block: Literal['mbconv', 'separable', 'basic', 'bottleneck'] = 'mbconv'
  activation: Activation = 'swish'
  shortcut: Literal['pooled', 'identity', 'projected', 'none'] = 'pooled'
  kernel_transform: bool = False

  @property
  def has_expand(self) -> bool:
    """Returns whether an `mbconv` begins with an expanding convolution."""
    if self.expand_conv is None:
      return max(self.expand_ratio) > 1
    return self.expand_conv


@dataclasses.dataclass(frozen=True, kw_only=True)
class Space:
  """Every network that one supernet contains.

  Attributes:
    name: name of the space in commands and files.
    resolution: input sizes that a child may have, pixels.
    train_resolution: input sizes that children are trained at, pixels; a subset
      of `resolution`, or all of it if empty.
    stem_width: allowed channels of the first convolution.
    stages: stages of blocks.
    head_width: allowed numbers of channels that the classifier reads; empty:
      there is no head, the classifier reads the last stage's pooled output.
    head_expand: None: the head is a 1x1 convolution to the head width, batch
      norm, activation and average pooling. A number: the head is a 1x1
      convolution to that multiple of the last stage's width, batch norm,
      activation, average pooling, and a 1x1 convolution to the head width
      without batch norm or bias.
    stem_stride: stride of the first convolution.
    stem_kernel: kernel size of the first convolution, odd.
    stem_pool: whether 3x3 maximum pooling with stride 2 follows the stem.
    activation: activation in the stem and the head.
    per_block: whether each block has a kernel size and an expand ratio of its
      own; else all blocks of a stage have the same.
    multipliers: width multipliers; if there are any, the widths of the stem and
      of all stages are one decision, each its single width times the
      multiplier, rounded to a multiple of 8.
    private_norms: whether batch norms have a scale and a bias of their own for
      each width multiplier or for each training resolution.
    padding: `same` pads as TensorFlow does, `symmetric` pads kernel // 2 pixels
      on both sides; they differ where the stride is 2.
    resize: how images are resized to a child's resolution (`ops.resize`).
    bn_epsilon: number added to each variance; None: the space is a single
      network whose batch norms are folded into its kernels (`folding`).
    channels: channels of an input image.
    classes: number of logits.
  """

  name: str
  resolution: Choices
  stem_width: Choices
  stages: tuple[Stage, ...]
  head_width: Choices
  train_resolution: Choices = ()
  head_expand: int | None = None
  stem_stride: int = 2
  stem_kernel: int = 3
  stem_pool: bool = False
  activation: Activation = 'swish'
  per_block: bool = False
  multipliers: tuple[float, ...] = ()
  private_norms: Literal['no', 'width', 'resolution'] = 'no'
  padding: Literal['same', 'symmetric'] = 'same'
  resize: Literal['antialiased', 'pytorch', 'bilinear'] = 'antialiased'
  bn_epsilon: float | None = 1e-3
  channels: int = 3
  classes: int = 1000

  def __post_init__(self):
    if not self.train_resolution:
      object.__setattr__(self, 'train_resolution', self.resolution)
    _check(self)
    if self.multipliers:
      _multiply(self)

  @property
  def widths(self) -> tuple[Choices, ...]:
    """Returns allowed channels of the stem, the stages and the head, if any."""
    inner = (self.stem_width, *(stage.width for stage in self.stages))
    return (*inner, self.head_width) if self.head_width else inner


def round_to_8(value: float) -> int:
  """Returns the nearest multiple of 8 that is not below 0.9 of the value."""
  rounded = max(1, int(value + 4) // 8 * 8)
  return rounded + 8 if rounded < 0.9 * value else rounded


def hidden_width(
  stage: Stage, width_in: int, width_out: int, expand_ratio: int
) -> int:
  """Returns the channels between a block's first and last convolution."""
  if stage.block == 'basic':
    return width_out
  if stage.block == 'bottleneck':
    return round_to_8(round(width_out * expand_ratio / 100))
  if stage.block == 'separable' or not stage.has_expand:
    return width_in
  return round_to_8(round(width_in * expand_ratio))


def multiplied(space: Space) -> list[Choices]:
  """Returns the widths of stem and stages for each width multiplier."""
  most = [max(space.stem_width), *(max(s.width) for s in space.stages)]
  return [
    tuple(round_to_8(width * multiplier) for width in most)
    for multiplier in space.multipliers
  ]


def _multiply(space: Space) -> None:
  """Sets the widths of stem and stages to those of all multipliers."""
  columns = [tuple(sorted({*c})) for c in zip(*multiplied(space), strict=True)]
  stages = [
    dataclasses.replace(stage, width=column)
    for stage, column in zip(space.stages, columns[1:], strict=True)
  ]
  object.__setattr__(space, 'stem_width', columns[0])
  object.__setattr__(space, 'stages', tuple(stages))


def squeeze_width(se: SqueezeExcite, width_in: int, hidden: int) -> int:
  """Returns the channels between the two dense layers of squeeze-excite."""
  base = (width_in if se.of == 'input' else hidden) * se.ratio
  return round_to_8(base) if se.rounding == 'round_to_8' else max(1, int(base))


def _check(space: Space) -> None:
  """Raises UserError, which names the field, if the space is malformed."""
  _check_choices('space.resolution', space.resolution, least=8)
  _check_choices('space.train_resolution', space.train_resolution, least=8)
  if not {*space.train_resolution} <= {*space.resolution}:
    raise errors.UserError(
      'space.train_resolution',
      space.train_resolution,
      f'a subset of space.resolution {space.resolution}',
    )
  _check_choices('space.stem_width', space.stem_width)
  if space.head_width != () or space.head_expand is not None:
    _check_choices('space.head_width', space.head_width)
  if not isinstance(space.stages, tuple) or not space.stages:
    raise errors.UserError(
      'space.stages', space.stages, 'a tuple of at least one Stage'
    )
  for i, stage in enumerate(space.stages):
    _check_stage(f'space.stages[{i}]', stage)
  _check_number('space.stem_stride', space.stem_stride, (1, 2))
  if space.stem_kernel % 2 == 0 or space.stem_kernel < 1:
    raise errors.UserError(
      'space.stem_kernel', space.stem_kernel, 'an odd size'
    )
  _check_multipliers(space)
  private = ('no', 'resolution', *(['width'] if space.multipliers else []))
  _check_number('space.private_norms', space.private_norms, private)
  _check_number('space.padding', space.padding, ('same', 'symmetric'))
  for name, least in ('channels', 1), ('classes', 2):
    value = getattr(space, name)
    if type(value) is not int or value < least:
      allowed = f'a whole number >= {least}'
      raise errors.UserError(f'space.{name}', value, allowed)
  if space.head_expand is not None:
    _check_choices('space.head_expand', (space.head_expand,))
  _check_epsilon(space)


def _check_multipliers(space: Space) -> None:
  given = space.multipliers
  ascending = [*given] == sorted(m for m in {*given} if m > 0)
  if not ascending or (given and given[-1] != 1):
    allowed = 'increasing numbers > 0, the last of which is 1'
    raise errors.UserError('space.multipliers', given, allowed)


def _check_epsilon(space: Space) -> None:
  epsilon, allowed = space.bn_epsilon, 'a number > 0'
  right = isinstance(epsilon, float) and epsilon > 0
  if epsilon is None:
    allowed += ', or None for a single network'
    choices = [space.resolution, *space.widths]
    choices += [getattr(s, name) for s in space.stages for name in _CHOICES]
    right = {len(values) for values in choices} == {1}
  if not right:
    raise errors.UserError('space.bn_epsilon', epsilon, allowed)


def _check_stage(field: str, stage: Stage) -> None:
  if not isinstance(stage, Stage):
    raise errors.UserError(field, stage, 'a Stage')
  for name in _CHOICES:
    _check_choices(f'{field}.{name}', getattr(stage, name))
  if any(k % 2 == 0 for k in stage.kernel_size):
    raise errors.UserError(
      f'{field}.kernel_size', stage.kernel_size, 'odd sizes only'
    )
  _check_number(f'{field}.stride', stage.stride, (1, 2))
  dense = stage.block in ('basic', 'bottleneck')
  for name, wrong, allowed in (
    ('kernel_size', dense and len(stage.kernel_size) > 1, 'one size'),
    ('se', stage.block != 'mbconv' and stage.se is not None, 'None'),
    ('kernel_transform', dense and stage.kernel_transform, 'False'),
  ):
    if wrong:
      value, why = getattr(stage, name), f', for block {stage.block}'
      raise errors.UserError(f'{field}.{name}', value, allowed + why)
  if stage.se is not None and not isinstance(stage.se, SqueezeExcite):
    raise errors.UserError(f'{field}.se', stage.se, 'None or a SqueezeExcite')


def _check_choices(field: str, choices: object, least: int = 1) -> None:
  entries = list(choices) if isinstance(choices, tuple) else []
  whole = all(type(c) is int and c >= least for c in entries)
  if not entries or not whole or entries != sorted(set(entries)):
    raise errors.UserError(
      field, choices, f'a tuple of increasing whole numbers >= {least}'
    )


def _check_number(field: str, value: object, allowed: tuple) -> None:
  if value not in allowed:
    raise errors.UserError(
      field, value, 'one of ' + ', '.join(map(str, allowed))
    )
