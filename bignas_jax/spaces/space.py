"""A search space as data, to be compared with the table of a paper.

A `Space` describes every network that one supernet contains. It is a literal of
tuples of allowed values per stage, with nothing computed. A space in which
every tuple has one value describes a single network; `arch.pin` makes one.
"""

import dataclasses
from typing import Literal

from bignas_jax.values import errors, schema

Choices = tuple[int, ...]
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
  """A stage of inverted bottlenecks, whose first may change width and stride.

  Attributes:
    width: allowed output channels.
    depth: allowed numbers of blocks.
    kernel_size: allowed kernel sizes of the depthwise convolution, odd.
    expand_ratio: allowed ratios of hidden to input channels.
    stride: stride of the first block.
    se: squeeze-excite on the hidden channels; None: there is none.
    expand_conv: whether blocks begin with an expanding convolution; None: they
      do unless the largest expand ratio is 1.
  """

  width: Choices
  depth: Choices
  kernel_size: Choices
  expand_ratio: Choices
  stride: int = 1
  se: SqueezeExcite | None = None
  expand_conv: bool | None = None

  @property
  def has_expand(self) -> bool:
    """Returns whether blocks begin with an expanding convolution."""
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
    stem_width: allowed channels of the first 3x3 convolution.
    stages: stages of blocks.
    head_width: allowed numbers of channels that the classifier reads.
    head_expand: None: the head is a 1x1 convolution to the head width, batch
      norm, activation and average pooling. A number: the head is a 1x1
      convolution to that multiple of the last stage's width, batch norm,
      activation, average pooling, and a 1x1 convolution to the head width
      without batch norm or bias.
    stem_stride: stride of the first convolution.
    padding: `same` pads as TensorFlow does, `symmetric` pads kernel // 2 pixels
      on both sides; they differ where the stride is 2.
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
  padding: Literal['same', 'symmetric'] = 'same'
  bn_epsilon: float | None = 1e-3
  channels: int = 3
  classes: int = 1000

  def __post_init__(self):
    if not self.train_resolution:
      object.__setattr__(self, 'train_resolution', self.resolution)
    _check(self)


def round_to_8(value: float) -> int:
  """Returns the nearest multiple of 8 that is not below 0.9 of the value."""
  rounded = max(1, int(value + 4) // 8 * 8)
  return rounded + 8 if rounded < 0.9 * value else rounded


def hidden_width(stage: Stage, width_in: int, expand_ratio: int) -> int:
  """Returns the channels between the expanding and projecting convolutions."""
  if not stage.has_expand:
    return width_in
  return round_to_8(round(width_in * expand_ratio))


def squeeze_width(se: SqueezeExcite, width_in: int, hidden: int) -> int:
  """Returns the channels between the two dense layers of squeeze-excite."""
  base = (width_in if se.of == 'input' else hidden) * se.ratio
  return round_to_8(base) if se.rounding == 'round_to_8' else max(1, int(base))


def _check(space: Space) -> None:
  """Raises UserError, which names the field, if the space is malformed."""
  _check_choices('space.resolution', space.resolution, least=8)
  _check_choices('space.train_resolution', space.train_resolution, least=8)
  extra = set(space.train_resolution) - set(space.resolution)
  if extra:
    raise errors.UserError(
      'space.train_resolution',
      space.train_resolution,
      f'a subset of space.resolution {space.resolution}',
    )
  _check_choices('space.stem_width', space.stem_width)
  _check_choices('space.head_width', space.head_width)
  if not isinstance(space.stages, tuple) or not space.stages:
    raise errors.UserError(
      'space.stages', space.stages, 'a tuple of at least one Stage'
    )
  for i, stage in enumerate(space.stages):
    _check_stage(f'space.stages[{i}]', stage)
  _check_number('space.stem_stride', space.stem_stride, (1, 2))
  _check_number('space.padding', space.padding, ('same', 'symmetric'))
  for name, least in ('channels', 1), ('classes', 2):
    value = getattr(space, name)
    if type(value) is not int or value < least:
      allowed = f'a whole number >= {least}'
      raise errors.UserError(f'space.{name}', value, allowed)
  if space.head_expand is not None:
    _check_choices('space.head_expand', (space.head_expand,))
  _check_epsilon(space)


def _check_epsilon(space: Space) -> None:
  epsilon, allowed = space.bn_epsilon, 'a number > 0'
  right = isinstance(epsilon, float) and epsilon > 0
  if epsilon is None:
    allowed += ', or None for a single network'
    choices = [space.resolution, space.stem_width, space.head_width]
    for stage in space.stages:
      choices += [getattr(stage, name) for name in _CHOICES]
    right = all(len(values) == 1 for values in choices)
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
  if stage.se is not None and not isinstance(stage.se, SqueezeExcite):
    raise errors.UserError(f'{field}.se', stage.se, 'None or a SqueezeExcite')


def _check_choices(field: str, choices: object, least: int = 1) -> None:
  values = list(choices) if isinstance(choices, tuple) else []
  whole = all(type(c) is int and c >= least for c in values)
  if not values or not whole or values != sorted(set(values)):
    raise errors.UserError(
      field, choices, f'a tuple of increasing whole numbers >= {least}'
    )


def _check_number(field: str, value: object, allowed: tuple) -> None:
  if value not in allowed:
    raise errors.UserError(
      field, value, 'one of ' + ', '.join(map(str, allowed))
    )
