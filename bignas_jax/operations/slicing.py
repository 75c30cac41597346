"""The slices of a big network's arrays that a smaller network uses.

A slice is the first n entries of an axis: channels, or blocks of a stacked
stage. Of an axis that is said to be centred, such as those of a depthwise
kernel's pixels, it is the middle. Shapes and centred axes determine a slice, so
one function cuts branches in compiled programs and extracts children outside
them. It is linear: gradients flow back as zeros around the slice.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

Tree = Any
Index = Int[Array, ''] | int | None
# Axes that are cut around their centre, by the array's place in a tree: nested
# dicts of tuples such as (-4, -3). Arrays that are left out have none.
Centred = Any


def shrink(
  tree: Tree, shapes: Tree, centred: Centred = (), index: Index = None
) -> Tree:
  """Cuts each array of `tree` to the shape at its place in `shapes`.

  Args:
    tree: nested dicts of arrays; entries that `shapes` lacks (an unused
      shortcut convolution) are left out.
    shapes: nested dicts of anything with a `shape` none of whose axes is
      longer than the array's.
    centred: axes that are cut around their centre.
    index: if given, arrays are stacks, and this entry of theirs is cut.
  """
  if isinstance(shapes, dict):
    return {
      name: shrink(tree[name], shapes[name], _inside(centred, name), index)
      for name in shapes
    }
  if index is None:
    whole = tree.shape == shapes.shape
    return tree if whole else tree[_window(tree.shape, shapes.shape, centred)]
  starts = _starts_of_entry(tree, shapes, centred, index)
  return lax.dynamic_slice(tree, starts, (1, *shapes.shape))[0]


def grow(tree: Tree, shapes: Tree, centred: Centred = ()) -> Tree:
  """Pads each array with zeros up to its shape: the transpose of `shrink`."""
  if not isinstance(shapes, dict):
    return (
      jnp.zeros(shapes.shape, tree.dtype)
      .at[_window(shapes.shape, tree.shape, centred)]
      .set(tree)
    )
  return {
    name: grow(tree[name], shapes[name], _inside(centred, name))
    if name in tree
    else jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes[name])
    for name in shapes
  }


def put(
  big: Tree, small: Tree, centred: Centred = (), index: Index = None
) -> Tree:
  """Writes each array into its slice of the bigger one; the rest stays.

  XLA writes in place into an array that is not used later, unless it is
  reshaped before, or given to a conditional.

  Args:
    big: nested dicts of arrays.
    small: nested dicts of arrays none of whose axes is longer; may lack
      entries.
    centred: axes that are cut around their centre.
    index: if given, the bigger ones are stacks, and this entry is written.
  """
  if isinstance(big, dict):
    return big | {
      name: put(big[name], small[name], _inside(centred, name), index)
      for name in small
    }
  if index is not None:
    starts = _starts_of_entry(big, small, centred, index)
    return lax.dynamic_update_slice(big, small[None], starts)
  if big.shape == small.shape:
    return small
  return big.at[_window(big.shape, small.shape, centred)].set(small)


def add(
  big: Tree, small: Tree, centred: Centred = (), index: Index = None
) -> Tree:
  """Adds each array to its slice of the bigger one, as `put` writes it."""
  there = shrink(big, small, centred, index)
  return put(big, jax.tree.map(jnp.add, there, small), centred, index)


def union(some: Tree, others: Tree) -> Tree:
  """Returns shapes and dtypes that hold both of two trees of them."""
  if isinstance(others, dict):
    return some | {n: union(some.get(n, {}), one) for n, one in others.items()}
  if not isinstance(some, jax.ShapeDtypeStruct):
    return others
  shape = tuple(map(max, some.shape, others.shape))
  return jax.ShapeDtypeStruct(shape, others.dtype)


def _inside(centred: Centred, name: str) -> Centred:
  return centred.get(name, ()) if isinstance(centred, dict) else centred


def _window(big: tuple[int, ...], small: tuple[int, ...], centred: Centred):
  """Returns the small array's place in the big one, a slice for each axis."""
  starts = _starts(big, small, centred)
  return tuple(
    slice(start, start + n) for start, n in zip(starts, small, strict=True)
  )


def _starts(
  big: tuple[int, ...], small: tuple[int, ...], centred: Centred
) -> list[int]:
  """Returns the small array's first position on each axis of the big one."""
  assert len(big) == len(small), (big, small)
  starts = [0] * len(big)
  for axis in centred:
    starts[axis] = (big[axis] - small[axis]) // 2
  return starts


def _starts_of_entry(
  stack, small, centred: Centred, index: Int[Array, ''] | int
) -> list[Int[Array, '']]:
  starts = [index, *_starts(stack.shape[1:], small.shape, centred)]
  return [jnp.asarray(start, jnp.int32) for start in starts]
