"""Recovery of a run: checks of its metrics, rollbacks, evaluations it owes.

A rollback is written down, and then the run starts again from the newest
checkpoint of its lineage. The step it goes back to, and the draws it skips,
depend on the steps alone, not on when the run was stopped or which files were
damaged; so a run that is killed meanwhile ends with equal parameters.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from etils import epath

from bignas_jax.policies.policies import Child
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import metrics, rollbacks
from bignas_jax.runs.checkpoints import SaveFailed
from bignas_jax.runs.config import Config
from bignas_jax.runs.rollbacks import Rollback
from bignas_jax.system import cluster, console, files
from bignas_jax.training import divergence
from bignas_jax.training.divergence import Diverged
from bignas_jax.values import errors

# A step's metrics are checked this many steps later, so that the devices always
# have a next step to run.
_LAG = 2

_ADVICE = (
  'lower schedule.peak, clip gradients (optimizer.clip_value) or allow more '
  'recovery.tries, in a new work directory'
)


class Lineage:
  """The lineage of one run: the steps and the draws that led to its state.

  Args:
    config: config of the run.
    workdir: directory of the run.

  Raises:
    Failed: the run has given up before.
    UserError: `rollbacks.json` is damaged.
  """

  def __init__(self, config: Config, workdir: epath.Path):
    self._config, self._workdir = config, workdir
    read = cluster.once(lambda: rollbacks.to_json(rollbacks.read(workdir)))
    self._rollbacks = rollbacks.of_json(read)
    self._check()
    self.start({})

  def start(self, notes: dict[str, Any]) -> None:
    """Starts to watch from a checkpoint's notes; {} stands for step 0."""
    recovery = self._config.recovery
    self._detector = divergence.Detector(
      1 / config_lib.space(self._config).classes,
      recovery.window,
      recovery.remains,
      notes.get('watch'),
    )
    self._waiting: list[tuple[int, list[Child], list[dict[str, Any]]]] = []

  def notes(self) -> dict[str, Any]:
    """Returns notes for a checkpoint of the last step that `settle` checked."""
    return {
      'rollbacks': rollbacks.to_json(self._rollbacks),
      'watch': self._detector.memory(),
    }

  def draws(self, step: int) -> Iterator[int]:
    """Yields the draws of the updates after a number of updates."""
    return rollbacks.draws(self._rollbacks, step)

  def look(
    self, step: int, children: list[Child], measured: list[dict[str, Any]]
  ) -> None:
    """Stores the metrics of a step, and checks those of earlier steps.

    Raises:
      Diverged: an earlier step shows that training has diverged.
    """
    for number in jax.tree.leaves(_looked_at(children, measured)):
      number.copy_to_host_async()
    self._waiting.append((step, children, measured))
    while len(self._waiting) > _LAG:
      self._look(*self._waiting.pop(0))

  def settle(self) -> None:
    """Checks all stored metrics; a checkpoint is saved only after that.

    Raises:
      Diverged: a step shows that training has diverged.
    """
    while self._waiting:
      self._look(*self._waiting.pop(0))

  def _look(self, step, children, measured) -> None:
    losses, norms, top1, weight_norm = jax.device_get(
      _looked_at(children, measured)
    )
    roles = [child.role for child in children]
    of_children = zip(roles, map(float, losses), map(float, norms), strict=True)
    watched = roles[_watched(children)]
    self._detector.look(step, of_children, float(top1), watched, weight_norm)

  def roll_back(self, trouble: Diverged) -> None:
    """Records the step to go back to and the draws to skip.

    Raises:
      Failed: after too many tries.
    """
    config = self._config
    to = target(trouble, config.checkpoint_every, config.keep_checkpoints)
    draw = rollbacks.draw(self._rollbacks, trouble.step - 1) + 1
    new = Rollback(trouble.step, to, draw, trouble.reason)
    cluster.same('rollback', new, new)
    self._rollbacks = (*self._rollbacks, new)
    cluster.once(lambda: rollbacks.write(self._workdir, self._rollbacks))
    self._check()
    console.say(f'warning: {trouble}; going back to step {to}')

  def _check(self) -> None:
    """Raises Failed if there are more rollbacks than the config allows."""
    if not self._rollbacks:
      return
    last = self._rollbacks[-1]
    tried = [one for one in self._rollbacks if one.to >= last.to]
    if len(tried) <= self._config.recovery.tries:
      return
    raise errors.Failed(
      f'training diverged {_times(len(tried))} after step {last.to}, the last '
      f'time since {last.reason} at step {last.at}; what was saved until step '
      f'{last.to} is intact: {_ADVICE}',
      {
        'workdir': str(self._workdir),
        'step': last.to,
        'rollbacks': rollbacks.to_json(tried),
      },
    )


def target(trouble: Diverged, every: int, keep: int) -> int:
  """Returns the last scheduled checkpoint before the trouble, to go back to.

  Args:
    trouble: the divergence that was detected.
    every: number of steps between scheduled checkpoints.
    keep: number of scheduled checkpoints that exist; a run never goes back to
      an older one.

  Returns:
    A multiple of `every`; 0 is the start of training.
  """
  last = (trouble.step - 1) // every * every
  oldest = max(0, last - (keep - 1) * every)
  before = max(0, trouble.step - 1 - trouble.late) // every * every
  return max(before, oldest)


def owes_evaluation(config: Config, workdir: epath.Path, step: int) -> bool:
  """Returns whether the run stopped between a checkpoint and its evaluation."""
  if not step or (step < config.steps and step % config.eval_every):
    return False
  return not cluster.once(lambda: _was_evaluated(workdir, step))


def _was_evaluated(workdir: epath.Path, step: int) -> bool:
  return any(
    line['step'] == step and any(name.startswith('eval/') for name in line)
    for line in metrics.read(workdir)
  )


def _looked_at(
  children: Sequence[Child], measured: Sequence[dict[str, Any]]
) -> tuple:
  """Returns (losses, norms of gradients, watched top-1, norm of parameters)."""
  *of_children, of_update = measured
  losses, norms = (
    [numbers[name] for numbers in of_children] for name in ('loss', 'grad_norm')
  )
  top1 = of_children[_watched(children)]['top1']
  return losses, norms, top1, of_update.get('weight_norm')


def _watched(children: Sequence[Child]) -> int:
  """Returns the position of the biggest child, or 0 where there is none."""
  roles = [child.role for child in children]
  return roles.index('biggest') if 'biggest' in roles else 0


def _times(number: int) -> str:
  return 'once' if number == 1 else f'{number} times'


@contextlib.contextmanager
def full_disk_as_failed(
  workdir: epath.Path, again: str = 'to go on from the last checkpoint'
) -> Iterator[None]:
  """Raises Failed, which is shown as one line, where a disk is full.

  Args:
    workdir: directory of the run.
    again: what the command will do when it is started again.

  Raises:
    Failed: a file could not be written; files that existed before are intact.
  """
  try:
    yield
  except (SaveFailed, OSError) as error:
    if isinstance(error, OSError) and not files.no_room(error):
      raise
    text = str(error)
    if isinstance(error, OSError):
      text = f'no room for {error.filename or workdir}: {files.reason(error)}'
    raise errors.Failed(
      f'{text}; make room and start again, {again}',
      {'workdir': str(workdir)},
    ) from error
