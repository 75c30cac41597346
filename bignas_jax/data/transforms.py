"""Random and fixed transforms of one image: uint8 in, uint8 square out.

Each is a pure function of its arguments; the random ones draw everything from
the generator that they are given. Images are HWC, RGB or gray, and may be JPEGs
that are not decoded yet; a transform decodes no more of them than it needs.
Centres of pixels are at half-integer positions, so that resizing does not shift
an image.
"""

import math

import cv2
import numpy as np

from bignas_jax.data import decode
from bignas_jax.data.decode import Image

# The pipeline has threads of its own; OpenCV's would compete with them for the
# same cores. Set on import, because worker processes import this module too.
cv2.setNumThreads(0)
# Standard deviation of a Gaussian whose weights beside the middle round to 0.
_INVISIBLE = 0.3


def affine(
  rng: np.random.Generator,
  image: Image,
  size: int,
  *,
  rotate: float = 12.0,
  scale: tuple[float, float] = (0.85, 1.15),
  shear: float = 8.0,
  translate: float = 0.08,
) -> np.ndarray:
  """Rotates, scales, shears, shifts and resizes an image in one step.

  It suits digits and other small images that must not be mirrored. With
  `rotate`, `shear` and `translate` 0 and `scale` (1, 1) it resizes the centre
  of the image, apart from the border.

  Args:
    rng: draws each of the parameters uniformly.
    image: uint8 [height, width, channels], or a JPEG.
    size: side of the result, in pixels.
    rotate: largest rotation in either direction, in degrees.
    scale: smallest and largest magnification.
    shear: largest horizontal shear in either direction, in degrees.
    translate: largest shift in either direction along each axis, as a fraction
      of `size`.

  Returns:
    uint8 [size, size, channels], with zeros outside of the image.
  """
  angle = math.radians(rng.uniform(-rotate, rotate))
  zoom = rng.uniform(*scale)
  slant = math.tan(math.radians(rng.uniform(-shear, shear)))
  shift_x = rng.uniform(-translate, translate) * size
  shift_y = rng.uniform(-translate, translate) * size

  height, width = image.shape[:2]
  pixels = decode.region(image, 0, 0, height, width, 2 * size)
  short = min(pixels.shape[:2])
  if short > 2 * size:
    # A warp reads four pixels for each one of the result, and would skip the
    # others.
    rows, columns = (round(n * 2 * size / short) for n in pixels.shape[:2])
    pixels, short = _resize(pixels, rows, columns), 2 * size

  # The forward map is zoom * rotation * shear; OpenCV wants its inverse, from
  # a pixel of the result to one of the image. It is in closed form, because
  # small NumPy arrays cost more than the warp.
  sin, cos = math.sin(angle), math.cos(angle)
  step = short / size / zoom
  xx, xy = step * (cos + slant * sin), step * (sin - slant * cos)
  yx, yy = -step * sin, step * cos
  x, y = (size - 1) / 2 + shift_x, (size - 1) / 2 + shift_y
  height, width = pixels.shape[:2]
  matrix = np.array(
    [
      [xx, xy, (width - 1) / 2 - xx * x - xy * y],
      [yx, yy, (height - 1) / 2 - yx * x - yy * y],
    ]
  )
  method = cv2.INTER_LINEAR if short > size else cv2.INTER_CUBIC
  out = cv2.warpAffine(
    pixels,
    matrix,
    (size, size),
    flags=method | cv2.WARP_INVERSE_MAP,
    borderMode=cv2.BORDER_CONSTANT,
    borderValue=0,
  )
  return _with_channels(out, pixels)


def random_resized_crop(
  rng: np.random.Generator,
  image: Image,
  size: int,
  *,
  scale: tuple[float, float] = (0.08, 1.0),
  ratio: tuple[float, float] = (3 / 4, 4 / 3),
  flip: bool = True,
) -> np.ndarray:
  """Cuts out a random box, resizes it, and mirrors it with probability 1/2.

  It is the crop of Inception (Szegedy et al., CVPR 2015, section 6), drawn as
  torchvision does: an area, a logarithmically uniform aspect ratio, ten tries,
  then the largest box in the middle that the ratios allow.

  Args:
    rng: draws the box and the flip.
    image: uint8 [height, width, channels], or a JPEG.
    size: side of the result, in pixels.
    scale: smallest and largest area of the box over the image's.
    ratio: smallest and largest width of the box over its height.
    flip: whether to mirror left and right with probability 1/2.

  Returns:
    uint8 [size, size, channels].
  """
  box = _random_box(rng, image.shape[:2], scale, ratio)
  out = _resize(decode.region(image, *box, size), size, size)
  if flip and rng.random() < 0.5:
    out = _with_channels(cv2.flip(out, 1), out)
  return out


def centre(image: Image, size: int, *, crop: float = 1.0) -> np.ndarray:
  """Resizes the square in the middle of an image, as evaluation does.

  Args:
    image: uint8 [height, width, channels], or a JPEG.
    size: side of the result, in pixels.
    crop: side of the square over the short side of the image.

  Returns:
    uint8 [size, size, channels].
  """
  height, width = image.shape[:2]
  side = max(1, round(crop * min(height, width)))
  top, left = (height - side) // 2, (width - side) // 2
  return _resize(decode.region(image, top, left, side, side, size), size, size)


def _random_box(
  rng: np.random.Generator,
  shape: tuple[int, ...],
  scale: tuple[float, float],
  ratio: tuple[float, float],
) -> tuple[int, int, int, int]:
  """Returns top, left, height and width of a random box, in pixels."""
  rows, columns = shape
  for _ in range(10):
    area = rows * columns * rng.uniform(*scale)
    aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
    width = round(math.sqrt(area * aspect))
    height = round(math.sqrt(area / aspect))
    if 0 < width <= columns and 0 < height <= rows:
      top = int(rng.integers(rows - height + 1))
      left = int(rng.integers(columns - width + 1))
      return top, left, height, width
  height = min(rows, max(1, round(columns / ratio[0])))
  width = min(columns, max(1, round(rows * ratio[1])))
  return (rows - height) // 2, (columns - width) // 2, height, width


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """Resizes an image without aliasing, each axis by itself.

  If an axis shrinks, frequencies that the smaller image cannot show are blurred
  away first. The blur's variance is (r^2 - 1) / 6, which is by how much that of
  Pillow's filter, a triangle r pixels wide, exceeds that of linear
  interpolation's triangle. Averaging areas is no better and takes three times
  as long, until from ratio 2 on it is the faster.
  """
  ratios = image.shape[0] / height, image.shape[1] / width
  if min(ratios) >= 2:
    method = cv2.INTER_AREA
  else:
    down, across = (math.sqrt(max(r * r - 1, 0) / 6) for r in ratios)
    if max(down, across) > _INVISIBLE:
      sizes = [2 * math.ceil(2 * sigma) + 1 for sigma in (across, down)]
      blurred = cv2.GaussianBlur(image, sizes, across or 1, sigmaY=down or 1)
      image = _with_channels(blurred, image)
    method = cv2.INTER_LINEAR if min(ratios) >= 1 else cv2.INTER_CUBIC
  out = cv2.resize(image, (width, height), interpolation=method)
  return _with_channels(out, image)


def _with_channels(out: np.ndarray, image: np.ndarray) -> np.ndarray:
  """Restores the last axis, which OpenCV drops if it has one channel."""
  return out.reshape(*out.shape[:2], image.shape[2])
