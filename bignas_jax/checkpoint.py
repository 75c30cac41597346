"""Saving and restoring training state with Orbax."""

from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from bignas_jax import errors, storage

Tree = Any


class Checkpoints:
  """The checkpoints of one run, in `WORKDIR/checkpoints/STEP`.

  Args:
    workdir: of the run.
    keep: how many of the newest stay.
  """

  def __init__(self, workdir: epath.Path, keep: int = 3):
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep, create=True, enable_async_checkpointing=True
    )
    directory = storage.absolute(workdir / 'checkpoints')
    self._manager = _Manager(directory, options=options)

  def latest(self) -> int | None:
    """The newest complete step, or None."""
    return self._manager.latest_step()

  def save(self, step: int, state: Tree) -> None:
    """Starts to save; the arrays may be overwritten once this returns."""
    # A copy: the next step reuses the buffers that it is given (donation),
    # while Orbax still writes in the background.
    if step not in self._manager.all_steps():
      state = jax.tree.map(jnp.copy, state)
      self._manager.save(step, args=ocp.args.StandardSave(state))

  def restore(self, step: int, like: Tree) -> Tree:
    """The state of a step, in the shapes and shardings of `like`."""
    return self._manager.restore(step, args=ocp.args.StandardRestore(like))

  def close(self) -> None:
    """Waits for the last save to be complete."""
    self._manager.wait_until_finished()
    self._manager.close()


class _Manager(ocp.CheckpointManager):
  """One that saves when it is told to, and does not ask about signals.

  Orbax would ask JAX by the number of the step; training asks by the number
  of its calls (`cluster.StopRequest`), and JAX takes both for one count.
  """

  def reached_preemption(self, step: int) -> bool:
    del step
    return False


def restore_params(workdir: epath.Path, like: Tree, name: str) -> tuple:
  """(step, one entry of the newest checkpoint), without the optimiser's.

  Args:
    workdir: of the run.
    like: shapes and shardings of that entry.
    name: `params` or `ema`.

  Raises:
    UserError: there is no checkpoint.
  """
  directory = storage.absolute(workdir / 'checkpoints')
  if not directory.is_dir():
    raise errors.UserError(
      'workdir', str(workdir), 'a directory that training has checkpointed in'
    )
  with ocp.CheckpointManager(directory) as manager:
    step = manager.latest_step()
    if step is None:
      raise errors.UserError(
        'workdir', str(workdir), 'a directory with a complete checkpoint'
      )
    item = {name: like}
    restored = manager.restore(
      step,
      args=ocp.args.PyTreeRestore(
        item=item,
        restore_args=ocp.checkpoint_utils.construct_restore_args(item),
        partial_restore=True,
      ),
    )
  return step, jax.block_until_ready(restored[name])
