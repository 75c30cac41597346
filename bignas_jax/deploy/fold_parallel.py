"""Folding of a layer's parallel members into one convolution with a bias.

Each member is linear once its batch norms have their statistics. Of a member
with two steps, the first is a 1x1 convolution, and around its result the second
step sees what batch norm makes of 0 (`blocks`): so the two are one convolution
also at the border.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from bignas_jax.spaces import parallel
from bignas_jax.spaces.parallel import Step
from bignas_jax.spaces.stage import Stage

Tree = dict[str, Any]


class Layer(NamedTuple):
  """The sizes of a layer's convolution.

  Attributes:
    kernel_size: side of its kernel.
    width_in: channels of its input.
    width_out: channels of its output.
    groups: number of groups of its channels.
  """

  kernel_size: int
  width_in: int
  width_out: int
  groups: int = 1


def affine(norm: Tree, stats: Tree, epsilon: float):
  """Returns a batch norm's factor and summand in float64."""
  scale, bias, mean, var = (
    np.asarray(array, np.float64)
    for array in (norm['scale'], norm['bias'], stats['mean'], stats['var'])
  )
  factor = scale / np.sqrt(var + epsilon)
  return factor, bias - mean * factor


def stage(
  own: Stage, width_in: int, params: Tree, stats: Tree, epsilon: float
) -> Tree:
  """Returns the parameters of a child's stage with one convolution a layer.

  Args:
    own: stage of a single network.
    width_in: channels of its input.
    params: its parameters; those of all layers but the first are stacked.
    stats: statistics of its batch norms, nested likewise.
    epsilon: epsilon of the batch norms.

  Returns:
    Parameters of the folded stage, in the type of the given ones.
  """
  ((size,), (width,), (mask,)) = own.kernel_size, own.width, own.parallel

  def folded(variables: tuple[Tree, Tree], width_in: int) -> Tree:
    sizes = Layer(size, width_in, width, own.groups)
    kernel, bias = layer(*variables, mask, sizes, epsilon)
    dtype = jax.tree.leaves(variables)[0].dtype
    bias = {'bias': bias.astype(dtype)}
    return {'conv': {'kernel': kernel.astype(dtype)}, 'conv_bn': bias}

  out = {'first': folded((params['first'], stats['first']), width_in)}
  if 'rest' in params:
    stacks = params['rest'], stats['rest']
    layers = [
      folded(jax.tree.map(lambda a, n=n: a[n], stacks), width)
      for n in range(max(own.depth) - 1)
    ]
    out['rest'] = jax.tree.map(lambda *arrays: np.stack(arrays), *layers)
  return out


def layer(
  params: Tree, stats: Tree, mask: int, sizes: Layer, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the kernel and the bias that a layer's members amount to.

  Args:
    params: parameters of the members' steps and batch norms.
    stats: `mean` and `var` of each batch norm.
    mask: members that are summed.
    sizes: sizes of the layer.
    epsilon: epsilon of the batch norms.

  Returns:
    The kernel, [size, size, in / groups, out], and the bias, [out], in float64.
  """
  folded = [
    member(params, stats, parallel.MEMBERS[name], sizes, epsilon)
    for name in parallel.members(mask)
  ]
  kernels, biases = zip(*folded, strict=True)
  return np.sum(kernels, axis=0), np.sum(biases, axis=0)


def member(
  params: Tree,
  stats: Tree,
  steps: tuple[Step, ...],
  sizes: Layer,
  epsilon: float,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the kernel and the bias of one member, as `layer` does."""
  kernel, bias = _step(params, stats, steps[-1], sizes, epsilon)
  if len(steps) == 1:
    return kernel, bias
  first, shift = _step(params, stats, steps[0], sizes, epsilon, size=1)
  groups = sizes.groups
  # One group after the other: [.., in, middle] times [.., middle, out].
  inner = np.split(first[0, 0], groups, axis=-1)
  outer = np.split(kernel, groups, axis=-1)
  shifts = np.split(shift, groups)
  both = [a @ b for a, b in zip(inner, outer, strict=True)]
  added = [s @ b.sum((0, 1)) for s, b in zip(shifts, outer, strict=True)]
  return np.concatenate(both, -1), bias + np.concatenate(added)


def _step(
  params: Tree,
  stats: Tree,
  step: Step,
  sizes: Layer,
  epsilon: float,
  size: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns a step's kernel with zeros around it, and its bias.

  Args:
    params: parameters of the members.
    stats: statistics of their batch norms.
    step: the step.
    sizes: sizes of the layer.
    epsilon: epsilon of the batch norms.
    size: side of the result's kernel; None: that of the layer.
  """
  name, side = f'{step.name}_bn', size or sizes.kernel_size
  factor, shift = affine(params[name], stats[name], epsilon)
  if step.learnt:
    kernel = np.asarray(params[step.name]['kernel'], np.float64)
  else:
    own = sizes.kernel_size if step.tall else 1
    kernel = _mean(own, sizes.width_out, sizes.groups)
  around = [((side - n) // 2,) * 2 for n in kernel.shape[:2]]
  return np.pad(kernel, [*around, (0, 0), (0, 0)]) * factor, shift


def _mean(side: int, width: int, groups: int) -> np.ndarray:
  """Returns the kernel of the mean over a window, channel by channel."""
  kernel = np.zeros((side, side, width // groups, width))
  every = np.arange(width)
  kernel[:, :, every % (width // groups), every] = 1 / side**2
  return kernel
