"""The processes of one run: joining and agreeing.

Every process computes the same children of the same steps; one of them, the
leader, writes what is one file for all. What one process alone knows (its
arguments, what it reads, a signal) is made known to all before it matters:
processes that go separate ways wait for each other forever.
"""

import hashlib
import json
import os
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from bignas_jax.system import process
from bignas_jax.values import errors

T = TypeVar('T')

_ADDRESS, _COUNT, _INDEX = (
  'JAX_COORDINATOR_ADDRESS',
  'JAX_NUM_PROCESSES',
  'JAX_PROCESS_ID',
)
_AUTO = 'auto'
# A process that vanished is noticed by the others after so long, if nothing
# faster tells them (JAX waits for 100 s).
_HEARTBEAT_S = 60
_TEXT_BYTES = 2048  # a broadcast has one shape, whatever it says
_FINE, _USER_ERROR, _FAILED = range(3)


def join(preemptible: bool = False) -> None:
  """Joins the run's other processes; before anything else of JAX.

  JAX_COORDINATOR_ADDRESS=host:port, JAX_NUM_PROCESSES and JAX_PROCESS_ID say
  who they are (`launch/local_pod.sh` sets them); the address `auto` asks the
  cluster, on Cloud TPU for one. Without an address the process is alone.

  Args:
    preemptible: whether SIGTERM, from now on, is only noted for
      `StopRequest`, instead of ending the process.

  Raises:
    UserError: of those variables.
  """
  address = os.environ.get(_ADDRESS)
  if not jax.distributed.is_initialized():
    if not address:
      return
    jax.config.update('jax_enable_preemption_service', preemptible)
    _initialize(address)
  process.joined_as(jax.process_index())


def _initialize(address: str) -> None:
  if address == _AUTO:
    del os.environ[_ADDRESS]  # JAX would take it for a host
    try:
      jax.distributed.initialize(heartbeat_timeout_seconds=_HEARTBEAT_S)
    except ValueError as error:
      raise errors.UserError(
        _ADDRESS, _AUTO, f'host:port; no cluster that JAX knows ({error})'
      ) from None
    return
  count, index = _places(address)
  jax.distributed.initialize(
    address,
    num_processes=count,
    process_id=index,
    heartbeat_timeout_seconds=_HEARTBEAT_S,
  )


def _places(address: str) -> tuple[int, int]:
  """The number of processes and this one's, checked."""
  host, _, port = address.rpartition(':')
  if not host or not port.isdecimal():
    raise errors.UserError(_ADDRESS, address, f'host:port, or {_AUTO}')
  numbers = {name: os.environ.get(name, '') for name in (_COUNT, _INDEX)}
  for name, value in numbers.items():
    if not value.isdecimal():
      raise errors.UserError(name, value, f'a number, beside {_ADDRESS}')
  count, index = int(numbers[_COUNT]), int(numbers[_INDEX])
  if index >= count:
    raise errors.UserError(_INDEX, index, f'a number below {_COUNT}={count}')
  return count, index


def refuse(what: str) -> None:
  """For a command that several processes would only do over each other.

  Raises:
    UserError: this process is one of several.
  """
  address, count = os.environ.get(_ADDRESS), os.environ.get(_COUNT)
  if address and (address == _AUTO or count != '1'):
    raise errors.UserError(
      _ADDRESS, address, f'none: {what} is done by one process'
    )


def once(action: Callable[[], Any]) -> Any:
  """Has the leader do it while the others wait; if it fails, all fail.

  What several processes read from one file is read this way too: on a disk of
  a network they may see different versions of it.

  Returns:
    What it returned, in every process; JSON can hold it.

  Raises:
    UserError: the leader's, in every process.
    RuntimeError: in the others, when the leader raised anything else.
  """
  failure, text = None, 'null'
  if process.leads():
    try:
      text = json.dumps(action())
    except Exception as error:
      failure = error  # raised below, once the others know
      text = _said(error)
  if process.joined():
    kind, text = _from_leader(_kind(failure), text)
    if failure is None and kind != _FINE:
      _fail(kind, text, 'the first process')
  if failure is not None:
    raise failure
  return json.loads(text)


def each(action: Callable[[], T]) -> T:
  """Has every process do it, apart; if it fails in one, all fail.

  Without this, the others would wait for the one that has failed, and end with
  an error of their connections. The action must not wait for other processes.

  Returns:
    What it returned in this process.

  Raises:
    UserError: this process's; or the first one's that raised one.
    RuntimeError: when another process raised anything else.
  """
  failure, value = None, None
  try:
    value = action()
  except Exception as error:
    if not process.joined():
      raise
    failure = error  # raised below, once the others know
  for i, text in enumerate(answers(f'{_kind(failure)}{_said(failure)}')):
    if failure is None and text[0] != str(_FINE):
      _fail(int(text[0]), text[1:], f'process {i}')
  if failure is not None:
    raise failure
  return value  # pyright: ignore[reportReturnType]


def _kind(failure: Exception | None) -> int:
  if failure is None:
    return _FINE
  return _USER_ERROR if isinstance(failure, errors.UserError) else _FAILED


def _said(failure: Exception | None) -> str:
  """What the others are told of a failure."""
  if failure is None:
    return ''
  user = isinstance(failure, errors.UserError)
  return str(failure) if user else f'{type(failure).__name__}: {failure}'


def _fail(kind: int, text: str, whose: str) -> NoReturn:
  """Raises what another process has raised."""
  if kind == _USER_ERROR:
    raise errors.UserError.quoted(f'{text} (in {whose})')
  raise RuntimeError(f'{whose} failed: {text}')


def _from_leader(kind: int, text: str) -> tuple[int, str]:
  """A number and a text of the leader's, as every process is told."""
  content = text.encode()
  header = np.array([kind, len(content)], np.int32)
  kind, size = np.asarray(multihost_utils.broadcast_one_to_all(header))
  # Few different shapes, each of which is a program.
  room = max(_TEXT_BYTES, 1 << int(size - 1).bit_length())
  message = np.zeros(room, np.uint8)
  if process.leads():
    message[:size] = np.frombuffer(content, np.uint8)
  told = np.asarray(multihost_utils.broadcast_one_to_all(message))
  return int(kind), told[:size].tobytes().decode()


def answers(text: str) -> list[str]:
  """What every process says, in their order; long texts are cut."""
  if not process.joined():
    return [text]
  content = text.encode()[:_TEXT_BYTES].ljust(_TEXT_BYTES, b'\0')
  message = np.frombuffer(content, np.uint8)
  gathered = np.asarray(multihost_utils.process_allgather(message))
  return [
    row.tobytes().rstrip(b'\0').decode(errors='replace')
    for row in gathered.reshape(-1, _TEXT_BYTES)
  ]


def same(field: str, shown: Any, value: Any) -> None:
  """Checks that every process has this value, by its `repr`.

  Args:
    field: what it is called.
    shown: stands for the value in the complaint.
    value: anything.

  Raises:
    UserError: in every process, if one differs.
  """
  first, *others = answers(hashlib.sha256(repr(value).encode()).hexdigest())
  odd = [i for i, other in enumerate(others, 1) if other != first]
  if odd:
    which = ', '.join(map(str, odd))
    raise errors.UserError(
      field, shown, f'what process 0 has; another in process {which}'
    )
