"""Computes a Core ML program with JAX, where Core ML itself is missing.

It has the operations that `coreml` writes, and those that coremltools make of
them. Every result has the type that the program gives it, so that float16 is
rounded as the file says; sums inside an operation are float32.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_ORDER = 'NCHW', 'OIHW', 'NCHW'


def function(
  program: Any, *, channels_first: bool
) -> Callable[[np.ndarray], np.ndarray]:
  """Returns a function from images [batch, size, size, channels] to logits.

  Args:
    program: a program of coremltools, of one input and one output.
    channels_first: whether the program takes images with channels first.
  """
  (main,) = program.functions.values()
  (name,) = main.inputs
  (result,) = main.outputs

  @jax.jit
  def run(images):
    x = images.astype(jnp.float32)
    values = {name: x.transpose(0, 3, 1, 2) if channels_first else x}
    for operation in main.operations:
      if operation.op_type != 'const':
        given = {
          key: _value(of, values)
          for key, of in operation.inputs.items()
          if of is not None
        }
        (out,) = operation.outputs
        kind = _OPERATIONS[operation.op_type](given)
        values[out.name] = kind.astype(_dtype(out))
    return values[result.name].astype(jnp.float32)

  return lambda images: np.asarray(run(images))


def _value(var: Any, values: Mapping[str, Any]) -> Any:
  """Returns what a variable holds: a constant, or an array of the run."""
  if var.val is None:
    return values[var.name].astype(jnp.float32)
  if np.asarray(var.val).dtype == np.float16:
    return np.asarray(var.val, np.float32)
  return var.val


def _dtype(var: Any) -> Any:
  half = var.dtype.__name__ == 'fp16'
  return jnp.float16 if half else jnp.float32


def _conv(given):
  y = lax.conv_general_dilated(
    given['x'],
    given['weight'],
    tuple(given['strides']),
    _edges(given['pad'])[2:],
    dimension_numbers=_ORDER,
    feature_group_count=int(given['groups']),
    precision=lax.Precision.HIGHEST,
  )
  bias = given.get('bias')
  return y if bias is None else y + bias[:, None, None]


def _edges(pad) -> list[tuple[int, int]]:
  top, bottom, left, right = map(int, pad)
  return [(0, 0), (0, 0), (top, bottom), (left, right)]


def _pool(given, x, start, combine):
  window = 1, 1, *map(int, given['kernel_sizes'])
  strides = 1, 1, *map(int, given['strides'])
  return lax.reduce_window(
    x, start, combine, window, strides, _edges(given['pad'])
  )


def _avg_pool(given):
  x = given['x']
  sums = _pool(given, x, 0.0, lax.add)
  return sums / _pool(given, jnp.ones_like(x), 0.0, lax.add)


def _linear(given):
  y = jnp.matmul(given['x'], given['weight'].T, precision='highest')
  return y if given.get('bias') is None else y + given['bias']


def _matmul(given):
  sides = [
    side.swapaxes(-1, -2) if given.get(f'transpose_{name}') else side
    for name, side in (('x', given['x']), ('y', given['y']))
  ]
  return jnp.matmul(*sides, precision='highest')


_OPERATIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
  'add': lambda given: given['x'] + given['y'],
  'avg_pool': _avg_pool,
  'cast': lambda given: given['x'],
  'conv': _conv,
  'expand_dims': lambda given: jnp.expand_dims(
    given['x'], tuple(given['axes'])
  ),
  'identity': lambda given: given['x'],
  'linear': _linear,
  'matmul': _matmul,
  'max_pool': lambda given: _pool(given, given['x'], -jnp.inf, lax.max),
  'mul': lambda given: given['x'] * given['y'],
  'reduce_mean': lambda given: given['x'].mean(
    tuple(given['axes']), keepdims=bool(given['keep_dims'])
  ),
  'relu': lambda given: jax.nn.relu(given['x']),
  'relu6': lambda given: jax.nn.relu6(given['x']),
  'sigmoid': lambda given: jax.nn.sigmoid(given['x']),
  'sigmoid_hard': lambda given: jnp.clip(
    given['alpha'] * given['x'] + given['beta'], 0, 1
  ),
  'silu': lambda given: jax.nn.silu(given['x']),
  'transpose': lambda given: given['x'].transpose(tuple(given['perm'])),
}
