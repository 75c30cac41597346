"""Folding of batch norms into the kernels before them.

With given statistics a batch norm multiplies each channel by a number and adds
another. The factor is multiplied into the kernel whose output is normalised;
the summand is kept as a bias. Every batch norm of the network directly follows
a convolution without a bias, but for those before preactivated blocks: what
they normalise is also added to later results. These keep the factor as their
scale. Shortcuts, squeeze-excite, the head's last convolution and the classifier
have no batch norm and are not changed. Layers of parallel members become one
convolution (`fold_parallel`).
"""

from typing import Any

import jax
import numpy as np

from bignas_jax.deploy import fold_parallel
from bignas_jax.spaces import pinning
from bignas_jax.spaces.space import Space
from bignas_jax.supernet import network

Tree = dict[str, Any]


def fold(space: Space, variables: Tree) -> tuple[Space, Tree]:
  """Returns an equivalent network without batch norms.

  Args:
    space: space of a single network.
    variables: the network's `params` and `batch_stats`; arrays of a stage's
      blocks are stacked along their first axis.

  Returns:
    The space, marked as folded, and variables whose `batch_stats` are empty. A
    folded network is returned unchanged.
  """
  if space.bn_epsilon is None:
    return space, variables
  epsilon, norms = space.bn_epsilon, network.norms(space)
  params, stats = dict(variables['params']), variables['batch_stats']
  for i, stage in enumerate(space.stages):
    if stage.parallel:
      name, (width_in,) = f'stage{i + 1}', space.widths[i]
      params[name] = fold_parallel.stage(
        stage, width_in, params[name], stats[name], epsilon
      )
      del norms[name]
  return pinning.deployed(space), {
    'params': _fold(norms, params, stats, epsilon),
    'batch_stats': {},
  }


def _fold(norms: Tree, params: Tree, stats: Tree, epsilon: float) -> Tree:
  out = jax.tree.map(np.asarray, params)
  for name, before in norms.items():
    if isinstance(before, dict):
      out[name] = _fold(before, params[name], stats[name], epsilon)
    else:
      factor, summand = fold_parallel.affine(params[name], stats[name], epsilon)
      dtype = np.asarray(params[name]['bias']).dtype
      out[name] = {'bias': summand.astype(dtype)}
      if before is None:
        out[name]['scale'] = factor.astype(dtype)
      else:
        out[before] = _folded(params[before]['kernel'], factor)
  return out


def _folded(kernel, factor: np.ndarray) -> Tree:
  """Returns the kernel times the factor, multiplied in float64."""
  kernel = np.asarray(kernel)
  # The kernel's axes between that of stacked blocks and the output channels.
  between = (1,) * (kernel.ndim - factor.ndim)
  per_channel = factor.reshape(*factor.shape[:-1], *between, -1)
  return {'kernel': (kernel * per_channel).astype(kernel.dtype)}
