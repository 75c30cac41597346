"""Architectures in the JSON form of Once-for-All's own code.

`{"ks": [...], "e": [...], "d": [...], "r": 224}` has kernel sizes and expand
ratios of all blocks and depths of all stages, except for the first stage, which
is the same in every child. Blocks that a child has not have entries too, whose
values mean nothing.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.spaces.stage import Choices, Stage
from bignas_jax.values import errors

_LISTS = {'ks': 'kernel_size', 'e': 'expand_ratio', 'd': 'depth'}
_KEYS = (*_LISTS, 'r')
_UNUSED = 'wid'  # of other spaces; there, it is null in these


def is_form(space: Space, fields: Any) -> bool:
  """Returns whether an architecture of a space is in this form."""
  return space.per_block and isinstance(fields, dict) and 'ks' in fields


def read(space: Space, fields: dict[str, Any]) -> Arch:
  """Returns the architecture that is in this form.

  Args:
    space: a space with choices per block.
    fields: the JSON object.

  Raises:
    UserError: names a missing, unknown or wrong entry.
  """
  given = {k: v for k, v in fields.items() if (k, v) != (_UNUSED, None)}
  if set(given) != set(_KEYS):
    keys = f'a JSON object with the keys {", ".join(_KEYS)}'
    raise errors.UserError('arch', fields, keys)
  size = given['r']
  if isinstance(size, list | tuple) and len(size) == 1:
    (size,) = size  # as Once-for-All's search has it
  smallest, stages = arch_lib.smallest(space), space.stages[1:]
  depths = _list('d', given['d'], (stage.depth for stage in stages))
  depths = [
    _checked(f'd[{i}]', depth, stage.depth)
    for i, (depth, stage) in enumerate(zip(depths, stages, strict=True))
  ]
  lists = {
    field: (
      *getattr(smallest, field)[: max(space.stages[0].depth)],
      *_of_blocks(name, given[name], stages, depths),
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


def _of_blocks(
  name: str, values: Any, stages: tuple[Stage, ...], depths: list[int]
) -> list[int]:
  """Returns a choice for each block, the smallest for those not there."""
  blocks = [
    (getattr(stage, _LISTS[name]), block < depth)
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


def _checked(name: str, value: Any, choices: Choices) -> int:
  if type(value) is not int or value not in choices:
    allowed = f'one of {", ".join(map(str, choices))}'
    raise errors.UserError(f'arch.{name}', value, allowed)
  return value
