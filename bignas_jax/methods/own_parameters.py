"""The parameters that a child's network takes, and where their gradients go."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning
from bignas_jax.spaces.arch import Arch
from bignas_jax.supernet import derived, network
from bignas_jax.supernet.model import Model

Tree = Any


def of_child(
  model: Model, arch: Arch | None, indices: Tree, params: Tree, gradients: Tree
) -> tuple[Tree, Tree, Callable | None]:
  """Returns what a child's network takes, and where its gradient is added.

  Args:
    model: the supernet.
    arch: the static child; None: any child.
    indices: any child; not used for a static one.
    params: parameters of the supernet.
    gradients: a sum of gradients of them.

  Returns:
    The child's parameters; the sum that their gradient is added to; and the
    function that turns this sum into a gradient of `params`, or None where it
    is `gradients` itself.
  """
  space, back = model.space, None
  if arch is not None and not pinning.is_aligned(space, arch):

    def cut(params):
      return network.slice_child(space, {'params': params}, arch)['params']

    own, back = jax.vjp(cut, params)
    return own, jax.tree.map(jnp.zeros_like, own), back
  whole, sums = params, gradients
  if not derived.is_plain(space):
    chosen = indices if arch is None else arch_lib.encode(space, arch)
    whole, back = jax.vjp(lambda p: model.resolve(p, chosen), params)
    sums = jax.tree.map(jnp.zeros_like, whole)
  if arch is None:
    return whole, sums, back
  plain = derived.plain(space)
  own = network.slice_child(plain, {'params': whole}, arch)['params']
  return own, sums, back
