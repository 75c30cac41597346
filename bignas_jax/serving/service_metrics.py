"""What a service counts of itself, in the form that Prometheus reads."""

import time
from typing import Any

import prometheus_client
from fastapi import responses

from bignas_jax.serving import admission

# Paths that are counted by their names; any other is `other`, so that requests
# for paths that do not exist cannot fill the memory.
PREDICT = '/predict'
PATHS = PREDICT, '/health', '/ready', '/info', '/metrics', '/'
_GONE = '499'  # the client has gone before there was an answer
_SECONDS = (
  *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
  *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)


class Metrics:
  """The counters of one service.

  Args:
    queue: the queue of images; its length is shown.
  """

  def __init__(self, queue: admission.Queue):
    prometheus_client.disable_created_metrics()  # a time beside each counter
    registry = self._registry = prometheus_client.CollectorRegistry()
    self._requests = prometheus_client.Counter(
      'bignas_requests',
      'Requests that were answered, by path and status (499: client gone).',
      ['path', 'status'],
      registry=registry,
    )
    self._seconds = prometheus_client.Histogram(
      'bignas_request_seconds',
      'Seconds from the head of a request for /predict to the end of its '
      'answer, by status.',
      ['status'],
      buckets=_SECONDS,
      registry=registry,
    )
    self._images = prometheus_client.Counter(
      'bignas_images', 'Images that were classified.', registry=registry
    )
    length = prometheus_client.Gauge(
      'bignas_queue_length',
      'Images that have come and are not answered yet.',
      registry=registry,
    )
    length.set_function(lambda: queue.length)
    most = prometheus_client.Gauge(
      'bignas_queue_limit',
      'Images in the queue from which on requests get 503.',
      registry=registry,
    )
    most.set(queue.most)
    # Of the process that answers HTTP: memory, processor, open files.
    prometheus_client.ProcessCollector(registry=registry)

  def answered(self, path: str, status: str, seconds: float) -> None:
    """Counts a request."""
    shown = path if path in PATHS else 'other'
    self._requests.labels(shown, status).inc()
    if path == PREDICT:
      self._seconds.labels(status).observe(seconds)
      if status == '200':
        self._images.inc()

  def page(self) -> responses.Response:
    """Returns the answer to `GET /metrics`."""
    text = prometheus_client.generate_latest(self._registry)
    kind = prometheus_client.CONTENT_TYPE_LATEST
    return responses.Response(text, headers={'Content-Type': kind})


class Counted:
  """An ASGI middleware that counts requests and their seconds.

  Args:
    app: the ASGI application that answers them.
    metrics: counts them.
  """

  def __init__(self, app: Any, *, metrics: Metrics):
    self._app, self._metrics = app, metrics

  async def __call__(
    self, scope: admission.Message, receive: Any, send: Any
  ) -> None:
    if scope['type'] != 'http':
      await self._app(scope, receive, send)
      return
    began, status = time.perf_counter(), _GONE

    async def noted(message: admission.Message) -> None:
      nonlocal status
      if message['type'] == 'http.response.start':
        status = str(message['status'])
      await send(message)

    try:
      await self._app(scope, receive, noted)
    except Exception:
      status = '500'  # what uvicorn answers
      raise
    finally:
      seconds = time.perf_counter() - began
      self._metrics.answered(scope['path'], status, seconds)
