"""The number of pixels of an encoded image, read from its first bytes.

Nothing is decoded, so that an image can be refused, or made to wait, before it
takes memory: a PNG of a hundred kilobytes may hold 2^27 pixels.
"""

import struct

# Markers of a JPEG. All SOFn say the size; DHT, JPG and DAC lie between them.
_SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_ALONE = {0x01, *range(0xD0, 0xD9)}  # TEM, RSTn and SOI have no length
_FILL = {0x00, 0xFF}
_ENDS = {0xD9, 0xDA}  # EOI and SOS: nothing after them says the size
_MOST_SEGMENTS = 10_000  # a profile of 32 MiB takes 512
# By a TIFF's version: where the offset of its first directory is, and the
# formats of an offset, of a number of entries, and of an entry's beginning.
_TIFF = {42: (4, 'I', 'H', 'HHI'), 43: (8, 'Q', 'Q', 'HHQ')}
_TIFF_KINDS = {3: 'H', 4: 'I', 16: 'Q'}  # SHORT, LONG, LONG8
_TIFF_SIDES = {256: 'width', 257: 'height', 322: 'tile', 323: 'tile_height'}
_MOST_ENTRIES = 65_536
_PNG, _MOST_CHUNKS = b'\x89PNG\r\n\x1a\n', 1_000_000


def pixels(data: bytes) -> int | None:
  """Returns how many pixels an image will have once it is decoded.

  Args:
    data: an encoded image, or anything else.

  Returns:
    Height times width of a JPEG, PNG, WebP, BMP, GIF or TIFF, as its header
    says (for a TIFF, height times width of a tile if that is more); None if the
    data are no such image or its header is damaged.
  """
  for magic, read in _FORMATS.items():
    if data.startswith(magic):
      try:
        return read(data)
      except (struct.error, OverflowError):  # it ends before its size
        return None
  return None


def is_cut(data: bytes) -> bool:
  """Returns whether a PNG is cut off before the end of its last chunk.

  Such a PNG must not reach OpenCV, which reserves the length that a chunk
  claims, up to 4 GB, before it checks whether the file is that long; it never
  accepts such a file. For other formats the result is False.
  """
  at = len(_PNG)
  if not data.startswith(_PNG):
    return False
  for _ in range(_MOST_CHUNKS):
    if at + 8 > len(data):
      return True
    length, kind = struct.unpack_from('>I4s', data, at)
    at += 12 + length
    if at > len(data) or kind == b'IEND':
      return at > len(data)
  return True


def _png(data: bytes) -> int | None:
  width, height = struct.unpack_from('>II', data, 16)
  return width * height if data[12:16] == b'IHDR' else None


def _jpeg(data: bytes) -> int | None:
  at = 0
  for _ in range(_MOST_SEGMENTS):
    # What lies between segments is passed over, as decoders do.
    at = data.find(b'\xff', at)
    if at < 0:
      return None
    (marker,) = struct.unpack_from('B', data, at + 1)
    if marker in _SOF:
      height, width = struct.unpack_from('>HH', data, at + 5)
      return height * width
    if marker in _ENDS:
      return None
    if marker in _FILL:
      at += 1
    elif marker in _ALONE:
      at += 2
    else:
      at += 2 + struct.unpack_from('>H', data, at + 2)[0]
  return None


def _webp(data: bytes) -> int | None:
  kind = data[8:16]
  if kind == b'WEBPVP8 ':
    width, height = struct.unpack_from('<HH', data, 26)
    return (width & 0x3FFF) * (height & 0x3FFF)
  if kind == b'WEBPVP8L':
    (bits,) = struct.unpack_from('<I', data, 21)
    return ((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1)
  if kind == b'WEBPVP8X':
    low, middle, high = struct.unpack_from('<HHH', data, 24)
    return (low + ((middle & 0xFF) << 16) + 1) * (
      (middle >> 8) + (high << 8) + 1
    )
  return None


def _bmp(data: bytes) -> int | None:
  (size,) = struct.unpack_from('<I', data, 14)
  of_os2 = size == 12
  width, height = struct.unpack_from('<HH' if of_os2 else '<ii', data, 18)
  return abs(width * height)  # a negative height: rows from top to bottom


def _gif(data: bytes) -> int | None:
  width, height = struct.unpack_from('<HH', data, 6)
  return width * height


def _tiff(data: bytes) -> int | None:
  """Returns the pixels of the first directory, or of a tile if it is larger.

  Decoders hold a whole tile in memory, even one larger than the image.
  """
  order = '<' if data.startswith(b'II') else '>'
  (version,) = struct.unpack_from(order + 'H', data, 2)
  start, offset, number, entry = _TIFF[version]
  (directory,) = struct.unpack_from(order + offset, data, start)
  (entries,) = struct.unpack_from(order + number, data, directory)
  first = directory + struct.calcsize(number)
  before = struct.calcsize('=' + entry)  # its value
  sides: dict[str, int] = {}
  for i in range(min(entries, _MOST_ENTRIES)):
    at = first + i * (before + struct.calcsize(offset))
    tag, kind, _ = struct.unpack_from(order + entry, data, at)
    if tag in _TIFF_SIDES and kind in _TIFF_KINDS:
      form = order + _TIFF_KINDS[kind]
      (side,) = struct.unpack_from(form, data, at + before)
      name = _TIFF_SIDES[tag]
      sides[name] = max(side, sides.get(name, 0))
  if not {'width', 'height'} <= set(sides):
    return None
  tile = sides.get('tile', 0) * sides.get('tile_height', 0)
  return max(sides['width'] * sides['height'], tile)


_FORMATS = {
  _PNG: _png,
  b'\xff\xd8': _jpeg,
  b'RIFF': _webp,
  b'BM': _bmp,
  b'GIF8': _gif,
  b'II*\0': _tiff,
  b'MM\0*': _tiff,
  b'II+\0': _tiff,
  b'MM\0+': _tiff,
}
