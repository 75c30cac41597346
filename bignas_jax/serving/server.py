"""An HTTP service of a child, by LitServe, that classifies images.

LitServe divides the work between processes. One receives requests and crops
images as evaluation does, so that data which are no image are refused before
they join a batch. Another gathers images into batches and runs the child's ONNX
artifact. Requests and images are admitted by their sizes (`admission`) before
they are read or decoded.
"""

import math
import os
import pathlib
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import fastapi
import litserve
import numpy as np
import onnxruntime
from fastapi import concurrency, responses, routing
from fastapi.middleware import cors

from bignas_jax.data import decode, headers, transforms
from bignas_jax.serving import admission, drain, service_metrics
from bignas_jax.system import files
from bignas_jax.values import structs

TOP = 5  # classes in an answer
MAX_BYTES = 32 * 2**20  # of a request
_BYTES_AT_ONCE = 8 * MAX_BYTES  # of all requests
_WAIT_S = 10.0  # that a request or an image waits for others
_BODY_S = 60.0  # in which a request must arrive
_ANSWER_S = 120.0  # in which it must be answered
_PAGE = pathlib.Path(__file__).with_name('server.html')


async def received(
  request: fastapi.Request, image: Annotated[bytes, fastapi.File()]
) -> AsyncIterator[np.ndarray]:
  """Yields the image that was sent, as evaluation sees images.

  The image has its place in the queue until it is answered. It waits until the
  images that are being decoded leave it enough memory.

  Args:
    request: its application knows what the child takes.
    image: an encoded image, a field of a form.

  Yields:
    uint8 [size, size, channels].

  Raises:
    HTTPException: 400 if the data are no image, 413 if the image is too large,
      503 if the queue is full or other images were not decoded in time.
  """
  state = request.app.state
  with state.queue.place():
    async with state.pixels.hold(state.prepare.pixels(image)):
      pixels = await concurrency.run_in_threadpool(state.prepare, image)
    yield pixels


class Prepare:
  """A function from encoded images to the input of the artifact.

  Args:
    info: content of `child.json`.
    max_pixels: largest number of pixels of an image; the size of a file does
      not limit it.
  """

  def __init__(self, info: dict[str, Any], max_pixels: int):
    self._max_pixels = max_pixels
    given = info['input']
    self._size, self._channels = given['image_size'], given['channels']
    self._crop = info['data']['eval_crop']

  def pixels(self, encoded: bytes) -> int:
    """Returns the number of pixels of an image, or the limit if it is unknown.

    The limit is safe for any format, because OpenCV decodes no more pixels.

    Raises:
      HTTPException: 413 if the image has too many pixels.
    """
    count = headers.pixels(encoded)
    return self._max_pixels if count is None else self._checked(count)

  def _checked(self, count: int) -> int:
    if count > self._max_pixels:
      text = f'an image of more than {self._max_pixels} pixels'
      raise fastapi.HTTPException(413, text)
    return count

  def __call__(self, encoded: bytes) -> np.ndarray:
    """Decodes an image to uint8 [size, size, channels].

    Raises:
      HTTPException: 400 if the data are no whole image, 413 if the image is too
        large.
    """
    try:
      image = decode.open_image(encoded, self._channels)
      self._checked(math.prod(image.shape[:2]))
      return transforms.centre(image, self._size, crop=self._crop)
    except decode.Damaged:
      raise fastapi.HTTPException(400, 'not a whole image') from None


class Api(litserve.LitAPI):
  """The steps in which LitServe handles requests, batch by batch.

  Args:
    artifact: file that `export --format=onnx --preprocess` wrote.
    names: names of the classes.
    max_batch_size: largest number of images in a batch.
    batch_timeout: seconds that the first image waits for others.
    threads: threads that run the child; 0: as many as there are cores.
  """

  def __init__(
    self,
    artifact: str,
    names: Sequence[str],
    max_batch_size: int,
    batch_timeout: float,
    threads: int = 0,
  ):
    super().__init__(max_batch_size=max_batch_size, batch_timeout=batch_timeout)
    self._artifact, self._names = artifact, list(names)
    self._threads = threads

  def setup(self, device: str) -> None:
    """Loads the artifact into ONNX Runtime, once in each worker."""
    del device
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = self._threads
    self._session = onnxruntime.InferenceSession(
      self._artifact, options, providers=['CPUExecutionProvider']
    )

  def decode_request(
    self, request: Annotated[np.ndarray, fastapi.Depends(received)]
  ) -> np.ndarray:
    """Returns the image that `received` has made from a request."""
    return request

  def batch(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """Stacks images into a batch."""
    return np.stack(inputs)

  def predict(self, x: np.ndarray) -> np.ndarray:
    """Returns logits [batch, classes], or [classes] for an image alone."""
    alone = x.ndim == 3
    given = {'images': x[None] if alone else x}
    (logits,) = self._session.run(['logits'], given)
    outputs = np.asarray(logits)
    return outputs[0] if alone else outputs

  def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
    """Returns the logits of each image of a batch."""
    return list(output)

  def encode_response(self, output: np.ndarray) -> dict[str, Any]:
    """Returns the answer to a request, the likeliest classes of its image."""
    return {'classes': ranked(output, self._names)}


def ranked(logits: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
  """Returns the likeliest classes, at most TOP, the likeliest first.

  Args:
    logits: [classes].
    names: names of the classes.
  """
  powers = np.exp(logits.astype(np.float64) - logits.max())
  shares = powers / powers.sum()
  order = np.argsort(-shares, kind='stable')[:TOP]
  return [
    {'class': int(i), 'name': names[i], 'probability': float(shares[i])}
    for i in order
  ]


def names(info: dict[str, Any]) -> list[str]:
  """Returns a name for each of a child's outputs.

  An output without a name is called by its number. That happens if the space
  has more classes than the data, or if the package is older than class names.

  Args:
    info: content of `child.json`.
  """
  given = info.get('class_names') or []
  numbers = range(len(given), info['classes'])
  return [*map(sendable, given), *map(str, numbers)][: info['classes']]


def sendable(value: Any) -> Any:
  """Returns a JSON value that an answer can hold: in UTF-8, without NaN."""
  return structs.encodable(files.finite(value))


def server(
  artifact: str,
  info: dict[str, Any],
  *,
  max_batch_size: int,
  batch_timeout: float,
  max_pixels: int,
  max_queue: int,
  workers: int = 1,
  origins: Sequence[str] = (),
) -> drain.Server:
  """Returns a server with `/predict`, what describes it, and a page at `/`.

  Args:
    artifact: an ONNX file that takes uint8 images.
    info: content of `child.json`.
    max_batch_size: largest number of images that run together.
    batch_timeout: seconds that the first image of a batch waits for others.
    max_pixels: largest number of pixels of an image, and of all images that are
      decoded at once.
    max_queue: largest number of images that have come and are not answered.
    workers: processes that run the child, each with a copy of it.
    origins: origins of other sites whose pages may send requests, such as
      https://example.org.
  """
  threads = 0 if workers == 1 else max(1, (os.cpu_count() or 1) // workers)
  api = Api(artifact, names(info), max_batch_size, batch_timeout, threads)
  shown = {
    name: sendable(info.get(name))
    for name in ('space', 'arch', 'macs', 'params', 'accuracy', 'input')
  }
  queue = admission.Queue(max_queue)
  metrics = service_metrics.Metrics(queue)
  made = drain.Server(
    api,
    accelerator='cpu',
    workers_per_device=workers,
    fast_queue=True,
    middlewares=_middlewares(origins, metrics),
    model_metadata=shown | {'class_names': names(info)},
    restart_workers=True,
  )
  state = made.app.state
  state.prepare, state.queue = Prepare(info, max_pixels), queue
  state.pixels = admission.Budget(max_pixels, _WAIT_S)
  made.app.router.routes[:0] = [  # before LitServe's own
    routing.APIRoute(
      '/', lambda: _PAGE.read_text(), response_class=responses.HTMLResponse
    ),
    routing.APIRoute('/metrics', metrics.page),
    routing.APIRoute('/ready', lambda: ready(queue)),
  ]
  return made


def ready(queue: admission.Queue) -> responses.PlainTextResponse:
  """Returns the answer to `GET /ready`: whether another image is taken."""
  if queue.full:
    return responses.PlainTextResponse('full', 503, admission.RETRY)
  return responses.PlainTextResponse('ready')


def _middlewares(
  origins: Sequence[str], metrics: service_metrics.Metrics
) -> list[Any]:
  """Returns the middlewares; a request passes the last one first."""
  limits = {
    'most': MAX_BYTES,
    'budget': admission.Budget(_BYTES_AT_ONCE, _WAIT_S),
    'within_s': _BODY_S,
    'answer_s': _ANSWER_S,
  }
  passed: list[Any] = [(admission.Requests, limits)]
  if origins:  # browsers keep other sites out unless they are told
    passed.append((cors.CORSMiddleware, {'allow_origins': list(origins)}))
  return [*passed, (service_metrics.Counted, {'metrics': metrics})]
