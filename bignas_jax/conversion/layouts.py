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

from bignas_jax.spaces.space import Space
from bignas_jax.supernet import network
from bignas_jax.values import errors

Tree = Any

# PyTorch's convolution kernels are [out, in, height, width].
CONVOLUTION: tuple[int, ...] = (2, 3, 1, 0)
POINTWISE = 'pointwise'  # [out, in, 1, 1] there, [in, out] here
DENSE: tuple[int, ...] = (1, 0)
VECTOR: tuple[int, ...] = (0,)


class Tensor(NamedTuple):
  """A tensor of a file.

  Attributes:
    name: name in the file.
    order: which of the tensor's axes come first, second, ... here; or
      `POINTWISE`.
  """

  name: str
  order: tuple[int, ...] | str


class Layout(NamedTuple):
  """How a code base names and arranges its parameters.

  Attributes:
    tensors: function from a space to the tensors of its parameters.
    renamed: patterns of names, and what replaces them, one after the other.
    unused: pattern of names that mean nothing here, such as running averages.
  """

  tensors: Callable[[Space], Tree]
  renamed: tuple[tuple[str, str], ...]
  unused: str


class Conversion(NamedTuple):
  """Parameters in this layout, and names of tensors that mean nothing here."""

  params: Tree
  unused: tuple[str, ...]


def convert(
  layout: Layout, space: Space, tensors: Mapping[str, np.ndarray], path: str
) -> Conversion:
  """Returns parameters of a supernet from the tensors of a file.

  Args:
    layout: how they are named and arranged there.
    space: space of the supernet.
    tensors: all tensors of the file, by name.
    path: the file, for messages.

  Raises:
    UserError: tensors are missing, are not in the layout, have other shapes,
      or are not finite: the message lists them. Nothing is guessed.
  """
  arrays = _renamed(layout, tensors, path)
  wanted = layout.tensors(space)
  names = [one.name for one in jax.tree.leaves(wanted, is_leaf=_is_tensor)]
  _check(path, 'missing', [n for n in names if n not in arrays], 'a file with')
  spare = [name for name in arrays if name not in set(names)]
  foreign = [name for name in spare if not re.fullmatch(layout.unused, name)]
  _check(path, 'foreign', foreign, 'a file without')
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

  params = jax.tree_util.tree_map_with_path(
    stack, network.shapes(space), wanted
  )
  _check(path, 'of another shape', wrong, f'the tensors of {space.name}:')
  odd = [name for name in names if not np.isfinite(arrays[name]).all()]
  _check(path, 'not finite', odd, 'finite numbers in')
  return Conversion(params, tuple(spare))


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


def _check(path: str, how: str, names: list[str], allowed: str) -> None:
  if names:
    some = ', '.join(names[:5]) + (', ...' if len(names) > 5 else '')
    raise errors.UserError(
      path, f'{len(names)} tensors {how}', f'{allowed} {some}'
    )
