"""This process's place in a run and the CPUs it may use, without JAX.

Commands need the place before they print, and some commands never import JAX.
"""

import os
import threading

_index: int | None = None  # None: alone


def joined_as(index: int) -> None:
  """Records this process's index in its run; `cluster.join` calls it once."""
  global _index
  _index = index


def joined() -> bool:
  """Returns whether this process has joined a run, perhaps a run of one."""
  return _index is not None


def leads() -> bool:
  """Returns whether this process is the leader, which writes shared files."""
  return not _index


def label() -> str:
  """Returns the prefix of this process's output lines; '' for the leader."""
  return '' if leads() else f'[{_index}] '


def leave(status: int, grace_s: float = 5) -> None:
  """Makes sure that this process, which has failed, ends after a few seconds.

  JAX's exit waits minutes for all processes to exit. If all have failed alike,
  they do so soon. If the others do not know of the failure, this process ends
  with `status` after `grace_s` seconds, and they notice its closed connections.
  A process that runs alone is not affected.
  """
  if joined():
    timer = threading.Timer(grace_s, os._exit, [status])
    timer.daemon = True
    timer.start()


def cores() -> int:
  """Returns how many CPUs this process may use.

  Only Linux reports that number; elsewhere it is taken to be all CPUs.
  """
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
