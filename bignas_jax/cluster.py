"""The processes of one run: joining, telling them apart, waiting.

Every process computes the same children of the same steps; one of them, the
leader, writes what is one file for all.
"""

import os

import jax
from jax.experimental import multihost_utils

from bignas_jax import errors

_ADDRESS, _COUNT, _INDEX = (
  'JAX_COORDINATOR_ADDRESS',
  'JAX_NUM_PROCESSES',
  'JAX_PROCESS_ID',
)


def join() -> None:
  """Joins the run's other processes; before anything else of JAX.

  JAX_COORDINATOR_ADDRESS=host:port, JAX_NUM_PROCESSES and JAX_PROCESS_ID say
  who they are (`launch/local_pod.sh` sets them); the address `auto` asks the
  cluster, on Cloud TPU for one. Without an address the process is alone.

  Raises:
    UserError: a number is missing or none.
  """
  address = os.environ.get(_ADDRESS)
  if not address or jax.distributed.is_initialized():
    return
  if address == 'auto':
    del os.environ[_ADDRESS]  # JAX would take it for a host
    jax.distributed.initialize()
    return
  numbers = {name: os.environ.get(name, '') for name in (_COUNT, _INDEX)}
  for name, value in numbers.items():
    if not value.isdecimal():
      raise errors.UserError(name, value, f'a number, beside {_ADDRESS}')
  jax.distributed.initialize(
    address,
    num_processes=int(numbers[_COUNT]),
    process_id=int(numbers[_INDEX]),
  )


def leads() -> bool:
  """Whether this process writes what is written once."""
  return jax.process_index() == 0


def wait(name: str) -> None:
  """Until every process has come to this point of the program."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)
