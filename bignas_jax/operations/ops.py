"""Array operations: pooling, squeeze-excite, masks, images.

Every op returns zeros past its active channels. Therefore a width is either a
Python int, and arrays have exactly that size, or a traced number, and arrays
have the largest size with zeros at the end.

Images are NHWC, kernels HWIO. Arrays keep the dtype of `x`.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key, UInt8

# Parameters and pixels may be arrays of JAX or of NumPy.
AnyArray = Array | np.ndarray
Images = Float[Array, 'batch height width channels']
Width = int | Int[Array, '']
Padding = Literal['same', 'symmetric']
# Pixels before and after the rows, and before and after the columns.
Around = tuple[tuple[int, int], tuple[int, int]]
Resize = Literal['antialiased', 'pytorch', 'bilinear']


def pick(
  table: list[int], index: Int[Array, '*blocks']
) -> int | Int[Array, '*blocks']:
  """Returns table[index], as a plain int if the entries are all equal."""
  if len(set(table)) == 1:
    return table[0]
  return jnp.asarray(table, jnp.int32)[index]


def mask(
  x: Float[Array, '*others channels'], width: Width
) -> Float[Array, '*others channels']:
  """Sets the entries past the first `width` of the last axis to zero."""
  if isinstance(width, int):
    assert x.shape[-1] == width, (x.shape, width)
    return x
  return jnp.where(jnp.arange(x.shape[-1]) < width, x, jnp.zeros((), x.dtype))


def resize_channels(
  x: Float[Array, '*others channels'], width: int
) -> Float[Array, '*others {width}']:
  """Cuts or zero-pads the last axis to `width` entries."""
  short = width - x.shape[-1]
  if short <= 0:
    return x[..., :width]
  return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, short)])


def pads(
  size: int, kernel_size: int, stride: int, padding: Padding
) -> tuple[int, int]:
  """Returns the pixels to add before and after one spatial axis."""
  if padding == 'symmetric':
    return kernel_size // 2, kernel_size // 2
  out = -(-size // stride)
  total = max((out - 1) * stride + kernel_size - size, 0)
  return total // 2, total - total // 2


def dense(
  x: Float[Array, 'batch in'], params: dict[str, Any]
) -> Float[Array, 'batch out']:
  """Applies a dense layer with `kernel`, [in, out], and `bias`, [out]."""
  return x @ params['kernel'].astype(x.dtype) + params['bias'].astype(x.dtype)


def average_pool(
  x: Images,
) -> Float[Array, 'batch (height+1)//2 (width+1)//2 channels']:
  """Pools 2x2 averages with stride 2; odd edges average fewer pixels."""
  b, h, w, c = x.shape
  even = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
  windows = even.reshape(b, -(-h // 2), 2, -(-w // 2), 2, c)
  pixels = [np.minimum(2, n - np.arange(0, n, 2)) for n in (h, w)]
  shares = 1 / np.multiply.outer(*pixels)
  return windows.sum((2, 4)) * shares[..., None].astype(x.dtype)


def max_pool(
  x: Images,
) -> Float[Array, 'batch (height+1)//2 (width+1)//2 channels']:
  """Pools 3x3 maxima with stride 2; edges see fewer pixels."""
  edge = ((0, 0), (1, 1), (1, 1), (0, 0))
  window, strides = (1, 3, 3, 1), (1, 2, 2, 1)
  return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, edge)


def spatial_mean(x: Images) -> Float[Array, 'batch channels']:
  """Averages each channel of each image."""
  return x.mean((1, 2))


def squeeze_excite(
  x: Images,
  mean: Float[Array, 'batch channels'],
  params: dict[str, Any],
  width: Width,
  activation: str,
  gate: str,
  used: Int[Array, ''] | None = None,
) -> Images:
  """Scales each channel by a gate that is computed from the channels' means.

  Args:
    x: images.
    mean: `spatial_mean` of x.
    params: two dense layers, `reduce` [channels, squeeze] and `expand`
      [squeeze, channels], each with `kernel` and `bias`.
    width: number of active squeeze channels.
    activation: activation between the two layers, `swish` or `relu`.
    gate: activation of the gate, `sigmoid` or `hard_sigmoid`.
    used: 0: the gate is 1, and x is returned; None: as 1.
  """
  squeezed = ACTIVATIONS[activation](dense(mean, params['reduce']))
  scale = dense(mask(squeezed, width), params['expand'])
  scale = ACTIVATIONS[gate](scale)
  if used is not None:
    scale = jnp.where(used, scale, 1)
  return x * scale[:, None, None, :]


ACTIVATIONS = {
  'swish': jax.nn.swish,
  'relu': jax.nn.relu,
  'sigmoid': jax.nn.sigmoid,
  'hard_sigmoid': lambda x: jax.nn.relu6(x + 3) / 6,
  'relu6': jax.nn.relu6,
  'hard_swish': jax.nn.hard_swish,
}


def _slope_of_swish(y):
  gate = jax.nn.sigmoid(y)
  return gate + y * gate * (1 - gate)


# Derivatives of the activations that follow batch norms.
SLOPES = {
  'swish': _slope_of_swish,
  'relu': lambda y: (y > 0).astype(y.dtype),
  'relu6': lambda y: ((y > 0) & (y < 6)).astype(y.dtype),
  'hard_swish': lambda y: jnp.where(
    y < 3, jnp.where(y > -3, y / 3 + 0.5, 0), 1
  ).astype(y.dtype),
}


def dropout(
  x: Float[Array, 'batch *others'], rate: float, keys: Key[Array, 'batch']
) -> Float[Array, 'batch *others']:
  """Sets random entries to zero and rescales the rest.

  Each image has its own key, so that it loses the same entries on any number of
  devices.

  Args:
    x: an entry, or several, for each image.
    rate: share of entries to drop, below 1.
    keys: keys of the images.
  """
  keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))
  return jnp.where(keep(keys), x / (1 - rate), jnp.zeros((), x.dtype))


def drop_connect(
  x: Images, rate: Float[Array, ''], keys: Key[Array, 'batch']
) -> Images:
  """Sets all of random images to zero and rescales the others.

  Args:
    x: a block's result, before its shortcut is added.
    rate: probability that an image is dropped, below 1.
    keys: keys of the images.
  """
  keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate))(keys)
  scale = jnp.where(keep, 1 / (1 - rate), 0).astype(x.dtype)
  return x * scale[:, None, None, None]


def resize(
  images: Images, resolution: int, how: Resize = 'antialiased'
) -> Float[Array, 'batch {resolution} {resolution} channels']:
  """Resizes images.

  Args:
    images: images of any size.
    resolution: side of the result, pixels.
    how: `antialiased`: bicubic with a = -1/2, averaging where images shrink;
      `pytorch`: bicubic with a = -3/4 as PyTorch's, which averages nothing;
      `bilinear`: bilinear as PyTorch's.
  """
  if images.shape[1:3] == (resolution, resolution):
    return images
  if how == 'antialiased':
    shape = (images.shape[0], resolution, resolution, images.shape[3])
    return jax.image.resize(images, shape, 'bicubic')
  rows, columns = (
    jnp.asarray(resize_matrix(n, resolution, how), images.dtype)
    for n in images.shape[1:3]
  )
  highest = lax.Precision.HIGHEST
  return jnp.einsum(
    'bhwc,yh,xw->byxc', images, rows, columns, precision=highest
  )


def resize_matrix(
  size: int, resolution: int, how: Resize
) -> Float[np.ndarray, '{resolution} {size}']:
  """Returns the matrix that resizes one axis as `resize` does."""
  if how == 'antialiased':
    with jax.ensure_compile_time_eval():  # concrete, even while JAX is tracing
      ones = jnp.eye(size, dtype=jnp.float32)
      shape = (resolution, size)
      return np.asarray(jax.image.resize(ones, shape, 'bicubic'))
  places = (np.arange(resolution) + 0.5) * size / resolution - 0.5
  first = np.floor(places).astype(int)
  matrix = np.zeros((resolution, size))
  for tap in (-1, 0, 1, 2):
    distance = np.abs(places - first - tap)
    near = np.clip(first + tap, 0, size - 1)  # the edge is repeated
    linear = np.maximum(1 - distance, 0)
    weights = _cubic(distance) if how == 'pytorch' else linear
    np.add.at(matrix, (np.arange(resolution), near), weights)
  return matrix.astype(np.float32)


def _cubic(distance: np.ndarray, a: float = -0.75) -> np.ndarray:
  """Returns the weights of bicubic interpolation (Keys 1981, equation 4)."""
  d = distance
  inner = (a + 2) * d**3 - (a + 3) * d**2 + 1
  outer = a * (d**3 - 5 * d**2 + 8 * d - 4)
  return np.where(d <= 1, inner, np.where(d < 2, outer, 0))


def normalise(
  pixels: UInt8[AnyArray, '*others channels'],
  mean: tuple[float, ...],
  std: tuple[float, ...],
) -> Float[Array, '*others channels']:
  """Normalises pixels to float32 of mean 0 and deviation 1."""
  scaled = jnp.asarray(pixels, jnp.float32) / 255
  return (scaled - jnp.asarray(mean)) / jnp.asarray(std)
