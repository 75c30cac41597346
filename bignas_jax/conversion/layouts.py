"""Parameters of other code bases, by their names there, in this layout.

A layout says, for each array of `supernet.network`, which tensor of a file it
is, and in which order that tensor's axes come here. A new layout is a function
from a space to a tree of `Tensor`, nested as the parameters are; blocks that
are stacked here have a list of tensors.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from bignas_jax.operations import ops
from bignas_jax.spaces import block_kinds
from bignas_jax.spaces.space import Space
from bignas_jax.supernet import batch_norm, network, stage_blocks
from bignas_jax.supernet.stage_blocks import Block
from bignas_jax.system import console
from bignas_jax.values import errors

Tree = Any

# PyTorch's convolution kernels are [out, in, height, width].
CONVOLUTION: tuple[int, ...] = (2, 3, 1, 0)
POINTWISE = 'pointwise'  # [out, in, 1, 1] there, [in, out] here
DENSE: tuple[int, ...] = (1, 0)
VECTOR: tuple[int, ...] = (0,)
MATRIX: tuple[int, ...] = (0, 1)  # the matrix of a linear function of columns
_NAMED = 5  # tensors of a kind in the one line of an error
_ORDERS = {
  'pointwise': POINTWISE,
  'depthwise': CONVOLUTION,
  'dense': CONVOLUTION,
}


class Tensor(NamedTuple):
  """A tensor of a file.

  Attributes:
    name: name in the file.
    order: which of the tensor's axes come first, second, ... here; or
      `POINTWISE`.
  """

  name: str
  order: tuple[int, ...] | str


class Normalisation(NamedTuple):
  """What a network's pixels in 0..1 are normalised by, for each channel."""

  mean: tuple[float, ...]
  std: tuple[float, ...]


class Layout(NamedTuple):
  """How a code base names and arranges its parameters.

  Attributes:
    tensors: function from a space to the tensors of its parameters.
    renamed: patterns of names, and what replaces them, one after the other.
    unused: pattern of names that mean nothing here, such as running averages of
      a supernet.
    single: the normalisation of a single network, whose running averages are
      its statistics; None: the files hold supernets.
    resize: how the code base resizes a batch to a child's resolution; None: it
      does not, and the space's rule stays.
    image_size: pixels of the images that it resizes so; 0: it loads images at
      each child's resolution.
  """

  tensors: Callable[[Space], Tree]
  renamed: tuple[tuple[str, str], ...]
  unused: str
  single: Normalisation | None = None
  resize: ops.Resize | None = None
  image_size: int = 0


class Conversion(NamedTuple):
  """What `convert` returns.

  Attributes:
    variables: `params` in this layout, and `batch_stats` of a single network.
    unused: names of tensors that mean nothing here.
  """

  variables: Tree
  unused: tuple[str, ...]


# Descriptions that layouts share.


def by_block(space: Space, of: Callable[[Block, int], Tree]) -> Tree:
  """Returns the tensors of all stages, nested as the parameters are.

  Args:
    space: space of the network.
    of: returns the tensors of a block, which it is given with its number among
      all blocks at their largest depths.
  """
  stages, number = {}, 0
  for i, stage in enumerate(space.stages):
    described = stage_blocks.of_stage(space, i, batch_norm.Pooling())
    numbers, own = [*range(number, number + max(stage.depth))], {}
    number += max(stage.depth)
    if 'first' in described:
      own['first'] = of(described['first'], numbers.pop(0))
    if 'rest' in described:
      own['rest'] = _stacked([of(described['rest'], n) for n in numbers])
    stages[f'stage{i + 1}'] = own
  return stages


def convs(
  block: Block, root: str, names: Mapping[str, tuple[str, str]]
) -> Tree:
  """Returns the tensors of a block's convolutions and of their batch norms.

  Args:
    block: the block.
    root: beginning of the names of the block's tensors.
    names: of each convolution, its name there and that of its batch norm.
  """
  tensors = {}
  for conv in block_kinds.convs(block.stage):
    kernel, scale = (f'{root}.{name}' for name in names[conv.name])
    tensors[conv.name] = weight(kernel, _ORDERS[conv.kind])
    if conv.normed:
      tensors[f'{conv.name}_bn'] = norm(scale)
  return tensors


def weight(root: str, order: tuple[int, ...] | str) -> Tree:
  """Returns the tensor of a kernel without a bias."""
  return {'kernel': Tensor(f'{root}.weight', order)}


def with_bias(root: str, order: tuple[int, ...] | str) -> Tree:
  """Returns the tensors of a kernel and its bias."""
  return weight(root, order) | {'bias': Tensor(f'{root}.bias', VECTOR)}


def norm(root: str) -> Tree:
  """Returns the tensors of a batch norm's parameters."""
  scale, bias = (Tensor(f'{root}.{n}', VECTOR) for n in ('weight', 'bias'))
  return {'scale': scale, 'bias': bias}


def _stacked(blocks: list[Tree]) -> Tree:
  """Returns equal trees of tensors as one tree of lists."""
  if isinstance(blocks[0], Tensor):
    return blocks
  return {key: _stacked([one[key] for one in blocks]) for key in blocks[0]}


def convert(
  layout: Layout, space: Space, tensors: Mapping[str, np.ndarray], path: str
) -> Conversion:
  """Returns the variables of a network from the tensors of a file.

  Args:
    layout: how they are named and arranged there.
    space: space of the supernet, or of the single network.
    tensors: all tensors of the file, by name.
    path: the file, for messages.

  Raises:
    UserError: tensors are missing, are not in the layout, have other shapes,
      or are not finite: it names five of a kind; stderr has all, if more.
  """
  arrays = _renamed(layout, tensors, path)
  shapes, named = variables_of(layout, space)
  names = [one.name for one in jax.tree.leaves(named, is_leaf=_is_tensor)]
  missing = [name for name in names if name not in arrays]
  spare = [name for name in arrays if name not in set(names)]
  foreign = [name for name in spare if not re.fullmatch(layout.unused, name)]
  check(
    path,
    Odd('missing', missing, 'a file with'),
    Odd('foreign', foreign, 'a file without'),
  )
  wrong: list[str] = []

  def take(place, shape, one: Tensor):
    array = _arranged(arrays[one.name], one.order)
    if array is None or array.shape != shape:
      name = jax.tree_util.keystr(place, simple=True, separator='.')
      wrong.append(f'{one.name} {arrays[one.name].shape} for {name} {shape}')
      return np.zeros(shape)
    return array

  def stack(place, like, one: Tensor | list[Tensor]):
    if isinstance(one, list):
      array = np.stack([take(place, like.shape[1:], each) for each in one])
    else:
      array = take(place, like.shape, one)
    return array.astype(like.dtype)

  variables = jax.tree_util.tree_map_with_path(stack, shapes, named)
  allowed = f'the tensors of {space.name}:'
  check(path, Odd('of another shape', wrong, allowed))
  infinite = [name for name in names if not np.isfinite(arrays[name]).all()]
  check(path, Odd('not finite', infinite, 'finite numbers in'))
  return Conversion(variables, tuple(spare))


def variables_of(layout: Layout, space: Space) -> tuple[Tree, Tree]:
  """Returns the shapes of a network's variables, and their tensors."""
  shapes = network.variables_shapes(space)
  tensors = {'params': layout.tensors(space)}
  if layout.single is None:
    return {'params': shapes['params']}, tensors
  averages = _averages(shapes['batch_stats'], tensors['params'])
  return shapes, tensors | {'batch_stats': averages}


def _averages(stats: Tree, tensors: Tree) -> Tree:
  """Returns the tensors of running averages, which are named as scales are."""
  if 'mean' not in stats:
    return {name: _averages(stats[name], tensors[name]) for name in stats}

  def beside(ending: str) -> Tree:
    return jax.tree.map(
      lambda one: one._replace(name=one.name.removesuffix('.weight') + ending),
      tensors['scale'],
      is_leaf=_is_tensor,
    )

  return {'mean': beside('.running_mean'), 'var': beside('.running_var')}


def _is_tensor(node: Any) -> bool:
  return isinstance(node, Tensor)


def _renamed(
  layout: Layout, tensors: Mapping[str, np.ndarray], path: str
) -> dict[str, np.ndarray]:
  """Returns the tensors by the layout's names; an alias must be equal."""
  arrays: dict[str, np.ndarray] = {}
  for name, array in tensors.items():
    for pattern, replacement in layout.renamed:
      name = re.sub(pattern, replacement, name)
    if name in arrays and not np.array_equal(arrays[name], array):
      allowed = 'one tensor of this name'
      raise errors.UserError(str(path), f'two tensors {name}', allowed)
    arrays[name] = array
  return arrays


def _arranged(
  array: np.ndarray, order: tuple[int, ...] | str
) -> np.ndarray | None:
  """Returns an array with its axes in this order; None if it has others."""
  if isinstance(order, str):  # POINTWISE
    if array.ndim != 4 or array.shape[2:] != (1, 1):
      return None
    return array[:, :, 0, 0].T
  return array.transpose(order) if array.ndim == len(order) else None


class Odd(NamedTuple):
  """Tensors that do not fit.

  Attributes:
    how: what is wrong with them, in words.
    tensors: their names, and perhaps their shapes.
    allowed: words that come before these names.
  """

  how: str
  tensors: list[str]
  allowed: str


def check(path: str, *kinds: Odd) -> None:
  """Checks that there are no odd tensors, and lists them if there are many.

  Raises:
    UserError: there are some; the error names the first ones of each kind.
  """
  odd = [one for one in kinds if one.tensors]
  if not odd:
    return
  named = []
  for how, tensors, allowed in odd:
    text = f'{allowed} {", ".join(tensors[:_NAMED])}'
    if len(tensors) > _NAMED:
      text += ', ... (all are listed above)'
      for one in tensors:
        console.say(f'{how}: {one}')
    named.append(text)
  got = ' and '.join(f'{len(one.tensors)} tensors {one.how}' for one in odd)
  raise errors.UserError(path, got, '; '.join(named))
