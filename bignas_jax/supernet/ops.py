"""Elastic array math: convolutions, squeeze-excite, masks, images.

One law carries elasticity: past its active channels every op returns zeros.
A width is therefore either a Python int, and arrays have just that size, or a
traced number, and arrays have the largest size with zeros at the end.

Images are NHWC, kernels HWIO. Arrays keep the dtype of `x`.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Width = Any  # int, or a traced int32 scalar
Padding = Literal['same', 'symmetric']
Pads = tuple[tuple[int, int], tuple[int, int]]


def pick(table: list[int], index: jax.Array) -> Width:
  """table[index]; a plain int where the index makes no difference."""
  if len(set(table)) == 1:
    return table[0]
  return jnp.asarray(table, jnp.int32)[index]


def mask(x: jax.Array, width: Width) -> jax.Array:
  """Zeros past the first `width` entries of the last axis."""
  if isinstance(width, int):
    assert x.shape[-1] == width, (x.shape, width)
    return x
  return jnp.where(jnp.arange(x.shape[-1]) < width, x, jnp.zeros((), x.dtype))


def resize_channels(x: jax.Array, width: int) -> jax.Array:
  """Cuts the last axis, or fills it with zeros, to `width`."""
  short = width - x.shape[-1]
  if short <= 0:
    return x[..., :width]
  return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, short)])


def pads(size: int, kernel_size: int, stride: int, padding: Padding):
  """Pixels to add before and after one spatial axis."""
  if padding == 'symmetric':
    return kernel_size // 2, kernel_size // 2
  out = -(-size // stride)
  total = max((out - 1) * stride + kernel_size - size, 0)
  return total // 2, total - total // 2


def conv(
  x: jax.Array, kernel: jax.Array, stride: int, padding: Padding
) -> jax.Array:
  """Convolution; kernel [k, k, in, out]."""
  around = tuple(
    pads(x.shape[a + 1], kernel.shape[a], stride, padding) for a in (0, 1)
  )
  return lax.conv_general_dilated(
    x,
    kernel.astype(x.dtype),
    (stride, stride),
    around,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """1x1 convolution; kernel [in, out].

  As a product of matrices: contracting more than one axis, as its kernel
  gradient would, XLA's CPU backend is four times slower.
  """
  flat = x.reshape(-1, x.shape[-1]) @ kernel.astype(x.dtype)
  return flat.reshape(*x.shape[:-1], kernel.shape[-1])


def dense(x: jax.Array, params: dict[str, jax.Array]) -> jax.Array:
  """A dense layer; `kernel` [in, out] and `bias` [out]."""
  return pointwise(x, params['kernel']) + params['bias'].astype(x.dtype)


def average_pool(x: jax.Array) -> jax.Array:
  """2x2 average pooling with stride 2; odd edges average what is there."""
  b, h, w, c = x.shape
  even = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
  windows = even.reshape(b, -(-h // 2), 2, -(-w // 2), 2, c)
  counts = [np.minimum(2, n - np.arange(0, n, 2)) for n in (h, w)]
  shares = 1 / np.multiply.outer(*counts)
  return windows.sum((2, 4)) * shares[..., None].astype(x.dtype)


def spatial_mean(x: jax.Array) -> jax.Array:
  """[batch, height, width, channels] -> [batch, channels]."""
  return x.mean((1, 2))


def squeeze_excite(
  x: jax.Array,
  mean: jax.Array,
  params: dict[str, Any],
  width: Width,
  activation: str,
  gate: str,
) -> jax.Array:
  """Scales each channel by a gate computed from the channels' means.

  Args:
    x: [batch, height, width, channels].
    mean: its `spatial_mean`.
    params: two dense layers, `reduce` [channels, squeeze] and `expand`
      [squeeze, channels], each with `kernel` and `bias`.
    width: active squeeze channels.
    activation: `swish` or `relu`, between the two layers.
    gate: `sigmoid` or `hard_sigmoid`.
  """
  squeezed = ACTIVATIONS[activation](dense(mean, params['reduce']))
  scale = dense(mask(squeezed, width), params['expand'])
  scale = ACTIVATIONS[gate](scale)
  return x * scale[:, None, None, :]


ACTIVATIONS = {
  'swish': jax.nn.swish,
  'relu': jax.nn.relu,
  'sigmoid': jax.nn.sigmoid,
  'hard_sigmoid': lambda x: jax.nn.relu6(x + 3) / 6,
}


def dropout(x: jax.Array, rate: float, keys: jax.Array) -> jax.Array:
  """Zeros entries at random; keys [batch]: each image has its own.

  So that the same image loses the same entries on any number of devices.
  """
  keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))
  return jnp.where(keep(keys), x / (1 - rate), jnp.zeros((), x.dtype))


def resize(images: jax.Array, resolution: int) -> jax.Array:
  """Bicubic resize, antialiased, of [batch, height, width, channels]."""
  if images.shape[1:3] == (resolution, resolution):
    return images
  shape = (images.shape[0], resolution, resolution, images.shape[3])
  return jax.image.resize(images, shape, 'bicubic')


def normalise(
  pixels: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]
) -> jax.Array:
  """uint8 [..., channels] -> float32 of mean 0 and deviation 1."""
  scaled = pixels.astype(jnp.float32) / 255
  return (scaled - jnp.asarray(mean)) / jnp.asarray(std)
