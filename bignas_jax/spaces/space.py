"""A search space as data, to be compared with the table of a paper.

A `Space` describes every network that one supernet contains. It is a literal of
tuples of allowed values per stage. If every tuple has one value, it describes a
single network; `pinning.pin` makes one.
"""

import dataclasses
from typing import Literal

from bignas_jax.spaces import block_kinds
from bignas_jax.spaces.stage import (
  CHOICES,
  Activation,
  Choices,
  Stage,
  check,
  check_choices,
  check_number,
  round_to_8,
)
from bignas_jax.values import errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Space:
  """Every network that one supernet contains.

  Attributes:
    name: name of the space in commands and files.
    resolution: input sizes that a child may have, pixels.
    train_resolution: input sizes that children are trained at, pixels; a subset
      of `resolution`, or all of it if empty.
    stem_width: allowed channels of the first convolution; batch norm and
      activation follow, unless the first stage's blocks begin with them.
    stages: stages of blocks.
    head_width: allowed numbers of channels that the classifier reads; empty:
      there is no head, the classifier reads the last stage's pooled output,
      after batch norm and activation if its blocks are preactivated.
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


def _check(space: Space) -> None:
  """Raises UserError, which names the field, if the space is malformed."""
  check_choices('space.resolution', space.resolution, least=8)
  check_choices('space.train_resolution', space.train_resolution, least=8)
  if not {*space.train_resolution} <= {*space.resolution}:
    raise errors.UserError(
      'space.train_resolution',
      space.train_resolution,
      f'a subset of space.resolution {space.resolution}',
    )
  check_choices('space.stem_width', space.stem_width)
  if space.head_width != () or space.head_expand is not None:
    check_choices('space.head_width', space.head_width)
  if not isinstance(space.stages, tuple) or not space.stages:
    raise errors.UserError(
      'space.stages', space.stages, 'a tuple of at least one Stage'
    )
  for i, stage in enumerate(space.stages):
    check(f'space.stages[{i}]', stage)
  _check_optional(space)
  _check_parallel(space)
  _check_groups(space)
  if space.stages[-1].preactivated and space.head_width:
    allowed = '(), where the last blocks are preactivated'
    raise errors.UserError('space.head_width', space.head_width, allowed)
  check_number('space.stem_stride', space.stem_stride, (1, 2))
  if space.stem_kernel % 2 == 0 or space.stem_kernel < 1:
    raise errors.UserError(
      'space.stem_kernel', space.stem_kernel, 'an odd size'
    )
  _check_multipliers(space)
  private = ('no', 'resolution', *(['width'] if space.multipliers else []))
  check_number('space.private_norms', space.private_norms, private)
  check_number('space.padding', space.padding, ('same', 'symmetric'))
  for name, least in ('channels', 1), ('classes', 2):
    value = getattr(space, name)
    if type(value) is not int or value < least:
      allowed = f'a whole number >= {least}'
      raise errors.UserError(f'space.{name}', value, allowed)
  if space.head_expand is not None:
    check_choices('space.head_expand', (space.head_expand,))
  _check_epsilon(space)


def _check_optional(space: Space) -> None:
  for i, stage in enumerate(space.stages):
    if not stage.optional:
      continue
    why = ', where the depth may be 0'
    if stage.width != space.widths[i]:
      allowed = f'the widths before it, {space.widths[i]}{why}'
      raise errors.UserError(f'space.stages[{i}].width', stage.width, allowed)
    for name in ('kernel_size', 'expand_ratio', 'se_choice'):
      choices = getattr(stage, name)
      several = choices is True if name == 'se_choice' else len(choices) > 1
      if several and not space.per_block:
        allowed = f'one, or space.per_block{why}'
        raise errors.UserError(f'space.stages[{i}].{name}', choices, allowed)


def _check_parallel(space: Space) -> None:
  for i, stage in enumerate(space.stages):
    if not stage.parallel:
      continue
    for field, value, right, allowed in (
      ('per_block', space.per_block, space.per_block, 'True'),
      ('multipliers', space.multipliers, not space.multipliers, '()'),
      (f'widths[{i}]', space.widths[i], len(space.widths[i]) == 1, 'one width'),
      ('bn_epsilon', space.bn_epsilon, space.bn_epsilon, 'a number > 0'),
    ):
      if not right:
        allowed += ', where layers have parallel members'
        raise errors.UserError(f'space.{field}', value, allowed)
    changes = stage.width != space.widths[i]
    if not block_kinds.masks(stage, first=True, changes_width=changes):
      allowed = 'masks of more than the identity: the first layer has none'
      name = f'space.stages[{i}].parallel'
      raise errors.UserError(name, stage.parallel, allowed)


def _check_groups(space: Space) -> None:
  for i, stage in enumerate(space.stages):
    ends = space.widths[i], stage.width
    whole = all(width % stage.groups == 0 for width in (*ends[0], *ends[1]))
    if stage.groups > 1 and not (whole and len(ends[0]) == 1):
      allowed = f'a divisor of one width before and after, {ends}'
      raise errors.UserError(f'space.stages[{i}].groups', stage.groups, allowed)


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
    choices += [getattr(s, name) for s in space.stages for name in CHOICES]
    right = {len(values) for values in choices} == {1}
    right = right and not any(stage.se_choice for stage in space.stages)
  if not right:
    raise errors.UserError('space.bn_epsilon', epsilon, allowed)
