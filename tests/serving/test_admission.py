"""What a service takes at once does not depend on how many ask."""

import asyncio
import io
import struct
import time

import cv2
import fastapi
import numpy as np
import PIL.Image
import pytest

from bignas_jax.data import decode, headers
from bignas_jax.serving import admission

# Sizes of images, by their headers.

HEIGHT, WIDTH = 30, 70
_PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3))
_IMAGE = PIL.Image.fromarray(_PIXELS.astype(np.uint8))


def opencv(kind):
  _, encoded = cv2.imencode(kind, _PIXELS.astype(np.uint8))
  return encoded.tobytes()


def pillow(kind, image=_IMAGE, **options):
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def bmp_of_os2():
  head = struct.pack('<IHHHH', 12, WIDTH, HEIGHT, 1, 24)
  rows = bytes(HEIGHT * (3 * WIDTH + 2))
  size = 14 + len(head) + len(rows)
  return b'BM' + struct.pack('<IHHI', size, 0, 0, 14 + len(head)) + head + rows


KNOWN = {
  **{k: opencv(k) for k in ('.png', '.jpg', '.webp', '.bmp', '.gif', '.tiff')},
  'lossless webp': pillow('WEBP', lossless=True),
  'webp with exif': pillow('WEBP', exif=b'Exif\0\0'),
  'animated webp': pillow(
    'WEBP', save_all=True, append_images=[_IMAGE.rotate(90)]
  ),
  'progressive jpeg': pillow('JPEG', progressive=True),
  'jpeg with a profile': pillow('JPEG', icc_profile=bytes(200_000)),
  'cmyk': pillow('JPEG', _IMAGE.convert('CMYK')),
  'garbage in a jpeg': b'\xff\xd8\xff\xff\0xyz\xff' + opencv('.jpg')[3:],
  'big tiff': pillow('TIFF', big_tiff=True),
  'two pages': pillow('TIFF', save_all=True, append_images=[_IMAGE]),
  'palette': pillow('PNG', _IMAGE.convert('P')),
  'interlaced': pillow('GIF', _IMAGE.convert('P'), interlace=1),
  'bmp of OS/2': bmp_of_os2(),
}


@pytest.mark.parametrize('name', KNOWN)
def test_a_header_says_what_decoding_makes(name):
  assert headers.pixels(KNOWN[name]) == HEIGHT * WIDTH
  decoded = decode.decode(decode.open_image(KNOWN[name], 3))
  assert decoded.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize('kind', ['.avif', '.ppm', '.ras'])
def test_other_formats_say_nothing(kind):
  assert headers.pixels(opencv(kind)) is None


@pytest.mark.parametrize('name', KNOWN)
def test_a_cut_or_damaged_header_is_no_error(name):
  whole = KNOWN[name]
  rng = np.random.default_rng(0)
  for end in range(64):
    assert headers.pixels(whole[:end]) in (None, HEIGHT * WIDTH)
  for _ in range(200):
    damaged = bytearray(whole)
    for at in rng.integers(2, min(len(whole), 400), 4):
      damaged[at] = rng.integers(256)
    found = headers.pixels(bytes(damaged))
    assert found is None or found >= 0


def test_a_header_that_never_ends_is_given_up():
  begin = time.monotonic()
  for tail in b'\xff', b'\xff\0', b'\xff\xd0', b'\xff\xe0\0\2':
    assert headers.pixels(b'\xff\xd8' + tail * 2**22) is None
  far = b'II+\0\x08\0\0\0' + b'\xff' * 100
  many = b'II*\0' + struct.pack('<IH', 8, 65_535) + bytes(2**20)
  assert headers.pixels(far) is headers.pixels(many) is None
  assert time.monotonic() - begin < 5


def test_a_png_that_is_cut_takes_no_memory():
  """OpenCV reserves 4 GB for a chunk that says so, and then finds no bytes."""
  whole = opencv('.png')
  assert not headers.is_cut(whole) and not headers.is_cut(whole + b'more')
  assert not any(headers.is_cut(d) for d in (b'', b'\xff\xd8', b'GIF89a'))
  for end in range(8, len(whole)):
    assert headers.is_cut(whole[:end])
  at = whole.index(b'IDAT') - 4
  for length in (2**31 - 1, 2**32 - 1):
    longer = whole[:at] + struct.pack('>I', length) + whole[at + 4 :]
    with pytest.raises(decode.Damaged, match='shorter than it says'):
      decode.open_image(longer, 3)
  none = whole[:33] + struct.pack('>I4sI', 0, b'tEXt', 0) * 100_000
  assert headers.is_cut(none)


def test_a_tile_counts_that_is_larger_than_its_image():
  sides = {256: WIDTH, 257: HEIGHT, 322: 16_384, 323: 16_384}
  entries = [struct.pack('<HHII', tag, 4, 1, n) for tag, n in sides.items()]
  head = b'II*\0' + struct.pack('<IH', 8, len(entries))
  assert headers.pixels(head + b''.join(entries)) == 16_384**2


# A budget.


def test_no_more_is_held_than_there_is():
  async def all_of_them():
    budget, held, most = admission.Budget(10, 5), 0, 0

    async def one(amount):
      nonlocal held, most
      async with budget.hold(amount):
        held += amount
        most = max(most, held)
        await asyncio.sleep(0.001)
        held -= amount

    await asyncio.gather(*(one(n % 7) for n in range(100)))
    return most

  assert 7 <= asyncio.run(all_of_them()) <= 10


def test_who_waits_too_long_is_told_to_come_again():
  async def late():
    budget = admission.Budget(10, 0.02)
    async with budget.hold(10):
      async with budget.hold(0):
        pass
      with pytest.raises(fastapi.HTTPException) as refused:
        async with budget.hold(1):
          pass
    assert refused.value.status_code == 503
    assert refused.value.headers == {'Retry-After': '1'}
    async with budget.hold(1_000):  # more than there is, but alone
      pass

  asyncio.run(late())


def test_an_error_or_a_cancelled_request_lets_go():
  async def let_go():
    budget = admission.Budget(10, 5)
    with pytest.raises(ZeroDivisionError):
      async with budget.hold(10):
        raise ZeroDivisionError

    async def forever():
      async with budget.hold(10):
        await asyncio.sleep(60)

    running, waiting = (asyncio.create_task(forever()) for _ in range(2))
    await asyncio.sleep(0.01)
    for task in (waiting, running):
      task.cancel()
      await asyncio.wait([task])
    async with asyncio.timeout(1), budget.hold(10):
      pass

  asyncio.run(let_go())


# Requests.


async def echo(scope, receive, send):
  """Answers with the length of the body, or with an error's status."""
  length, more, status = 0, True, 200
  try:
    while more:
      message = await receive()
      length += len(message.get('body', b''))
      more = message.get('more_body', False)
  except fastapi.HTTPException as error:
    status = error.status_code
  await send({'type': 'http.response.start', 'status': status, 'headers': []})
  await send({'type': 'http.response.body', 'body': b'%d' % length})


def ask(chunks, named=None, *, app=echo, pause=0.0, most=100, budget=None):
  """Status and body of a request, and how much of it was read."""
  sent, parts, read = [], list(chunks), 0

  async def receive():
    nonlocal read
    await asyncio.sleep(pause)
    read += 1
    body = parts.pop(0) if parts else b''
    return {'type': 'http.request', 'body': body, 'more_body': bool(parts)}

  async def send(message):
    sent.append(message)

  async def whole():
    limited = admission.Requests(
      app,
      most=most,
      budget=budget or admission.Budget(200, 0.02),
      within_s=0.05,
      answer_s=0.5,
    )
    scope = {'type': 'http', 'headers': named or []}
    await limited(scope, receive, send)

  asyncio.run(whole())
  start, *bodies = sent
  return start['status'], b''.join(m['body'] for m in bodies), read


def length(n):
  return [(b'content-length', b'%d' % n)]


CHUNKED = [(b'transfer-encoding', b'chunked')]


def test_a_body_of_the_right_length_comes_through():
  assert ask([b'x' * 60, b'y' * 40], length(100)) == (200, b'100', 2)
  assert ask([b'x' * 60, b'y' * 40], CHUNKED) == (200, b'100', 2)
  assert ask([b'']) == (200, b'0', 1)


def test_one_that_announces_too_much_is_not_read():
  status, body, read = ask([b'x' * 101], length(101))
  assert (status, read) == (413, 0) and b'more than 100 bytes' in body


def test_one_that_sends_too_much_is_not_read_to_its_end():
  for named in (CHUNKED, length(10)):
    status, _, read = ask([b'x' * 60] * 9, named)
    assert (status, read) == (413, 2)


def test_one_that_comes_too_slowly_is_given_up():
  assert ask([b'x'] * 9, CHUNKED, pause=0.03)[0] == 408


def test_one_that_is_never_answered_is_given_up():
  async def never(scope, receive, send):
    del scope, receive, send
    await asyncio.sleep(60)

  status, body, _ = ask([b''], app=never)
  assert status == 504 and b'it took too long' in body


def test_all_that_are_under_way_have_one_limit():
  """A request that does not say its length counts as the longest."""

  async def crowd(named, bodies):
    budget = admission.Budget(200, 0.02)
    let_in, statuses = 0, []

    async def slow(scope, receive, send):
      nonlocal let_in
      let_in += 1
      await asyncio.sleep(0.1)
      await echo(scope, receive, send)

    async def receive():
      return {'type': 'http.request', 'body': b'', 'more_body': False}

    async def send(message):
      if 'status' in message:
        statuses.append(message['status'])

    limited = admission.Requests(
      slow, most=100, budget=budget, within_s=5, answer_s=5
    )
    scope = {'type': 'http', 'headers': named}
    await asyncio.gather(
      *(limited(scope, receive, send) for _ in range(bodies))
    )
    return let_in, sorted(statuses)

  assert asyncio.run(crowd(CHUNKED, 4)) == (2, [200, 200, 503, 503])
  assert asyncio.run(crowd(length(40), 7)) == (5, [200] * 5 + [503] * 2)
  assert asyncio.run(crowd([], 9)) == (9, [200] * 9)
