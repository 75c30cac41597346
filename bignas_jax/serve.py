"""python -m bignas_jax.serve: serves a child package over HTTP."""

import contextlib
import dataclasses
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from absl import flags
from etils import epath

from bignas_jax import cli
from bignas_jax.system import console, extras, files, locks, staging, storage
from bignas_jax.system import digests as digests_lib
from bignas_jax.values import errors, schema

# Repeated from modules that need JAX, which this process does not.
_INFO, _ARTIFACT = 'child.json', 'model.onnx'
_NEEDED = {'input', 'data', 'classes'}  # of child.json
_ERROR = 'error: '  # what a command's last line begins with if it fails
_EXPORT_S = 600.0  # how long to wait for another process that exports
_MAX_PIXELS = 2**27  # of an image; a small PNG may hold any number


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Input:
  """The images that a child takes."""

  image_size: schema.Natural
  channels: Literal[1, 3]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Data:
  """The crop of images in evaluation."""

  eval_crop: schema.PositiveShare


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Served:
  """The fields of `child.json` that a service reads."""

  input: _Input
  data: _Data
  classes: schema.Natural
  class_names: tuple[str, ...] | None = None


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Serves until it is stopped; returns the child and its address."""
  given = _given(arguments)
  child = str(given.child)
  needed = 'litserve', 'onnxruntime', 'python_multipart', 'prometheus_client'
  extras.load('--child', child, 'serve', *needed)
  if storage.in_bucket(given.child):
    allowed = 'a directory on this machine'
    raise errors.UserError('--child', child, allowed)
  with _readable(given.child):
    info = _info(given.child)
  _check_free(given.host, given.port)
  with _readable(given.child):
    artifact = _artifact(given.child, given.data)
  os.environ['OPENCV_IO_MAX_IMAGE_PIXELS'] = str(_MAX_PIXELS)  # read on import
  from bignas_jax.serving import server as server_lib

  server = server_lib.server(
    str(artifact),
    info,
    max_batch_size=given.max_batch,
    batch_timeout=given.wait_ms / 1000,
    max_pixels=_MAX_PIXELS,
    max_queue=given.max_queue,
    workers=given.workers,
    origins=given.allow_origin,
  )
  _check_free(given.host, given.port)  # exporting may have taken a while
  _end_on_signal()
  console.say(f'http://{given.host}:{given.port}')
  server.run(
    host=given.host,
    port=given.port,
    num_api_servers=1,
    log_level='warning',
    generate_client_file=False,
  )
  return {'child': child, 'host': given.host, 'port': given.port}


def _given(arguments: Sequence[str]) -> Any:
  """Returns the values of the flags."""
  given = cli.parse(
    'serve',
    'Serves a child: POST /predict takes an image, GET /health says whether it '
    'lives, GET /ready whether it takes another image, GET /metrics is for '
    'Prometheus, GET / is a page to drop an image on. SIGTERM ends it after '
    'its last answer.',
    _define,
    arguments,
  )
  for origin in given.allow_origin:
    if not re.fullmatch(r'\*|https?://[^/\s]+', origin):
      allowed = 'a scheme and a host, such as https://example.org, or *'
      raise errors.UserError('--allow_origin', origin, allowed)
  return given


def _define(values: flags.FlagValues) -> None:
  cli.child(values, required=True)
  cli.data(values)
  text = 'who may ask: this machine, or anyone who reaches it'
  hosts = ['127.0.0.1', '0.0.0.0', '::']
  flags.DEFINE_enum('host', hosts[0], hosts, text, flag_values=values)
  port = Annotated[int, schema.Meta(ge=1024, le=65535)]
  cli.number(values, port, 'port', 8000, 'to listen on')
  text = 'images that run together'
  cli.number(values, schema.Natural, 'max_batch', 32, text)
  text = 'images that may wait for an answer; those that come then get 503'
  cli.number(values, schema.Natural, 'max_queue', 256, text)
  text = 'processes that run the child, each with a copy of it'
  cli.number(values, schema.Natural, 'workers', 1, text)
  wait = Annotated[float, schema.Meta(ge=0, le=10_000)]
  text = 'how long an image waits for others, milliseconds'
  cli.number(values, wait, 'wait_ms', 2.0, text)
  text = (
    'another site whose pages may ask, such as https://example.org, or * for '
    'all'
  )
  flags.DEFINE_multi_string('allow_origin', [], text, flag_values=values)


def _check_free(host: str, port: int) -> None:
  """Raises UserError if the port is not free."""
  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  try:
    with socket.socket(family) as trial:
      trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      trial.bind((host, port))
  except OSError as error:
    allowed = f'a port that is free ({error.strerror})'
    raise errors.UserError('--port', port, allowed) from None


def _end_on_signal() -> None:
  """Turns SIGTERM into Ctrl-C, the only signal that ends LitServe's processes.

  Processes that it forks inherit the handler, but have their own. A second
  signal changes nothing: the service ends already.
  """
  own, ends = os.getpid(), False

  def end(number: int, frame: object) -> None:
    nonlocal ends
    del number, frame
    if os.getpid() == own and not ends:
      ends = True
      raise KeyboardInterrupt

  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, end)


@contextlib.contextmanager
def _readable(child: epath.Path) -> Iterator[None]:
  """Raises UserError, naming the file, where something cannot be read."""
  try:
    yield
  except OSError as error:
    path = str(error.filename or child)
    allowed = f'a child whose files can be read, unlike {path}'
    reason = error.strerror or type(error).__name__
    raise errors.UserError('--child', reason, allowed) from None


def _info(child: epath.Path) -> dict[str, Any]:
  """Returns the contents of `child.json`; `export` checks the rest."""
  path = child / _INFO
  if not path.exists():
    allowed = f'a child package, with {_INFO} in it'
    raise errors.UserError('--child', str(child), allowed)
  info = files.read_json(path)
  if not set(info) >= _NEEDED:
    raise errors.UserError(str(path), 'something else', 'a child of `extract`')
  schema.convert(_Served, files.finite(info), f'{path}:', others=True)
  return info


def _artifact(child: epath.Path, data: str) -> epath.Path:
  """Returns the child's artifact for its service; exports it if needed.

  Args:
    child: directory of the child package.
    data: directory of the child's data; '': where they were.
  """
  service = child / 'service'
  allowed = 'a child that no other process is exporting'
  with locks.hold(child, '--child', allowed, wait_s=_EXPORT_S):
    if not _fresh(child, service):
      _export(child, service, data)
  return service / _ARTIFACT


def _export(child: epath.Path, service: epath.Path, data: str) -> None:
  """Runs `export`, which needs JAX, in a process of its own.

  Raises:
    UserError: there is no JAX here, or the export has failed; then its error
      line is quoted, and other output is passed on.
  """
  if importlib.util.find_spec('jax') is None:
    allowed = (
      'a child that was exported where JAX is: python -m bignas_jax.export '
      f'--child={child} --format=onnx --preprocess --out={service}'
    )
    raise errors.UserError('--child', str(child), allowed)
  console.say(f'{service}: exporting, and comparing with the child')
  command = ['-m', 'bignas_jax.export', '--format=onnx', '--preprocess']
  options = [f'--child={child}', f'--out={service}', f'--data={data}']
  with subprocess.Popen(
    [sys.executable, *command, *options],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
    errors='replace',
  ) as exporting:
    try:
      _, said = exporting.communicate()
    except BaseException:
      exporting.terminate()  # it cleans up, and this waits for it
      raise
  *_, last = ['', *said.splitlines()]
  if exporting.returncode and last.startswith(_ERROR):
    raise errors.UserError.quoted(last.removeprefix(_ERROR))
  print(said, end='', file=sys.stderr, flush=True)
  if exporting.returncode:
    allowed = 'one that can be exported, see above'
    raise errors.UserError('--child', str(child), allowed)


def _fresh(child: epath.Path, service: epath.Path) -> bool:
  """Returns whether the service's artifact is intact and of this child."""
  path = service / staging.MANIFEST
  manifest = files.read_json(path) if path.is_file() else {}
  try:
    digests = {
      child / name: sha256
      for name, sha256 in manifest['child']['sha256'].items()
    }
    for name, facts in manifest['formats']['onnx']['files'].items():
      digests[service / name] = facts['sha256']
    usable = manifest['format'] == staging.FORMAT
    usable = usable and manifest['input']['preprocess'] is True
    return usable and all(
      path.is_file() and digests_lib.digest(path) == sha256
      for path, sha256 in digests.items()
    )
  except (KeyError, TypeError, AttributeError):
    return False  # no manifest of that kind: it is replaced


if __name__ == '__main__':
  cli.run(main, keeps_memory=False)
