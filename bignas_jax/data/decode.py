"""Encoded images: opened by their header, decoded no finer than needed.

A file may be, whatever its name, a JPEG (gray, YCbCr, RGB or CMYK), a PNG, or
another format that OpenCV decodes: AVIF, BMP, GIF, JPEG 2000, PBM to PPM, TIFF,
WebP. If a file holds several images, the first is used. Pixels are turned
upright as the EXIF data of a camera say.
"""

import dataclasses
import struct

import cv2
import numpy as np
import simplejpeg

from bignas_jax.data import headers

_JPEG = b'\xff\xd8'
# Colour spaces that simplejpeg converts; OpenCV reads the others, such as CMYK.
_SPACES = {'Gray', 'RGB', 'YCbCr'}
_SCALES = (8, 4, 2, 1)
_ORIENTATION = 0x0112  # EXIF's tag
_EXIF_BEGINS = 4096  # at most: only JFIF's header may come before it
# What makes an image upright: whether to exchange rows and columns, then to
# reverse rows, then to reverse columns.
_UPRIGHT = {
  2: (False, False, True),
  3: (False, True, True),
  4: (False, True, False),
  5: (True, False, False),
  6: (True, False, True),
  7: (True, True, True),
  8: (True, True, False),
}
_COARSE = {  # OpenCV's flags by channels and scale
  1: {
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
  },
  3: {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
  },
}


class Damaged(ValueError):
  """The error for an image that cannot be read or is not complete."""


@dataclasses.dataclass(frozen=True)
class Jpeg:
  """A JPEG of which only the header has been read.

  Attributes:
    data: content of the file.
    shape: height, width and channels of the decoded, upright image.
    orientation: EXIF's orientation, 1 to 8; 1 means upright as stored.
  """

  data: bytes
  shape: tuple[int, int, int]
  orientation: int = 1


# What `transforms` takes; an array is uint8 [height, width, channels].
Image = np.ndarray | Jpeg


def open_image(data: bytes, channels: int) -> Image:
  """Reads the header of a JPEG, or decodes any other image.

  Args:
    data: an encoded image.
    channels: 3 (RGB) or 1 (gray), whatever the image has.

  Raises:
    Damaged: the data are not an image.
  """
  if data.startswith(_JPEG):
    try:
      *sides, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
      return _opencv(data, channels)  # it knows more variants
    if space in _SPACES:
      height, width = (int(side) for side in sides)
      orientation = _orientation(data)
      if _UPRIGHT.get(orientation, (False,))[0]:
        height, width = width, height
      return Jpeg(data, (height, width, channels), orientation)
  return _opencv(data, channels)


def decode(image: Image, scale: int = 1) -> np.ndarray:
  """Returns all pixels of an image.

  simplejpeg uses libjpeg-turbo as OpenCV does. It gives equal pixels in half
  the time, but refuses some files that OpenCV accepts, so OpenCV decodes those.

  Args:
    image: opened or decoded.
    scale: 1, 2, 4 or 8, by which a JPEG's sides are divided while it is
      decoded. That uses the low frequencies of the JPEG's own transform, which
      are what an antialiasing filter would leave.

  Returns:
    uint8 [ceil(height / scale), ceil(width / scale), channels].

  Raises:
    Damaged: part of the image is missing.
  """
  if isinstance(image, np.ndarray):
    return image
  height, width, channels = image.shape
  swap, *flips = _UPRIGHT.get(image.orientation, (False, False, False))
  if swap:
    height, width = width, height
  try:
    pixels = simplejpeg.decode_jpeg(
      image.data,
      'GRAY' if channels == 1 else 'RGB',
      min_height=-(-height // scale),
      min_width=-(-width // scale),
      min_factor=scale,
    )
  except ValueError:
    return _opencv(image.data, channels, scale)
  if swap:
    pixels = pixels.swapaxes(0, 1)
  return np.ascontiguousarray(
    pixels[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
  )


def region(
  image: Image, top: int, left: int, height: int, width: int, size: int
) -> np.ndarray:
  """Returns the pixels of a box that will be resized to a square.

  Args:
    image: opened or decoded.
    top: first row of the box, in pixels of the image.
    left: first column of the box, in pixels of the image.
    height: rows of the box, in pixels of the image.
    width: columns of the box, in pixels of the image.
    size: side of the square. A JPEG is decoded at the coarsest scale at which
      the box is still no smaller than this.

  Returns:
    A view, uint8 [rows, columns, channels], possibly coarser than the image.
  """
  if isinstance(image, np.ndarray):
    return image[top : top + height, left : left + width]
  short = min(height, width)
  scale = next(s for s in _SCALES if short >= s * size or s == 1)
  pixels = decode(image, scale)
  rows, columns = (max(1, round(n / scale)) for n in (height, width))
  top = min(round(top / scale), pixels.shape[0] - rows)
  left = min(round(left / scale), pixels.shape[1] - columns)
  return pixels[top : top + rows, left : left + columns]


def _opencv(data: bytes, channels: int, scale: int = 1) -> np.ndarray:
  """Returns all pixels as OpenCV decodes them, which turns them upright."""
  if not data:
    raise Damaged('it is empty')
  if headers.is_cut(data):
    raise Damaged('it is shorter than it says')
  try:
    image = cv2.imdecode(
      np.frombuffer(data, np.uint8), _COARSE[channels][scale]
    )
  except cv2.error as error:  # its text has several lines
    raise Damaged(' '.join(str(error).split())) from None
  if image is None:
    raise Damaged('neither simplejpeg nor OpenCV can decode it')
  if channels == 1:
    return image[..., None]
  return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _orientation(data: bytes) -> int:
  """Returns EXIF's orientation, an entry in the first directory of its TIFF.

  The result is 1 (upright) if there is no valid entry.
  """
  start = data.find(b'Exif\0\0', 0, _EXIF_BEGINS) + 6
  if start < 6:
    return 1
  order = {b'II': '<', b'MM': '>'}.get(data[start : start + 2])
  if order is None:
    return 1
  try:
    (offset,) = struct.unpack_from(order + 'I', data, start + 4)
    (entries,) = struct.unpack_from(order + 'H', data, start + offset)
    for entry in range(entries):
      position = start + offset + 2 + 12 * entry
      tag, _, _, value = struct.unpack_from(order + 'HHIH', data, position)
      if tag == _ORIENTATION:
        return value if value in _UPRIGHT else 1
  except struct.error:  # an entry beyond the end: no orientation to be found
    pass
  return 1
