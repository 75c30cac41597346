"""Saving and restoring training state with Orbax.

A checkpoint counts if it is whole (`digests`) and on the way that the run has
gone (`rollbacks`). Of several processes the first one looks, and tells.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from bignas_jax.runs import rollbacks
from bignas_jax.system import cluster, console, digests, files, storage
from bignas_jax.values import errors

Tree = Any
# Of directories that are no checkpoints: Orbax's, half-written, and ours.
_UNFINISHED, _REMOVED = '.orbax-checkpoint-tmp', '.removed'


def _is_news(record: logging.LogRecord) -> bool:
  """Whether nobody else will say it: Orbax logs what it also raises."""
  error = record.exc_info[1] if record.exc_info else None
  return error is None or not files.no_room(error)


logging.getLogger('absl').addFilter(_is_news)


class SaveFailed(Exception):
  """There was no room for a checkpoint; earlier ones are intact."""


class Checkpoints:
  """The checkpoints of one run, in `WORKDIR/checkpoints/STEP`.

  Opening them puts the directory in order: what killed runs left half-done or
  took back is removed, damaged checkpoints are moved to `WORKDIR/damaged`.

  Args:
    workdir: of the run.
    keep: how many of the newest stay, and how many of the newest scheduled.
    every: steps between scheduled ones.

  Raises:
    UserError: `rollbacks.json` is damaged.
  """

  def __init__(self, workdir: epath.Path, keep: int = 3, every: int = 1):
    self._directory = _directory(workdir)
    cluster.once(lambda: _put_in_order(workdir))
    options = ocp.CheckpointManagerOptions(
      create=True,
      enable_async_checkpointing=True,
      preservation_policy=_Preserve(keep, every),
      async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
    )
    self._manager = _Manager(self._directory, options=options)
    self._saving: tuple[int | None, dict[str, Any]] = (None, {})

  def latest(self) -> int | None:
    """The newest step that counts, or None."""
    return cluster.once(self._manager.latest_step)

  def notes(self, step: int) -> dict[str, Any]:
    """What was saved beside the state of a step."""
    path = self._directory / str(step)
    return cluster.once(lambda: digests.read(path)) or {}

  def save(
    self, step: int, state: Tree, notes: dict[str, Any] | None = None
  ) -> None:
    """Starts to save; the arrays may be overwritten once this returns.

    Args:
      step: that nothing has been saved for.
      state: finite.
      notes: plain JSON values, for `notes`.

    Raises:
      SaveFailed: there was no room for this one or the one before.
    """
    with self._room():
      self._manager.wait_until_finished()
      self._saving = step, notes or {}
      # A copy: the next step reuses the buffers that it is given (donation),
      # while Orbax still writes in the background.
      state = jax.tree.map(jnp.copy, state)
      self._manager.save(step, args=ocp.args.StandardSave(state))

  def check(self) -> None:
    """Costs nothing while all goes well.

    Raises:
      SaveFailed: there was no room for the last one.
    """
    if not self._manager.is_saving_in_progress():
      with self._room():
        self._manager.wait_until_finished()

  def restore(self, step: int, like: Tree) -> Tree:
    """The state of a step, in the shapes and shardings of `like`."""
    return self._manager.restore(step, args=ocp.args.StandardRestore(like))

  def close(self) -> None:
    """Waits for the last save to be complete.

    Raises:
      SaveFailed: there was no room for it.
    """
    with self._room():
      self._manager.wait_until_finished()
      self._manager.close()

  def _seal(self) -> None:
    """Called when all files of a checkpoint lie under a name of its own."""
    step, notes = self._saving
    final = self._directory / str(step)
    # Where nothing can be renamed, in a bucket, that is the final one.
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
  """One that saves when it is told to, and does not ask about signals.

  Orbax would ask JAX by the number of the step; training asks by the number
  of its calls (`stopping.StopRequest`), and JAX takes both for one count.
  """

  def reached_preemption(self, step: int) -> bool:
    del step
    return False


class _Preserve(NamedTuple):
  """Orbax's `PreservationPolicy`: which of the checkpoints stay.

  What signals made a run save does not push out the scheduled checkpoints,
  which a rollback goes to.
  """

  keep: int
  every: int

  def should_preserve(
    self, checkpoints: Sequence[Any], *, context: Any
  ) -> list[bool]:
    del context
    steps = [one.step for one in checkpoints]  # in order
    scheduled = [step for step in steps if step % self.every == 0]
    stay = {*scheduled[-self.keep :], *steps[-self.keep :]}
    return [step in stay for step in steps]


def _directory(workdir: epath.Path) -> epath.Path:
  return storage.absolute(epath.Path(workdir) / 'checkpoints')


def _steps(directory: epath.Path) -> list[int]:
  if not directory.is_dir():
    return []
  names = [path.name for path in directory.iterdir() if path.is_dir()]
  return sorted(int(name) for name in names if name.isdecimal())


def _put_in_order(workdir: epath.Path) -> None:
  """Leaves checkpoints that count, and older ones that nobody looked at."""
  directory = _directory(workdir)
  directory.mkdir(parents=True, exist_ok=True)
  # In a bucket an empty directory is not there.
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
  """At once for whoever looks, even if this process is killed on the way."""
  path.rename(path.with_name(path.name + _REMOVED)).rmtree()


def _newest(
  workdir: epath.Path,
) -> tuple[int | None, list[int], list[int]]:
  """The newest step that counts; damaged ones after it; those left behind."""
  directory, went = _directory(workdir), rollbacks.read(workdir)
  damaged, left = [], []
  for step in reversed(_steps(directory)):
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
  """(step, one entry of the newest checkpoint), without the optimiser's.

  Args:
    workdir: of the run; nothing in it is changed.
    like: shapes and shardings of that entry.
    name: `params` or `ema`.

  Raises:
    UserError: there is no checkpoint that counts.
  """

  def look() -> int:
    step, *_ = _newest(workdir)
    if step is None:
      raise errors.UserError(
        'workdir', str(workdir), 'a directory with a complete checkpoint'
      )
    return step

  step = cluster.once(look)
  with ocp.CheckpointManager(_directory(workdir)) as manager:
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
