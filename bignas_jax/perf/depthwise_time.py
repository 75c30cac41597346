"""Time of a depthwise convolution and its gradients, by several formulations.

`operations.depthwise` uses the fastest one on each kind of device.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bignas_jax.operations import depthwise, ops, taps, triton_depthwise
from bignas_jax.perf import timing
from bignas_jax.system import hardware, xla


class Shape(NamedTuple):
  """A depthwise convolution of EfficientNet-B0 at 224 pixels, or one like it.

  Attributes:
    place: where in the network it is: early, middle or late.
    size: pixels of a side of the input.
    channels: number of channels.
    kernel_size: kernel size.
    stride: stride.
  """

  place: str
  size: int
  channels: int
  kernel_size: int
  stride: int


SHAPES = (
  Shape('early', 112, 96, 3, 2),
  Shape('early', 56, 144, 3, 1),
  Shape('early', 56, 144, 5, 2),
  Shape('middle', 28, 240, 5, 1),
  Shape('middle', 28, 240, 3, 2),
  Shape('middle', 14, 672, 5, 1),
  Shape('late', 14, 672, 5, 2),
  Shape('late', 7, 1152, 5, 1),
  Shape('late', 7, 1152, 3, 1),
)


class _Case(NamedTuple):
  """A shape with its padding, as the formulations take it."""

  shape: Shape
  around: tuple[tuple[int, int], tuple[int, int]]

  def native(self, x, kernel):
    return depthwise.native(x, kernel, stride=self.shape.stride, padding='same')


def _taps_forward(case: _Case, x, kernel):
  return taps.weighted_taps(_padded(x, case.around), kernel, case.shape.stride)


def _padded(x, around):
  return jnp.pad(x, ((0, 0), *around, (0, 0)))


def _native_image(case: _Case, x, kernel, cotangent):
  return jax.vjp(lambda x: case.native(x, kernel), x)[1](cotangent)[0]


def _taps_image(case: _Case, x, kernel, cotangent):
  return jax.vjp(lambda x: _taps_forward(case, x, kernel), x)[1](cotangent)[0]


def _triton_image(case: _Case, x, kernel, cotangent):
  return triton_depthwise.image_gradient(
    cotangent, kernel, case.shape.stride, case.around, x.shape
  )


def _native_kernel(case: _Case, x, kernel, cotangent):
  return jax.vjp(lambda kernel: case.native(x, kernel), kernel)[1](cotangent)[0]


def _taps_kernel(case: _Case, x, kernel, cotangent):
  run = functools.partial(_taps_forward, case, x)
  wide = kernel.astype(jnp.float32)
  return jax.vjp(run, wide)[1](cotangent.astype(jnp.float32))[0]


def _folded_kernel(case: _Case, x, kernel, cotangent):
  """Computes a grouped convolution whose groups are an image's channels."""
  images, *_, channels = x.shape
  size, stride = case.shape.kernel_size, case.shape.stride

  def folded(array):
    _, rows, columns, _ = array.shape
    moved = array.transpose(1, 2, 0, 3)
    return moved.reshape(1, rows, columns, images * channels)

  sums = lax.conv_general_dilated(
    folded(x),
    folded(cotangent).transpose(1, 2, 0, 3),
    (1, 1),
    [
      (low, size - 1 + (out - 1) * stride + 1 - low - n)
      for n, out, (low, _) in zip(
        x.shape[1:3], cotangent.shape[1:3], case.around, strict=True
      )
    ],
    rhs_dilation=(stride, stride),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=images * channels,
  )
  each = sums.reshape(size, size, images, channels)
  return each.astype(jnp.float32).sum(2)[:, :, None]


def _triton_kernel(case: _Case, x, kernel, cotangent):
  shape = case.shape
  return triton_depthwise.kernel_gradient(
    x, cotangent, shape.kernel_size, shape.stride, case.around
  )


def _package(case: _Case, x, kernel):
  return depthwise.depthwise(x, kernel, case.shape.stride, 'same')


# What the package runs on this platform is `package`.
_FORWARD: dict[str, Callable] = {
  'package': lambda case, x, kernel, cotangent: _package(case, x, kernel),
  'native': lambda case, x, kernel, cotangent: case.native(x, kernel),
  'taps': lambda case, x, kernel, cotangent: _taps_forward(case, x, kernel),
  'triton': lambda case, x, kernel, cotangent: triton_depthwise.convolve(
    x, kernel, case.shape.stride, case.around
  ),
}
_IMAGE: dict[str, Callable] = {
  'package': lambda case, x, kernel, cotangent: jax.vjp(
    lambda x: _package(case, x, kernel), x
  )[1](cotangent)[0],
  'native': _native_image,
  'taps': _taps_image,
  'triton': _triton_image,
}
_KERNEL: dict[str, Callable] = {
  'package': lambda case, x, kernel, cotangent: jax.vjp(
    lambda kernel: _package(case, x, kernel), kernel
  )[1](cotangent)[0],
  'native': _native_kernel,
  'taps': _taps_kernel,
  'folded': _folded_kernel,
  'triton': _triton_kernel,
}
_DIRECTIONS = {
  'forward': _FORWARD,
  'image gradient': _IMAGE,
  'kernel gradient': _KERNEL,
}
_TOLERANCE = 0.02  # of the largest entry, for bfloat16


def measure(
  batch: int, dtype: str, bandwidth: float, rounds: int
) -> Iterator[dict[str, Any]]:
  """Times every formulation of each shape; yields a row for each direction.

  Args:
    batch: number of images.
    dtype: dtype of images and kernels.
    bandwidth: memory bandwidth, bytes a second.
    rounds: visits to each formulation, of which the median is reported.

  Yields:
    The shape, the direction, microseconds of each formulation, `floor_us`, in
    which input and output pass through memory, and `wrong`, the formulations
    whose result differs from the native one's.
  """
  for shape in SHAPES:
    pads = ops.pads(shape.size, shape.kernel_size, shape.stride, 'same')
    case = _Case(shape, (pads, pads))
    arrays = _arrays(case, batch, dtype)
    compiled = _compiled(case, arrays)
    x, _, cotangent = arrays
    for direction, runs in compiled.items():
      started = {
        name: functools.partial(run, *arrays) for name, run in runs.items()
      }
      results = {name: run() for name, run in started.items()}
      took = timing.back_to_back(started, rounds)
      yield {
        **case.shape._asdict(),
        'direction': direction,
        'us': {name: 1e6 * seconds for name, seconds in took.items()},
        'floor_us': 1e6 * (x.nbytes + cotangent.nbytes) / bandwidth,
        'wrong': [
          name
          for name, result in results.items()
          if not _close(result, results['native'])
        ],
      }


def _arrays(case: _Case, batch: int, dtype: str) -> tuple[jax.Array, ...]:
  """Returns random images, kernels, and a cotangent of the output."""
  size, channels = case.shape.size, case.shape.channels
  shapes = [
    (batch, size, size, channels),
    (case.shape.kernel_size,) * 2 + (1, channels),
  ]
  like = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
  shapes.append(jax.eval_shape(case.native, *like).shape)
  keys = jax.random.split(jax.random.key(0), 3)
  return tuple(
    jax.random.normal(key, shape, dtype)
    for key, shape in zip(keys, shapes, strict=True)
  )


def _compiled(case: _Case, arrays) -> dict[str, dict[str, Callable]]:
  """Returns compiled formulations by direction and name."""
  options = xla.compiler_options(jax.default_backend())
  lower = {
    (direction, name): functools.partial(
      jax.jit(functools.partial(run, case), compiler_options=options).lower,
      *arrays,
    )
    for direction, formulations in _DIRECTIONS.items()
    for name, run in formulations.items()
    if name != 'triton' or hardware.has_triton()
  }
  result: dict[str, dict[str, Callable]] = {name: {} for name in _DIRECTIONS}
  for (direction, name), run in xla.compile_all(lower).items():
    result[direction][name] = run
  return result


def _close(a: jax.Array, b: jax.Array) -> bool:
  first, second = (np.asarray(one.astype(jnp.float32)) for one in (a, b))
  largest = np.abs(second).max()
  return bool(np.abs(first - second).max() <= _TOLERANCE * largest)
