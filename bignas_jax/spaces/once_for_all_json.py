"""Architectures in the JSON forms of Once-for-All's own code.

`{"ks": [...], "e": [...], "d": [...], "r": 224}` has kernel sizes and expand
ratios of all blocks and depths of all stages, except for the first stage, which
is the same in every child. Blocks that a child has not have entries too, whose
values mean nothing.

Of residual networks, `{"d": [...], "e": [...], "w": [...], "image_size": 224}`
has positions of widths (first convolution, stem, stages), expand ratios of all
blocks, and for each stage how many blocks more than its fewest there are; first
in `d` comes 2 if the stem has its residual convolution, else 0 or 1.
"""

import dataclasses
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.spaces.stage import Choices, Stage
from bignas_jax.values import errors

_LISTS = {'ks': 'kernel_size', 'e': 'expand_ratio', 'd': 'depth'}
_KEYS = (*_LISTS, 'r')
_RESIDUAL_KEYS = ('d', 'e', 'w', 'image_size')
_UNUSED = 'wid'  # of other spaces; there, it is null in these


def is_form(space: Space, fields: Any) -> bool:
  """Returns whether an architecture of a space is in one of these forms."""
  key = 'w' if _is_residual(space) else 'ks'
  return space.per_block and isinstance(fields, dict) and key in fields


def _is_residual(space: Space) -> bool:
  return space.stages[-1].block == 'bottleneck'


def read(space: Space, fields: dict[str, Any]) -> Arch:
  """Returns the architecture that is in this form.

  Args:
    space: a space with choices per block.
    fields: the JSON object.

  Raises:
    UserError: names a missing, unknown or wrong entry.
  """
  if _is_residual(space):
    return _read_residual(space, fields)
  given = {k: v for k, v in fields.items() if (k, v) != (_UNUSED, None)}
  _check_keys(fields, given, _KEYS)
  size = given['r']
  if isinstance(size, list | tuple) and len(size) == 1:
    (size,) = size  # as Once-for-All's search has it
  smallest, stages = arch_lib.smallest(space), space.stages[1:]
  depths = _each('d', given['d'], [stage.depth for stage in stages])
  lists = {
    field: (
      *getattr(smallest, field)[: max(space.stages[0].depth)],
      *_of_blocks(
        name, given[name], stages, depths, operator.attrgetter(field)
      ),
    )
    for name, field in _LISTS.items()
    if name != 'd'
  }
  arch = dataclasses.replace(
    arch_lib.biggest(space),
    resolution=_checked('r', size, space.resolution),
    depth=(max(space.stages[0].depth), *depths),
    **lists,
  )
  return arch_lib.check(space, arch)


def _read_residual(space: Space, fields: dict[str, Any]) -> Arch:
  _check_keys(fields, fields, _RESIDUAL_KEYS)
  stem, stages = space.stages[:2], space.stages[2:]
  every = [(0, 1, 2), *(tuple(range(len(stage.depth))) for stage in stages)]
  more = _each('d', fields['d'], every)
  depths = [s.depth[d] for s, d in zip(stages, more[1:], strict=True)]
  widths = [space.stem_width, *(stage.width for stage in space.stages[1:])]
  most = max(map(len, widths))
  positions = _each('w', fields['w'], [tuple(range(most))] * len(widths))
  # Of a narrow layer, the first multipliers give the same width.
  first, *others = (
    choices[max(0, position - most + len(choices))]
    for choices, position in zip(widths, positions, strict=True)
  )
  ratios = _of_blocks('e', fields['e'], stages, depths, _fractions)
  arch = dataclasses.replace(
    arch_lib.biggest(space),
    resolution=_checked('image_size', fields['image_size'], space.resolution),
    width=(first, first, *others),
    depth=(int(more[0] == 2), *stem[1].depth, *depths),
    expand_ratio=(1, 1, *(round(100 * ratio) for ratio in ratios)),
  )
  return arch_lib.check(space, arch)


def _fractions(stage: Stage) -> tuple[float, ...]:
  return tuple(percent / 100 for percent in stage.expand_ratio)


def _check_keys(fields: Any, given: Any, keys: tuple[str, ...]) -> None:
  if set(given) != set(keys):
    allowed = f'a JSON object with the keys {", ".join(keys)}'
    raise errors.UserError('arch', fields, allowed)


def _each(name: str, values: Any, every: Sequence[Choices]) -> list[int]:
  """Returns a list of an entry for each of several choices."""
  return [
    _checked(f'{name}[{i}]', value, choices)
    for i, (value, choices) in enumerate(
      zip(_list(name, values, every), every, strict=True)
    )
  ]


def _of_blocks(
  name: str,
  values: Any,
  stages: tuple[Stage, ...],
  depths: list[int],
  choices_of: Callable[[Stage], tuple[Any, ...]],
) -> list[Any]:
  """Returns a choice for each block, the smallest for those not there."""
  blocks = [
    (choices_of(stage), block < depth)
    for stage, depth in zip(stages, depths, strict=True)
    for block in range(max(stage.depth))
  ]
  values = _list(name, values, (choices for choices, _ in blocks))
  return [
    _checked(f'{name}[{i}]', value, choices) if there else choices[0]
    for i, (value, (choices, there)) in enumerate(
      zip(values, blocks, strict=True)
    )
  ]


def _list(name: str, values: Any, choices: Iterable[Choices]) -> list[Any]:
  """Returns a list; UserError if it has not as many entries as choices."""
  length = len([*choices])
  if not isinstance(values, list | tuple) or len(values) != length:
    raise errors.UserError(f'arch.{name}', values, f'{length} numbers')
  return [*values]


def _checked(name: str, value: Any, choices: tuple[Any, ...]) -> Any:
  if type(value) is not type(choices[0]) or value not in choices:
    allowed = f'one of {", ".join(map(str, choices))}'
    raise errors.UserError(f'arch.{name}', value, allowed)
  return value
