"""This process: which of a run's it is, and what it may use, without JAX.

Commands ask before they print, and some of them never import JAX.
"""

import os
import threading

_index: int | None = None  # None: alone


def joined_as(index: int) -> None:
  """Says once which one it is, among however many (`cluster.join`)."""
  global _index
  _index = index


def joined() -> bool:
  """Whether there are other processes, or might have been."""
  return _index is not None


def leads() -> bool:
  """Whether this process writes what is written once."""
  return not _index


def label() -> str:
  """What the lines of this process begin with; the leader's, with nothing."""
  return '' if leads() else f'[{_index}] '


def leave(status: int, grace_s: float = 5) -> None:
  """Before an exit after an error, which the others may not know of.

  JAX's exit waits minutes for all processes to come to theirs. So they do if
  they have failed alike; if they have not, this process ends with `status`
  after a moment, and the others learn of it from its closed connections.
  """
  if joined():
    timer = threading.Timer(grace_s, os._exit, [status])
    timer.daemon = True
    timer.start()


def cores() -> int:
  """Returns how many CPUs this process may use.

  Linux alone says which those are; elsewhere it may use all.
  """
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
