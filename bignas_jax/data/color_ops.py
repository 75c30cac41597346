"""Operations of augmentation policies on one image: uint8 in, uint8 out.

Results differ from those of Pillow's ImageOps and ImageEnhance by at most one,
from rounding. Images are [height, width, channels] with 1 or 3 channels; the
given image is never changed.
"""

import math

import cv2
import numpy as np

_FILL = 128  # gray value outside of a moved image
_values = np.arange(256)


def identity(image: np.ndarray) -> np.ndarray:
  """Returns the image itself."""
  return image


def invert(image: np.ndarray) -> np.ndarray:
  """Inverts all pixel values."""
  return 255 - image


def auto_contrast(image: np.ndarray) -> np.ndarray:
  """Stretches each channel over 0..255."""
  return _by_channel(image, _stretched)


def equalize(image: np.ndarray) -> np.ndarray:
  """Makes each channel's histogram flat."""
  return _by_channel(image, _flattened)


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
  """Keeps the highest `bits` bits of each value, 0 to 8."""
  return image & np.uint8(256 - (1 << (8 - bits)) if bits else 0)


def solarize(image: np.ndarray, threshold: float) -> np.ndarray:
  """Inverts all values that are not below the threshold."""
  return _look_up(image, np.where(_values < threshold, _values, 255 - _values))


def solarize_add(image: np.ndarray, addition: float) -> np.ndarray:
  """Adds a number to all values below 128."""
  brighter = np.minimum(_values + int(addition), 255)
  return _look_up(image, np.where(_values < 128, brighter, _values))


def color(image: np.ndarray, factor: float) -> np.ndarray:
  """Changes the saturation: 0 gives gray, 1 no change, above 1 more colour."""
  gray = np.repeat(_gray(image), image.shape[2], axis=2)
  return _blended(gray, image, factor)


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
  """Changes the contrast: 0 gives the mean gray, 1 no change, above 1 more."""
  mean = int(_gray(image).mean() + 0.5)
  return _look_up(image, mean + factor * (_values - mean))


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
  """Changes the brightness: 0 gives black, 1 no change, above 1 brighter."""
  return _look_up(image, factor * _values)


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
  """Changes the sharpness: 0 smooths, 1 changes nothing, above 1 sharpens.

  The outermost pixels stay as they are.
  """
  kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
  smooth = image.copy()
  inner = cv2.filter2D(image, -1, kernel).reshape(image.shape)
  smooth[1:-1, 1:-1] = inner[1:-1, 1:-1]
  return _blended(smooth, image, factor)


def rotate(image: np.ndarray, degrees: float) -> np.ndarray:
  """Rotates the image counter-clockwise around its centre."""
  angle = math.radians(degrees)
  cos, sin = math.cos(angle), math.sin(angle)
  return _moved(image, ((cos, -sin), (sin, cos)))


def shear_x(image: np.ndarray, factor: float) -> np.ndarray:
  """Shifts each row to the left by `factor` times its distance from the top."""
  return _moved(image, ((1, factor), (0, 1)), (0, 0))


def shear_y(image: np.ndarray, factor: float) -> np.ndarray:
  """Shifts each column up by `factor` times its distance from the left."""
  return _moved(image, ((1, 0), (factor, 1)), (0, 0))


def translate_x(image: np.ndarray, fraction: float) -> np.ndarray:
  """Shifts the image to the left by a fraction of its width."""
  return _moved(image, shift=(fraction * image.shape[1], 0))


def translate_y(image: np.ndarray, fraction: float) -> np.ndarray:
  """Shifts the image up by a fraction of its height."""
  return _moved(image, shift=(0, fraction * image.shape[0]))


def _by_channel(image: np.ndarray, table) -> np.ndarray:
  """Looks each channel up in a table made from its histogram."""
  channels = range(image.shape[2])
  tables = [
    table(cv2.calcHist([image], [c], None, [256], [0, 256]).ravel())
    for c in channels
  ]
  return _look_up(image, np.stack(tables, axis=-1))


def _stretched(histogram: np.ndarray) -> np.ndarray:
  used = histogram.nonzero()[0]
  low, high = int(used[0]), int(used[-1])
  if low == high:
    return _values
  scale = 255 / (high - low)
  return (_values * scale - low * scale).clip(0, 255).astype(int)


def _flattened(histogram: np.ndarray) -> np.ndarray:
  bins = histogram.astype(int)
  used = bins.nonzero()[0]
  step = (bins.sum() - bins[used[-1]]) // 255
  if step == 0:
    return _values
  before = np.cumsum(bins) - bins
  return (step // 2 + before) // step


def _look_up(image: np.ndarray, table: np.ndarray) -> np.ndarray:
  """Replaces each value by its entry in a table.

  Args:
    image: uint8 [height, width, channels].
    table: [256] or [256, channels] numbers, which are clipped to 0..255.
  """
  entries = table.clip(0, 255).astype(np.uint8)
  if entries.ndim == 2:
    entries = entries[:, None]
  return cv2.LUT(image, entries).reshape(image.shape)


def _gray(image: np.ndarray) -> np.ndarray:
  """Returns the luma of an image, [height, width, 1]."""
  if image.shape[2] == 1:
    return image
  return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]


def _blended(a: np.ndarray, b: np.ndarray, factor: float) -> np.ndarray:
  """Returns a + factor * (b - a), clipped to 0..255."""
  out = cv2.addWeighted(b, factor, a, 1 - factor, 0)
  return out.reshape(b.shape)


def _moved(
  image: np.ndarray,
  matrix: tuple[tuple[float, float], tuple[float, float]] = ((1, 0), (0, 1)),
  around: tuple[float, float] | None = None,
  shift: tuple[float, float] = (0, 0),
) -> np.ndarray:
  """Applies an affine map to an image, without interpolation.

  The result shows at position p the pixel of the image that is nearest to
  matrix * (p - around) + around + shift, or gray if there is none. Positions
  are (x, y) in pixels; the centre of the first pixel is (0.5, 0.5).

  Args:
    image: uint8 [height, width, channels].
    matrix: 2x2 matrix.
    around: position that the matrix leaves unchanged; None: the middle of the
      image.
    shift: vector (x, y), in pixels.
  """
  height, width = image.shape[:2]
  x, y = (width / 2, height / 2) if around is None else around
  (xx, xy), (yx, yy) = matrix
  x_, y_ = 0.5 - x, 0.5 - y
  back = np.array(
    [
      [xx, xy, xx * x_ + xy * y_ + x + shift[0] - 0.5],
      [yx, yy, yx * x_ + yy * y_ + y + shift[1] - 0.5],
    ]
  )
  out = cv2.warpAffine(
    image,
    back,
    (width, height),
    flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
    borderMode=cv2.BORDER_CONSTANT,
    borderValue=(_FILL,) * 3,
  )
  return out.reshape(image.shape)
