"""From a big network's arrays to a smaller one's: the supernet's only rule.

The first n channels of every axis, the first d blocks of a stacked stage, and
the centre of a convolution kernel. Which axes those are follows from the two
shapes alone, so the same function cuts a branch inside a compiled program and
extracts a child outside of it. It is linear: gradients flow back as zeros
around the slice.
"""

from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def shrink(tree: Tree, shapes: Tree) -> Tree:
  """Cuts each array of `tree` to the shape at its place in `shapes`.

  Args:
    tree: nested dicts of arrays; may hold entries that `shapes` lacks (an
      unused shortcut convolution), which are left out.
    shapes: nested dicts of anything with a `shape` none of whose axes is
      longer than the array's.
  """
  if isinstance(shapes, dict):
    return {name: shrink(tree[name], shapes[name]) for name in shapes}
  return tree[_window(tree.shape, shapes.shape)]


def grow(tree: Tree, shapes: Tree) -> Tree:
  """The transpose of `shrink`: zeros around each array, up to its shape."""
  if not isinstance(shapes, dict):
    return (
      jnp.zeros(shapes.shape, tree.dtype)
      .at[_window(shapes.shape, tree.shape)]
      .set(tree)
    )
  return {
    name: grow(tree[name], shapes[name])
    if name in tree
    else jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes[name])
    for name in shapes
  }


def add(big: Tree, small: Tree) -> Tree:
  """Adds each array to its slice of the bigger one; the rest stays.

  The bigger ones may have more axes in front. XLA adds in place to what it is
  given for good, unless it is reshaped before.
  """
  if isinstance(big, dict):
    return {
      name: add(big[name], small[name]) if name in small else big[name]
      for name in big
    }
  shape = big.shape[big.ndim - small.ndim :]
  if shape == small.shape:
    return big + small
  where = (..., *_window(shape, small.shape))
  return big.at[where].set(big[where] + small)


def _window(big: tuple[int, ...], small: tuple[int, ...]):
  """Where the small array lies: a slice for each axis.

  Kernels [..., height, width, in, out] are cut around their spatial centre,
  everything else from the first entry.
  """
  assert len(big) == len(small), (big, small)
  starts = [0] * len(big)
  for axis in (-4, -3) if len(big) >= 4 else ():
    starts[axis] = (big[axis] - small[axis]) // 2
  return tuple(
    slice(start, start + n) for start, n in zip(starts, small, strict=True)
  )


def norm_shapes(params: Tree, names: tuple[str, ...]) -> Tree:
  """For each batch norm in `params`: a dict of shapes under other names.

  One that is folded, and has no scale, has none.
  """
  out = {}
  for key, value in params.items():
    if key.endswith('bn'):
      if 'scale' in value:
        out[key] = dict.fromkeys(names, value['bias'])
    elif isinstance(value, dict) and (inner := norm_shapes(value, names)):
      out[key] = inner
  return out
