"""A client of a child's HTTP service, which can also be slow, wrong or gone."""

import asyncio
import re
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

_ANSWER_S = 150.0  # longer than a service takes to give a request up
_SLOW_S = 2.0  # in which a slow request is sent
_BORDER = b'border'


class Kind(NamedTuple):
  """A kind of request.

  Attributes:
    bodies: files, one of which is sent; None: a request without one.
    status: the status of the answer; 0: the client goes before there is one.
    weight: its share among all requests.
    seconds: time in which the body is sent.
    length: length that is announced; 0: the true one.
  """

  bodies: Sequence[bytes | None]
  status: int
  weight: float
  seconds: float = 0.0
  length: int = 0


def kinds(seed: int) -> dict[str, Kind]:
  """Returns the kinds of requests by their names."""
  rng = np.random.default_rng(seed)

  def image(suffix: str, height: int, width: int) -> bytes:
    small = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    pixels = cv2.resize(small, (width, height))
    return cv2.imencode(suffix, pixels)[1].tobytes()

  suffixes = '.png', '.jpg', '.webp', '.bmp'
  good = [image(s, *rng.integers(28, 500, 2)) for s in suffixes * 4]
  many = bytearray(good[0])
  many[16:24] = (30_000).to_bytes(4, 'big') * 2  # of a PNG's header
  broken = [good[0][:60], good[1][:200], b'not an image', b'']
  return {
    'good': Kind(good, 200, 0.8),
    'large': Kind([image('.jpg', 3000, 4000)], 200, 0.02),
    'slow': Kind(good, 200, 0.04, seconds=_SLOW_S),
    'gone': Kind(good, 0, 0.02),
    'broken': Kind(broken, 400, 0.06),
    'no_image': Kind([None], 422, 0.02),
    'many_pixels': Kind([bytes(many)], 413, 0.02),
    'many_bytes': Kind([good[0]], 413, 0.02, length=2**25 + 1),
  }


class Answer(NamedTuple):
  """What a client got.

  Attributes:
    status: status of the answer, or the name of what went wrong; 0 if the
      client did not wait.
    retry: seconds after which it may come again.
    detail: text of the answer.
  """

  status: str
  retry: float = 0.0
  detail: str = ''


async def send(port: int, kind: Kind, body: bytes | None) -> Answer:
  """Sends a request; returns its answer, or the name of what went wrong."""
  form = b'--%s--\r\n' % _BORDER
  if body is not None:
    named = b'Content-Disposition: form-data; name="image"; filename="x"'
    form = b'--%s\r\n%s\r\n\r\n%s\r\n%s' % (_BORDER, named, body, form)
  head = b'POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n'
  head += b'Content-Type: multipart/form-data; boundary=%s\r\n' % _BORDER
  head += b'Content-Length: %d\r\n\r\n' % (kind.length or len(form))
  chunks = [head, form]
  if kind.length:
    chunks = [head]  # it is refused before anything of it is sent
  elif kind.seconds:
    size = len(form) // 9 + 1
    chunks = [head, *(form[i : i + size] for i in range(0, len(form), size))]
  elif not kind.status:
    chunks = [head, form[: len(form) // 2]]
  try:
    return await exchange(port, chunks, kind.seconds / 10, bool(kind.status))
  except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
    return Answer(type(error).__name__)


def get(path: str) -> bytes:
  """Returns a request without a body."""
  return b'GET %s HTTP/1.1\r\nConnection: close\r\n\r\n' % path.encode()


async def exchange(
  port: int, chunks: Sequence[bytes], pause: float = 0.0, stays: bool = True
) -> Answer:
  """Sends chunks with pauses; returns the answer, '0' if it does not stay."""
  async with asyncio.timeout(_ANSWER_S):
    reader, writer = await asyncio.open_connection('127.0.0.1', port)
    try:
      for chunk in chunks:
        writer.write(chunk)
        await writer.drain()
        await asyncio.sleep(pause)
      if not stays:
        return Answer('0')
      head = (await reader.readuntil(b'\r\n\r\n')).decode()
      detail = (await reader.read()).decode(errors='replace')
    finally:
      writer.close()
  retry = re.search(r'retry-after: (\d+)', head, re.IGNORECASE)
  return Answer(head.split()[1], float(retry[1]) if retry else 0.0, detail)
