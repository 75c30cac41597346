"""Parameters that a child derives from a supernet's, before they are cut.

Three features of a space give a supernet parameters that no child keeps:
kernels of which smaller ones are linear functions (`Stage.kernel_transform`),
one kernel of which a layer's members have the centres (`Stage.shared_kernel`),
and batch norms with scales and biases of their own for each width or resolution
(`Space.private_norms`). `resolve` computes a child's parameters from them, in
the shapes of the same space without these features: `plain`. The rest of the
network knows only plain spaces.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from bignas_jax.operations import slicing
from bignas_jax.operations.depthwise import PIXELS
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import block_kinds, parallel, pinning
from bignas_jax.spaces.arch import Arch, Indices
from bignas_jax.spaces.decisions import banks, of_stage
from bignas_jax.spaces.space import Space
from bignas_jax.spaces.stage import Stage

Params = dict[str, Any]
Kernel = Float[Array, 'size size 1 channels']


@functools.cache
def plain(space: Space) -> Space:
  """Returns the space without parameters that children derive theirs from."""
  stages = tuple(
    dataclasses.replace(stage, kernel_transform=False, shared_kernel=False)
    for stage in space.stages
  )
  return dataclasses.replace(space, stages=stages, private_norms='no')


def is_plain(space: Space) -> bool:
  """Returns whether children's parameters are slices of the supernet's."""
  return space == plain(space)


def extend(space: Space, params: Params, norms: Params) -> Params:
  """Returns a supernet's parameters from those of its plain space.

  Matrices that make kernels begin as identities, a kernel that members share as
  that of the member `square`; private batch norms begin equal.

  Args:
    space: space of the supernet.
    params: parameters of the plain space's supernet.
    norms: names of its batch norms (`network.norms`).
  """
  if space.private_norms != 'no':
    repeat = lambda a: jnp.repeat(a[None], banks(space), axis=0)  # noqa: E731
    params = _map_norms(repeat, params, norms)
  for i, stage in enumerate(space.stages):
    if stage.kernel_transform:
      name = f'stage{i + 1}'
      own = {
        which: block
        | {'transform': _identities(stage, which, max(stage.depth))}
        for which, block in params[name].items()
      }
      params = params | {name: own}
    elif stage.shared_kernel:
      name = f'stage{i + 1}'
      own = {which: _sharing(block) for which, block in params[name].items()}
      params = params | {name: own}
  return params


def _sharing(block: Params) -> Params:
  """Returns a layer's parameters with one kernel for all that can share it."""
  own = {step.name for step in parallel.steps(parallel.ALL) if step.shared}
  others = {name: block[name] for name in block if name not in own}
  return others | {'shared': block['square']}


def _shared(stage: Stage, block: Params) -> Params:
  """Returns a layer's parameters with the kernels of all its members."""
  (size,), kernel, made = stage.kernel_size, block['shared']['kernel'], {}
  for step in parallel.steps(parallel.ALL):
    if step.shared and f'{step.name}_bn' in block:
      high, wide = step.windows(size)
      shape = (*kernel.shape[:-4], high, wide, *kernel.shape[-2:])
      like = jax.ShapeDtypeStruct(shape, kernel.dtype)
      made[step.name] = {'kernel': slicing.shrink(kernel, like, PIXELS)}
  return {name: block[name] for name in block if name != 'shared'} | made


def _identities(stage: Stage, which: str, depth: int) -> Params:
  """Returns a matrix for each kernel size that is made of the next bigger."""
  eyes = {str(size): jnp.eye(size**2) for size in stage.kernel_size[:-1]}
  if which == 'first':
    return eyes
  return jax.tree.map(lambda a: jnp.repeat(a[None], depth - 1, axis=0), eyes)


def resolve(
  space: Space, params: Params, norms: Params, indices: Indices
) -> Params:
  """Returns parameters of the plain space's supernet, for one child.

  Args:
    space: space of the supernet.
    params: its parameters.
    norms: names of its batch norms (`network.norms`).
    indices: the child.
  """
  if space.private_norms != 'no':
    take = lambda a: lax.dynamic_index_in_dim(  # noqa: E731
      a, jnp.asarray(indices.bank), keepdims=False
    )
    params = _map_norms(take, params, norms)
  for i, stage in enumerate(space.stages):
    if stage.kernel_transform:
      name, positions = f'stage{i + 1}', _kernel_positions(space, indices, i)
      own = {
        which: _with_kernels(stage, block, positions[which])
        for which, block in params[name].items()
      }
      params = params | {name: own}
    elif stage.shared_kernel:
      name, make = f'stage{i + 1}', functools.partial(_shared, stage)
      own = {which: make(block) for which, block in params[name].items()}
      params = params | {name: own}
  return params


def _kernel_positions(
  space: Space, indices: Indices, number: int
) -> dict[str, Array]:
  """Returns positions of the kernel sizes of the first block, and the rest."""
  every = jnp.asarray(indices.kernel_size)
  if not space.per_block:
    blocks = max(space.stages[number].depth)
    every = jnp.repeat(every[number], blocks)
  else:
    every = every[of_stage(space, number)]
  return {'first': every[0], 'rest': every[1:]}


def _with_kernels(
  stage: Stage, block: Params, position: Int[Array, '*blocks']
) -> Params:
  make: Callable = functools.partial(_kernel, stage.kernel_size)
  if position.ndim:
    make = jax.vmap(make)
  kernel = jnp.asarray(block['depthwise']['kernel'])
  made = make(kernel, jax.tree.map(jnp.asarray, block['transform']), position)
  others = {name: block[name] for name in block if name != 'transform'}
  return others | {'depthwise': {'kernel': made}}


def _kernel(
  sizes: tuple[int, ...],
  kernel: Kernel,
  matrices: Params,
  position: Int[Array, ''],
) -> Kernel:
  """Returns the kernel of one of several sizes, with zeros around it.

  Once-for-All (ICLR 2020), section 3.3: the kernel of size k is a matrix times
  the centre of the next bigger kernel, the same matrix for all channels.
  """
  made, bigger = [kernel], kernel
  for size in reversed(sizes[:-1]):
    shape = (size, size, *kernel.shape[2:])
    like = jax.ShapeDtypeStruct(shape, kernel.dtype)
    centre = slicing.shrink(bigger, like, PIXELS).reshape(size**2, -1)
    product = jnp.matmul(
      matrices[str(size)], centre, precision=lax.Precision.HIGHEST
    )
    bigger = product.reshape(shape)
    made.append(slicing.grow(bigger, kernel, PIXELS))
  return jnp.stack(made[::-1])[position]


def by_pinned_stage(space: Space, arch: Arch, tree: Params) -> Params:
  """Returns arrays of a supernet by the stages of a child's pinned space."""
  rows = pinning.pinned_stages(space, arch)
  out = {name: tree[name] for name in tree if not name.startswith('stage')}
  for i, (number, block, depth) in enumerate(rows):
    stage = tree[f'stage{number + 1}']
    if space.stages[number].separate_weights:
      choices = arch_lib.of_block(space, arch, number, block)
      sizes = choices['kernel_size'], choices['expand_ratio']
      name = block_kinds.operation_name(*sizes)
      stage = {which: own.get(name, {}) for which, own in stage.items()}
    if 'first' not in stage:  # some children have no block of it
      stage = {
        'first': jax.tree.map(lambda a: a[0], stage['rest']),
        'rest': jax.tree.map(lambda a: a[1:], stage['rest']),
      }
    if depth == arch.depth[number]:
      own = stage
    elif block == 0:
      own = {'first': stage['first']}
    else:
      entry = block - 1
      own = {'first': jax.tree.map(lambda a, n=entry: a[n], stage['rest'])}
    out[f'stage{i + 1}'] = own
  return out


def _map_norms(function, params: Params, norms: Params) -> Params:
  """Returns parameters with a function applied to those of batch norms."""
  out = dict(params)
  for name, inner in norms.items():
    if isinstance(inner, dict):
      out[name] = _map_norms(function, params[name], inner)
    else:
      out[name] = jax.tree.map(function, params[name])
  return out
