"""The space of a single child: its own shape, with no choice left."""

import dataclasses
from typing import Any

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import block_kinds
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space


def pinned_stages(space: Space, arch: Arch) -> list[tuple[int, int, int]]:
  """Returns the stages of `pin`'s space as (stage, first block, blocks) here.

  A stage whose blocks have the same choices stays a stage; of others, each
  block becomes one, because their arrays have different shapes. Blocks that
  return their input are left out, and stages of which the child has no block.
  """
  rows = []
  for i, depth in enumerate(arch.depth):
    choices = [
      arch_lib.of_block(space, arch, i, block) for block in range(depth)
    ]
    kept = [
      block
      for block, choice in enumerate(choices)
      if block == 0 or choice['expand_ratio']
    ]
    if depth and len(kept) == depth and all(c == choices[0] for c in choices):
      rows.append((i, 0, depth))
    else:
      rows += [(i, block, 1) for block in kept]
  return rows


def is_aligned(space: Space, arch: Arch) -> bool:
  """Returns whether `pin`'s space has the stages of this space, one by one.

  Then a child's arrays are slices of the supernet's of the same names.
  """
  others = any(s.optional or s.separate_weights for s in space.stages)
  return not others and len(pinned_stages(space, arch)) == len(space.stages)


def pin(space: Space, arch: Arch) -> Space:
  """Returns the space of this architecture only: the child's own shape."""
  arch_lib.check(space, arch)
  stages = []
  for number, block, blocks in pinned_stages(space, arch):
    stage = space.stages[number]
    choices = arch_lib.of_block(space, arch, number, block)
    own = block_kinds.alone(stage, **choices)
    stages.append(
      dataclasses.replace(
        own,
        width=(arch.width[number + 1],),
        depth=(blocks,),
        stride=1 if block else stage.stride,
      )
    )
  return dataclasses.replace(
    space,
    resolution=(arch.resolution,),
    train_resolution=(arch.resolution,),
    stem_width=arch.width[:1],
    stages=tuple(stages),
    head_width=arch.width[-1:] if space.head_width else (),
    per_block=any(stage.parallel for stage in stages),
    multipliers=(),
    private_norms='no',
  )


def deployed(space: Space) -> Space:
  """Returns the space of a child's folded network.

  It has no batch norms, and one convolution in place of parallel members.

  Args:
    space: space of a single network.
  """
  stages = tuple(
    dataclasses.replace(stage, parallel=()) for stage in space.stages
  )
  return dataclasses.replace(
    space, stages=stages, per_block=False, bn_epsilon=None
  )


def described(pinned: Space, fields: Any) -> Arch:
  """Reads the JSON form of the architecture that a space is pinned to.

  Raises:
    UserError: it is another one; names a missing, unknown or wrong entry.
  """
  arch = arch_lib.parse(fields)
  return arch if describes(arch, pinned) else arch_lib.check(pinned, arch)


def describes(arch: Arch, pinned: Space) -> bool:
  """Returns whether an architecture can be that of a pinned space.

  In a space with choices per block, its stages may be the pinned one's blocks,
  and blocks that return their input are left out.
  """
  own = arch_lib.biggest(pinned)
  if not arch.width:
    return False
  ends = [(a.resolution, a.width[0], a.width[-1]) for a in (arch, own)]
  blocks, most = sum(own.depth), sum(arch.depth)
  fewest = most - arch.expand_ratio.count(0)
  return ends[0] == ends[1] and fewest <= blocks <= most
