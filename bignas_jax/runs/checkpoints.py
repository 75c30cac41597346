"""Saving and restoring of training state with Orbax.

A checkpoint counts if it is complete (`digests`) and if it belongs to the
lineage of the run (`rollbacks`). The leader reads the directory and tells the
other processes.
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from bignas_jax.runs import rollbacks
from bignas_jax.system import cluster, console, digests, files, process, storage
from bignas_jax.values import errors

Tree = Any
# In names of directories that are not checkpoints: half-written by Orbax, or
# about to be deleted (`_remove`).
_UNFINISHED, _REMOVED = '.orbax-checkpoint-tmp', '.removed'
_POLL_S = 0.005


def _is_news(record: logging.LogRecord) -> bool:
  """Returns whether to log a record: what we say, Orbax need not log."""
  error = record.exc_info[1] if record.exc_info else None
  return not (error and (files.no_room(error) or process.out_of_reach(error)))


logging.getLogger('absl').addFilter(_is_news)


class SaveFailed(Exception):
  """The error of a checkpoint without room; earlier checkpoints are intact."""


class Checkpoints:
  """The checkpoints of one run, in `WORKDIR/checkpoints/STEP`.

  Opening them cleans the directory: unfinished checkpoints of killed runs and
  checkpoints that a rollback abandoned are removed, and damaged checkpoints are
  moved to `WORKDIR/damaged`.

  Args:
    workdir: work directory of the run.
    keep: number of newest checkpoints to keep, and number of newest scheduled
      checkpoints to keep.
    every: number of steps between scheduled checkpoints.

  Raises:
    UserError: `rollbacks.json` is damaged.
  """

  def __init__(self, workdir: epath.Path, keep: int = 3, every: int = 1):
    process.ignore_closed_loops()
    self._directory = place(workdir)
    cluster.once(lambda: _put_in_order(workdir))
    options = ocp.CheckpointManagerOptions(
      create=True,
      enable_async_checkpointing=True,
      preservation_policy=rollbacks.Preserve(keep, every),
      async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
    )
    self._manager = _Manager(self._directory, options=options)
    self._saving: tuple[int | None, dict[str, Any]] = (None, {})

  def latest(self) -> int | None:
    """Returns the newest step that has a checkpoint that counts, or None."""
    return cluster.once(self._manager.latest_step)

  def notes(self, step: int) -> dict[str, Any]:
    """Returns the notes that were saved with the state of a step."""
    path = self._directory / str(step)
    return cluster.once(lambda: digests.read(path)) or {}

  def save(
    self, step: int, state: Tree, notes: dict[str, Any] | None = None
  ) -> None:
    """Starts to save; the arrays may be overwritten once this returns.

    Args:
      step: step without a checkpoint.
      state: finite training state, of arrays on devices or on the host.
      notes: plain JSON values, which `notes` returns.

    Raises:
      SaveFailed: there was no room for this checkpoint or for the one before.
    """
    with self._room():
      self._manager.wait()
      self._saving = step, notes or {}
      # A copy: the next step reuses the buffers that it is given (donation),
      # while Orbax still writes in the background.
      state = jax.tree.map(lambda leaf: leaf.copy(), state)
      self._manager.save(step, args=ocp.args.StandardSave(state))

  def check(self) -> None:
    """Raises SaveFailed if there was no room for the last checkpoint.

    It does not wait for a save in progress, and costs nothing if all is well.
    """
    with self._room():
      self._manager.check()

  def restore(self, step: int, like: Tree) -> Tree:
    """Returns the state of a step in the shapes and shardings of `like`."""
    return self._manager.restore(step, args=ocp.args.StandardRestore(like))

  def close(self) -> None:
    """Waits for the last save to be complete.

    Raises:
      SaveFailed: there was no room for the last checkpoint.
    """
    with self._room():
      self._manager.wait()
      self._manager.close()

  def _seal(self) -> None:
    """Writes the manifest of a checkpoint before it gets its final name.

    Orbax calls this when all files lie in a directory of the checkpoint's own.
    """
    step, notes = self._saving
    final = self._directory / str(step)
    # In a bucket nothing can be renamed: the directory has its final name.
    unnamed = next(self._directory.glob(f'{step}.*'), final)
    digests.seal(unnamed, notes)

  @contextlib.contextmanager
  def _room(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:
      if not files.no_room(error):
        raise
      raise SaveFailed(
        f'no room for checkpoint {self._saving[0]} in {self._directory}: '
        f'{files.reason(error)}'
      ) from error


class _Manager(ocp.CheckpointManager):
  """A checkpoint manager that saves when told to, and ignores signals.

  Orbax would ask JAX about a signal by the number of the step. Training asks by
  the number of its calls (`stopping.StopRequest`), and JAX takes both for one
  count.

  A process that cannot write its part of a checkpoint raises its error at once.
  Orbax 0.12 would first let it wait for the others, and them for it, in vain.
  """

  _failure: BaseException | None = None

  def save(self, *arguments: Any, **named: Any) -> bool:
    try:
      return super().save(*arguments, **named)
    except BaseException as error:
      self._failure = error  # Orbax takes the save to be still in progress
      raise

  def _finalize(self, *arguments: Any) -> None:
    """Ends a save, in a thread of Orbax's."""
    try:
      self._non_blocking_metadata_store.wait_until_finished()
      self._wait_for_checkpointers()
    except BaseException as error:
      self._failure = error
      raise
    super()._finalize(*arguments)

  def check(self) -> None:
    """Raises the error of the last save, if it has one; does not wait."""
    if self._failure is not None:
      raise self._failure
    if not self.is_saving_in_progress():
      self.wait_until_finished()

  def wait(self) -> None:
    """Waits for the last save to be complete; raises its error."""
    while self.is_saving_in_progress():
      self.check()
      time.sleep(_POLL_S)
    self.check()

  def reached_preemption(self, step: int) -> bool:
    del step
    return False


def place(workdir: epath.Path) -> epath.Path:
  """Returns the directory of a run's checkpoints."""
  return storage.absolute(epath.Path(workdir) / 'checkpoints')


def steps(workdir: epath.Path) -> list[int]:
  """Returns the steps of a run's complete checkpoints, damaged or not."""
  directory = place(workdir)
  if not directory.is_dir():
    return []
  names = [path.name for path in directory.iterdir() if path.is_dir()]
  return sorted(int(name) for name in names if name.isdecimal())


def _put_in_order(workdir: epath.Path) -> None:
  """Clears the directory of unfinished, abandoned and damaged checkpoints.

  Checkpoints older than the newest that counts are not examined.
  """
  directory = place(workdir)
  directory.mkdir(parents=True, exist_ok=True)
  # In a bucket an empty directory does not exist.
  for path in directory.iterdir() if directory.is_dir() else ():
    if _UNFINISHED in path.name or path.name.endswith(_REMOVED):
      path.rmtree()
  _, damaged, left = _newest(workdir)
  for step in left:
    _remove(directory / str(step))
  for step in damaged:
    kept = directory.parent / 'damaged' / str(step)
    kept.parent.mkdir(exist_ok=True)
    if kept.exists():
      kept.rmtree()
    (directory / str(step)).rename(kept)
    console.say(f'warning: moved checkpoint {step} to {kept}')


def _remove(path: epath.Path) -> None:
  """Renames a checkpoint before deleting it, so that a kill leaves no half."""
  path.rename(path.with_name(path.name + _REMOVED)).rmtree()


def _newest(
  workdir: epath.Path,
) -> tuple[int | None, list[int], list[int]]:
  """Returns the newest step that counts, and newer damaged and abandoned steps.

  Raises:
    UserError: a checkpoint was saved after other rollbacks than the run's.
  """
  directory, went = place(workdir), rollbacks.read(workdir)
  damaged, left = [], []
  for step in reversed(steps(workdir)):
    wrong = digests.damage(directory / str(step))
    if wrong is not None:
      console.say(f'warning: checkpoint {step} is damaged: {wrong}')
      damaged.append(step)
      continue
    notes = digests.read(directory / str(step)) or {}
    then = rollbacks.of_json(notes.get('rollbacks', []))
    if then != went[: len(then)]:
      raise errors.UserError(
        str(workdir / rollbacks.NAME),
        [one.at for one in went],
        f'the rollbacks that checkpoint {step} was saved after',
      )
    if rollbacks.lead_to(went, step, len(then)):
      return step, damaged, left
    left.append(step)
  return None, damaged, left


def restore_params(workdir: epath.Path, like: Tree, name: str) -> tuple:
  """Returns the newest step that counts and one entry of its checkpoint.

  Args:
    workdir: work directory of the run; nothing in it is changed.
    like: shapes and shardings of the entry.
    name: name of the entry, `params` or `ema`.

  Raises:
    UserError: there is no checkpoint that counts.
  """

  def look() -> int:
    step, *_ = _newest(workdir)
    if step is None:
      allowed = 'a directory with a complete checkpoint'
      raise errors.UserError('workdir', str(workdir), allowed)
    return step

  step = cluster.once(look)
  return step, jax.block_until_ready(read_entry(workdir, step, like, name))


def read_entry(workdir: epath.Path, step: int, like: Tree, name: str) -> Tree:
  """Returns one entry of a checkpoint, in NumPy if `like` is unsharded."""
  with ocp.CheckpointManager(place(workdir)) as manager:
    item = {name: like}
    how = ocp.checkpoint_utils.construct_restore_args(item)
    wanted = ocp.args.PyTreeRestore(item, how, partial_restore=True)
    return manager.restore(step, args=wanted)[name]
