"""Limits on what a service takes at once: images, bytes, pixels.

A request that exceeds a limit by itself is refused (413). A request that
exceeds it only together with others is refused, too (503, with Retry-After): at
once if too many images wait already, after a while if it is too large beside
the others. So the memory that a service takes does not grow with the number of
clients.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, MutableMapping
from typing import Any

import fastapi
from fastapi import responses

Message = MutableMapping[str, Any]  # an ASGI message or scope
RETRY = {'Retry-After': '1'}  # seconds


class Budget:
  """An amount of which several tasks of one event loop may hold parts.

  Args:
    most: largest amount that all tasks together may hold at once.
    wait_s: seconds that a task waits for its part at most.
  """

  def __init__(self, most: int, wait_s: float):
    self._most, self._wait_s = most, wait_s
    self._held = 0
    self._waiting: set[asyncio.Future[None]] = set()

  @contextlib.asynccontextmanager
  async def hold(self, amount: int) -> AsyncIterator[None]:
    """Holds a part in the context, after waiting until it is free.

    A part of `most` or more is held alone.

    Raises:
      HTTPException: 503 if the part was not free in time.
    """
    amount = min(amount, self._most)
    try:
      async with asyncio.timeout(self._wait_s):
        while self._held + amount > self._most:
          await self._change()
    except TimeoutError:
      raise fastapi.HTTPException(
        503, 'too much at once; try again later', RETRY
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
    """Waits until another task has released a part."""
    one = asyncio.get_running_loop().create_future()
    self._waiting.add(one)
    try:
      await one
    finally:
      self._waiting.discard(one)


class Queue:
  """A bounded number of images that have come and are not answered yet.

  Args:
    most: largest number of images.
  """

  def __init__(self, most: int):
    self.most, self.length = most, 0

  @property
  def full(self) -> bool:
    """Returns whether there is no place for another image."""
    return self.length >= self.most

  @contextlib.contextmanager
  def place(self) -> Iterator[None]:
    """Holds the place of one image in the context.

    Raises:
      HTTPException: 503 if there is no place.
    """
    if self.full:
      text = f'{self.most} images are waiting; try again later'
      raise fastapi.HTTPException(503, text, RETRY)
    self.length += 1
    try:
      yield
    finally:
      self.length -= 1


class Requests:
  """An ASGI middleware that admits requests by the size of their bodies.

  A Content-Length is checked against the limits before the body is read, and
  counts towards the budget until the request is answered.

  Args:
    app: the ASGI application that gets the admitted requests.
    most: largest size of a body, in bytes.
    budget: budget of all bodies together, in bytes.
    within_s: seconds in which a body must arrive.
    answer_s: seconds in which a request must be answered.
  """

  def __init__(
    self,
    app: Any,
    *,
    most: int,
    budget: Budget,
    within_s: float,
    answer_s: float,
  ):
    self._app, self._most, self._budget = app, most, budget
    self._within_s, self._answer_s = within_s, answer_s

  async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
    if scope['type'] != 'http':
      await self._app(scope, receive, send)
      return
    length = self._length(scope)
    try:
      if length > self._most:
        raise fastapi.HTTPException(413, f'more than {self._most} bytes')
      async with self._budget.hold(length), self._in_time():
        await self._app(scope, self._bounded(receive), send)
    except fastapi.HTTPException as error:
      await responses.JSONResponse(
        {'detail': error.detail}, error.status_code, error.headers
      )(scope, receive, send)

  @contextlib.asynccontextmanager
  async def _in_time(self) -> AsyncIterator[None]:
    """Gives a request up whose answer never comes: its worker has died.

    Raises:
      HTTPException: 504 if the request was not answered in time.
    """
    try:
      async with asyncio.timeout(self._answer_s):
        yield
    except TimeoutError:
      raise fastapi.HTTPException(504, 'it took too long') from None

  def _length(self, scope: Message) -> int:
    """Returns the size of the body in bytes.

    A chunked body has no length, so it counts as the largest one allowed.
    """
    headers = dict(scope['headers'])
    if b'transfer-encoding' in headers:
      return self._most
    return int(headers.get(b'content-length', 0))

  def _bounded(self, receive: Any) -> Any:
    """Returns a `receive` that limits the size and the time of a body.

    Raises:
      HTTPException: raised by the result: 408 if the body arrives too slowly,
        413 if it is too large.
    """
    size, more = 0, True
    end = asyncio.get_running_loop().time() + self._within_s

    async def counted() -> Message:
      nonlocal size, more
      if not more:
        return await receive()  # the message that the client has gone
      try:
        async with asyncio.timeout_at(end):
          message = await receive()
      except TimeoutError:
        raise fastapi.HTTPException(408, 'it came too slowly') from None
      size += len(message.get('body', b''))
      more = message.get('more_body', False)
      if size > self._most:
        raise fastapi.HTTPException(413, f'more than {self._most} bytes')
      return message

    return counted
