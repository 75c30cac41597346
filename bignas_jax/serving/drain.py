"""A LitServer that answers all requests under way before it ends."""

import contextlib
import multiprocessing.process
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import litserve

# Kubernetes kills 30 s after SIGTERM; the other processes need some of that.
_ANSWERS_S = 20
_CLOSING_S = 0.3  # in which uvicorn closes its sockets; it looks every 0.1 s


class Server(litserve.LitServer):
  """LitServe's server, with an end that loses no answer.

  LitServe closes the way from the child to the HTTP server first, so that the
  requests under way would never be answered.
  """

  def __init__(self, *arguments: Any, **named: Any):
    super().__init__(*arguments, **named)
    self.uvicorn_graceful_timeout = _ANSWERS_S
    self._listening: Sequence[socket.socket] = ()

  def _start_server(
    self,
    port: int,
    number: int,
    log: str,
    sockets: Any,
    kind: str,
    **named: Any,
  ) -> Any:
    self._listening = sockets
    return super()._start_server(port, number, log, sockets, kind, **named)

  def _perform_graceful_shutdown(
    self,
    manager: Any,
    uvicorn_workers: Mapping[Any, Any],
    shutdown_reason: str = 'normal',
  ) -> None:
    self._start_no_worker_again()
    self._drain([*uvicorn_workers.values()])
    # LitServe has to end no other process then than the child's.
    super()._perform_graceful_shutdown(manager, {}, shutdown_reason)

  def _start_no_worker_again(self) -> None:
    """Ends LitServe's thread that starts a worker again when it has died.

    The main thread was interrupted while it waited for this event, and its
    connection to the event is of no use any more: another thread has its own.
    """
    event: Any = self._shutdown_event
    setting = threading.Thread(target=event.set, daemon=True)
    setting.start()
    setting.join(1)

  def _drain(
    self, processes: Sequence[multiprocessing.process.BaseProcess]
  ) -> None:
    """Ends the processes that answer HTTP after their last answers."""
    for one in processes:
      one.terminate()
    time.sleep(_CLOSING_S)
    # Other processes inherited these; as long as one is open, Linux lets
    # clients connect.
    for listening in self._listening:
      with contextlib.suppress(OSError):  # it was never listened to
        listening.shutdown(socket.SHUT_RDWR)
    end = time.monotonic() + _ANSWERS_S + 2
    for one in processes:
      one.join(max(0, end - time.monotonic()))
      if one.is_alive():
        one.kill()
