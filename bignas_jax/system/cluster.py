"""The processes of one run: how they join and how they agree.

Every process computes the same children in the same steps. One process, the
leader, writes the files that exist once per run. A fact that only one process
knows (its arguments, what it reads, a signal) is sent to all processes before
any of them acts on it: processes that take different branches would wait for
each other forever.
"""

import hashlib
import json
import os
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from bignas_jax.system import process, signals
from bignas_jax.values import errors

T = TypeVar('T')

_ADDRESS, _COUNT, _INDEX = (
  'JAX_COORDINATOR_ADDRESS',
  'JAX_NUM_PROCESSES',
  'JAX_PROCESS_ID',
)
_AUTO = 'auto'
# Most seconds until the others notice a process that vanished or hangs, if
# nothing faster tells them (JAX's default is 100). They have ended in a minute.
_HEARTBEAT_S = 45
_TEXT_BYTES = 2048  # the arrays that processes exchange need one shape
_FINE, _USER_ERROR, _FAILED = range(3)


def join(preemptible: bool = False) -> None:
  """Joins the other processes of the run; call it before any other use of JAX.

  The environment variables JAX_COORDINATOR_ADDRESS=host:port, JAX_NUM_PROCESSES
  and JAX_PROCESS_ID describe the processes (`launch/local_pod.sh` sets them).
  The address `auto` makes JAX ask the cluster, for example Cloud TPU. Without
  an address the process runs alone.

  Args:
    preemptible: whether SIGTERM, from now on, is only recorded for
      `StopRequest` instead of ending the process.

  Raises:
    UserError: one of the environment variables has a wrong value.
  """
  address = os.environ.get(_ADDRESS)
  if not jax.distributed.is_initialized():
    if not address:
      return
    jax.config.update('jax_enable_preemption_service', preemptible)
    _initialize(address)
    signals.on_abort(process.abandoned)
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
  """Returns the number of processes and this one's index, both checked.

  Raises:
    UserError: the address or one of the two numbers is wrong.
  """
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
  """Raises UserError if this is one of several processes.

  It protects commands in which several processes would overwrite each other's
  files.

  Args:
    what: the command, as the message names it.

  Raises:
    UserError: this process is one of several.
  """
  address, count = os.environ.get(_ADDRESS), os.environ.get(_COUNT)
  if address and (address == _AUTO or count != '1'):
    raise errors.UserError(
      _ADDRESS, address, f'none: {what} is done by one process'
    )


def once(action: Callable[[], Any]) -> Any:
  """Runs an action in the leader while the others wait; all fail if it fails.

  Use it also to read a file that several processes need: on a network disk they
  may see different versions of it.

  Returns:
    The action's result, in every process; it must be encodable as JSON.

  Raises:
    UserError: the leader raised it; it is raised in every process.
    RuntimeError: the leader raised any other exception; it is raised in the
      other processes.
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
  """Runs an action in every process on its own; all fail if one fails.

  Without this, the other processes would wait for the one that failed and end
  with a connection error. The action must not wait for other processes.

  Returns:
    The action's result in this process.

  Raises:
    UserError: the action raised it in this process, or else in the first
      process that failed.
    RuntimeError: the action raised another exception in the first process that
      failed.
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
  """Returns the text that tells other processes of a failure; '' for None."""
  if failure is None:
    return ''
  user = isinstance(failure, errors.UserError)
  return str(failure) if user else f'{type(failure).__name__}: {failure}'


def _fail(kind: int, text: str, whose: str) -> NoReturn:
  """Raises an error that stands for one in another process."""
  if kind == _USER_ERROR:
    raise errors.UserError.quoted(f'{text} (in {whose})')
  raise RuntimeError(f'{whose} failed: {text}')


def _from_leader(kind: int, text: str) -> tuple[int, str]:
  """Returns the leader's number and text, in every process."""
  content = text.encode()
  header = np.array([kind, len(content)], np.int32)
  kind, size = np.asarray(multihost_utils.broadcast_one_to_all(header))
  # A power of two: each different shape compiles another program.
  room = max(_TEXT_BYTES, 1 << int(size - 1).bit_length())
  message = np.zeros(room, np.uint8)
  if process.leads():
    message[:size] = np.frombuffer(content, np.uint8)
  received = np.asarray(multihost_utils.broadcast_one_to_all(message))
  return int(kind), received[:size].tobytes().decode()


def answers(text: str) -> list[str]:
  """Returns the texts of all processes, in their order.

  A text of more than 2,048 bytes is cut off there, if there are several
  processes.
  """
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
  """Checks that every process has an equal value, by its `repr`.

  Args:
    field: name of the value in a message.
    shown: what a message shows in place of the value.
    value: anything.

  Raises:
    UserError: the value of some process differs; raised in every process.
  """
  first, *others = answers(hashlib.sha256(repr(value).encode()).hexdigest())
  odd = [i for i, other in enumerate(others, 1) if other != first]
  if odd:
    which = ', '.join(map(str, odd))
    raise errors.UserError(
      field, shown, f'what process 0 has; another in process {which}'
    )
