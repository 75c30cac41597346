"""Encoded images of every kind: what is decoded, how upright, how coarse."""

import io
import struct

import cv2
import numpy as np
import PIL.Image
import pytest

from bignas_jax.data import decode as decode_lib
from bignas_jax.data import transforms


def picture(height=60, width=90) -> np.ndarray:
  """Smooth, coloured, and unlike itself when turned or mirrored."""
  y, x = np.mgrid[:height, :width]
  y, x = y / height, x / width
  waves = [np.sin(5 * x + y), np.cos(4 * y), x * y]
  return (127 + 100 * np.stack(waves, -1)).clip(0, 255).astype(np.uint8)


def encoded(image, kind='JPEG', mode='RGB', **options) -> bytes:
  out = io.BytesIO()
  options = {'quality': 92} | options if kind == 'JPEG' else options
  PIL.Image.fromarray(image).convert(mode).save(out, kind, **options)
  return out.getvalue()


def turned(image, orientation: int, order: str = '<') -> bytes:
  """A JPEG whose EXIF data say how the camera was held."""
  entry = struct.pack(order + 'HHIHH', 0x0112, 3, 1, orientation, 0)
  make = struct.pack(order + 'HHII', 0x010F, 2, 4, 0)
  head = (b'II' if order == '<' else b'MM') + struct.pack(order + 'HI', 42, 8)
  tiff = head + struct.pack(order + 'H', 2) + make + entry + bytes(4)
  return encoded(image, exif=b'Exif\0\0' + tiff)


def opencv(data: bytes, flag=cv2.IMREAD_COLOR) -> np.ndarray:
  image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
  assert image is not None
  return image[..., None] if image.ndim == 2 else image[..., ::-1]


KINDS = {
  'jpeg': encoded(picture()),
  'progressive': encoded(picture(), progressive=True),
  '4:4:4': encoded(picture(), subsampling=0),
  'gray jpeg': encoded(picture(), mode='L'),
  'rgb jpeg': encoded(picture(), keep_rgb=True),
  'cmyk jpeg': encoded(picture(), mode='CMYK'),
  'png': encoded(picture(), 'PNG'),
  'palette png': encoded(picture(), 'PNG', mode='P'),
  'transparent png': encoded(picture(), 'PNG', mode='RGBA'),
  'gray png': encoded(picture(), 'PNG', mode='L'),
  'webp': encoded(picture(), 'WEBP', lossless=True),
  'bmp': encoded(picture(), 'BMP'),
  'trailing bytes': encoded(picture()) + b'more',
  'one pixel': encoded(picture(1, 1)),
  'one row': encoded(picture(1, 300)),
  'huge': encoded(picture(2400, 3200)),
}


@pytest.mark.parametrize('name', KINDS)
def test_any_kind_of_image_is_decoded(name):
  """As OpenCV does to the bit; Pillow's CMYK, palette and luma differ a bit."""
  data = KINDS[name]
  for channels, flag in ((3, cv2.IMREAD_COLOR), (1, cv2.IMREAD_GRAYSCALE)):
    opened = decode_lib.open_image(data, channels)
    out = decode_lib.decode(opened)
    assert out.dtype == np.uint8 and out.shape == opened.shape
    assert out.shape[2] == channels and out.flags.c_contiguous
    np.testing.assert_array_equal(out, opencv(data, flag))
    mode = 'L' if channels == 1 else 'RGB'
    pil = np.asarray(PIL.Image.open(io.BytesIO(data)).convert(mode))
    difference = out.astype(int) - pil.reshape(out.shape)
    assert np.abs(difference).mean() < 2


@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize('orientation', range(1, 9))
def test_cameras_may_be_held_in_any_way(orientation, order):
  data = turned(picture(), orientation, order)
  for scale, flag in (
    (1, cv2.IMREAD_COLOR),
    (2, cv2.IMREAD_REDUCED_COLOR_2),
  ):
    opened = decode_lib.open_image(data, 3)
    assert isinstance(opened, decode_lib.Jpeg)
    out = decode_lib.decode(opened, scale)
    if scale == 1:
      assert out.shape == opened.shape
    np.testing.assert_array_equal(out, opencv(data, flag))
  # Not only equal to OpenCV's: turned.
  flat = decode_lib.decode(decode_lib.open_image(encoded(picture()), 3))
  assert (out.shape[0] > out.shape[1]) == (orientation >= 5)
  same = out.shape == flat.shape and (out == flat).all()
  assert not same or orientation == 1


def test_broken_exif_data_turn_nothing():
  whole = turned(picture(), 6)
  at = whole.index(b'Exif') + 6
  for broken in (
    whole[:at] + b'XX' + whole[at + 2 :],  # no order of bytes
    whole[:at] + b'II*\0\xff\xff\xff\x7f' + whole[at + 8 :],  # far away
    turned(picture(), 9),
    turned(picture(), 0),
  ):
    opened = decode_lib.open_image(broken, 3)
    assert opened.shape == (60, 90, 3)
    assert decode_lib.decode(opened).shape == (60, 90, 3)


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP'])
def test_a_part_of_an_image_is_damaged(kind):
  data = encoded(picture(), kind)
  for cut in (0, 1, 2, 10, 100, len(data) // 2, len(data) - 12):
    with pytest.raises(decode_lib.Damaged) as raised:
      decode_lib.decode(decode_lib.open_image(data[:cut], 3))
    assert '\n' not in str(raised.value)
    assert (str(raised.value) == 'it is empty') == (cut == 0)
  with pytest.raises(decode_lib.Damaged):
    decode_lib.decode(decode_lib.open_image(b'<html>not found</html>', 3))


def test_what_opencv_forgives_is_not_damaged(capfd):
  """A hole in the middle: the decoder finds its way back."""
  data = encoded(picture(375, 500))
  middle = len(data) // 2
  hole = data[:middle] + bytes(20) + data[middle + 20 :]
  out = decode_lib.decode(decode_lib.open_image(hole, 3))
  np.testing.assert_array_equal(out, opencv(hole))


@pytest.mark.parametrize('scale', [1, 2, 4, 8])
def test_a_region_is_decoded_no_finer_than_needed(scale, monkeypatch):
  image = picture(480, 640)
  opened = decode_lib.open_image(encoded(image, quality=98), 3)
  scales, whole = [], decode_lib.decode

  def decode(image, scale=1):
    scales.append(scale)
    return whole(image, scale)

  monkeypatch.setattr(decode_lib, 'decode', decode)
  box = 40, 80, 400, 240  # top, left, height, width
  size = 240 // scale
  region = decode_lib.region(opened, *box, size)
  assert scales == [scale]
  assert region.shape == (400 // scale, 240 // scale, 3)
  expected = decode_lib.region(image, *box, size)
  expected = cv2.resize(
    expected, region.shape[1::-1], interpolation=cv2.INTER_AREA
  )
  assert np.abs(region.astype(int) - expected).mean() < 1.5
  decode_lib.region(opened, *box, size + 1)
  assert scales[-1] == max(1, scale // 2)


@pytest.mark.parametrize('size', [16, 64, 224])
def test_a_crop_is_the_same_decoded_or_not(size):
  """Coarse decoding moves edges by less than a pixel of the result."""
  data = encoded(picture(700, 500), quality=98)
  opened = decode_lib.open_image(data, 3)
  for seed in range(5):
    one, two = (
      transforms.random_resized_crop(np.random.default_rng(seed), image, size)
      for image in (opened, decode_lib.decode(opened))
    )
    assert np.abs(one.astype(int) - two).mean() < 2.5
  one, two = (
    transforms.centre(image, size)
    for image in (opened, decode_lib.decode(opened))
  )
  assert np.abs(one.astype(int) - two).mean() < 2


@pytest.mark.parametrize('side', [100, 130, 170, 199, 230, 300])
def test_resizing_is_antialiased_as_pillows(side):
  """Noise, all of whose detail is too fine for the result, becomes as even."""
  rng = np.random.RandomState(0)
  image = rng.randint(0, 256, (side, side, 3), np.uint8)
  out = transforms.centre(image, 100)
  pil = PIL.Image.fromarray(image)
  expected = pil.resize((100, 100), PIL.Image.Resampling.BILINEAR)
  ratio = out.std() / np.asarray(expected).std()
  # Averages of areas, from a ratio of 2 on, are as wide but not as smooth.
  assert 0.8 < ratio < (1.3 if side < 200 else 1.5)
  smooth = picture(side, side)
  difference = transforms.centre(smooth, 100).astype(int) - np.asarray(
    PIL.Image.fromarray(smooth).resize(
      (100, 100), PIL.Image.Resampling.BILINEAR
    )
  )
  assert np.abs(difference).max() <= 3


def test_an_axis_that_shrinks_is_antialiased_beside_one_that_grows():
  rows = np.zeros((190, 50, 1), np.uint8)
  rows[::2] = 255  # finer than 100 rows can show
  out = transforms._resize(rows, 100, 100)
  assert out.std() < 40 < cv2.resize(rows, (100, 100)).std()
