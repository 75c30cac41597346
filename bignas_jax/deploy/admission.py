"""How much a service takes at once: bytes of requests, pixels of images.

What is too much for itself is refused (413); what is too much beside others
waits for a while, and is then refused (503). So the memory that a service
takes does not depend on how many ask.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import fastapi
from fastapi import responses

Message = MutableMapping[str, Any]  # of ASGI, likewise `scope` below


class Budget:
  """An amount of which several may hold parts, in one event loop.

  Args:
    most: held at once by all together.
    wait_s: seconds that one waits for its part at most.
  """

  def __init__(self, most: int, wait_s: float):
    self._most, self._wait_s = most, wait_s
    self._held = 0
    self._waiting: set[asyncio.Future[None]] = set()

  @contextlib.asynccontextmanager
  async def hold(self, amount: int) -> AsyncIterator[None]:
    """Holds a part, once it is free; one of all or more is held alone.

    Raises:
      HTTPException: 503, it was not free in time.
    """
    amount = min(amount, self._most)
    try:
      async with asyncio.timeout(self._wait_s):
        while self._held + amount > self._most:
          await self._change()
    except TimeoutError:
      raise fastapi.HTTPException(
        503, 'too much at once; try again later', {'Retry-After': '1'}
      ) from None
    self._held += amount
    try:
      yield
    finally:
      self._held -= amount
      for one in self._waiting:
        if not one.done():
          one.set_result(None)

  async def _change(self) -> None:
    """Waits until someone has let go of a part."""
    one = asyncio.get_running_loop().create_future()
    self._waiting.add(one)
    try:
      await one
    finally:
      self._waiting.discard(one)


class Requests:
  """Lets requests in, by the bytes of their bodies: a middleware of ASGI.

  A length that is said is held against the limits before anything is read, and
  counts as long as the request is under way.

  Args:
    app: which is asked next.
    most: bytes of a body.
    budget: of all bodies together, bytes.
    within_s: seconds in which a body must have come.
  """

  def __init__(self, app: Any, *, most: int, budget: Budget, within_s: float):
    self._app, self._most, self._budget = app, most, budget
    self._within_s = within_s

  async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
    if scope['type'] != 'http':
      await self._app(scope, receive, send)
      return
    length = self._length(scope)
    try:
      if length > self._most:
        raise fastapi.HTTPException(413, f'more than {self._most} bytes')
      async with self._budget.hold(length):
        await self._app(scope, self._bounded(receive), send)
    except fastapi.HTTPException as error:
      await responses.JSONResponse(
        {'detail': error.detail}, error.status_code, error.headers
      )(scope, receive, send)

  def _length(self, scope: Message) -> int:
    """Bytes of the body; as many as are allowed, if they are not said."""
    headers = dict(scope['headers'])
    if b'transfer-encoding' in headers:
      return self._most
    return int(headers.get(b'content-length', 0))

  def _bounded(self, receive: Any) -> Any:
    """Counts what comes, and how long it takes."""
    seen, more = 0, True
    end = asyncio.get_running_loop().time() + self._within_s

    async def counted() -> Message:
      nonlocal seen, more
      if not more:
        return await receive()  # that the client has gone
      try:
        async with asyncio.timeout_at(end):
          message = await receive()
      except TimeoutError:
        raise fastapi.HTTPException(408, 'it came too slowly') from None
      seen += len(message.get('body', b''))
      more = message.get('more_body', False)
      if seen > self._most:
        raise fastapi.HTTPException(413, f'more than {self._most} bytes')
      return message

    return counted
