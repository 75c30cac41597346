"""MLflow and Weights & Biases: each a run that can be opened again.

Nothing leaves the machine, unless MLFLOW_TRACKING_URI names a server: MLflow
writes to a database in the work directory, Weights & Biases to files there,
which `wandb sync` sends. Both packages are imported late, since that takes
seconds.
"""

import logging
import os
import time
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from etils import epath

from bignas_jax.system import extras

PROJECT = 'bignas_jax'
_MOST_TEXT = 500  # characters of a value; what MLflow's oldest servers take


class TrackedRun(NamedTuple):
  """What a tracker is told of our run.

  Attributes:
    workdir: work directory.
    name: name for a person.
    tags: digest of the config; after a rollback, the tracker's run before.
    config: all fields of the config.
  """

  workdir: epath.Path
  name: str
  tags: dict[str, str]
  config: dict[str, Any]


class Client(Protocol):
  """An open run of a tracker."""

  id: str

  def last(self) -> dict[str, int]:
    """Returns the last step that the tracker has, by name of the metric."""
    ...

  def write(self, step: int, values: dict[str, float]) -> None:
    """Writes values of a step, each under its name."""

  def close(self, status: str, reason: str = '') -> None:
    """Ends the run: `finished`, `stopped` or, for a reason, `rolled back`."""


def load(name: str) -> Any:
  """Returns the package of a tracker.

  Raises:
    UserError: it is not installed; the message says how to install it.
  """
  if name == 'mlflow':
    os.environ.setdefault('MLFLOW_DISABLE_TELEMETRY', 'true')
    needed = 'mlflow', 'sqlalchemy', 'alembic'
    (package, *_) = extras.load('trackers', name, 'mlflow', *needed)
    logging.getLogger('mlflow').setLevel(logging.WARNING)
    logging.getLogger('alembic').setLevel(logging.WARNING)
    return package
  os.environ.setdefault('WANDB_ERROR_REPORTING', 'false')
  (package,) = extras.load('trackers', name, 'wandb', 'wandb')
  return package


class Mlflow:
  """A run of MLflow.

  Args:
    run: our run.
    earlier: id of the run to continue; None: a new run.
  """

  def __init__(self, run: TrackedRun, earlier: str | None):
    self._mlflow = load('mlflow')
    local = f'sqlite:///{os.path.abspath(run.workdir)}/mlflow.db'
    uri = os.environ.get('MLFLOW_TRACKING_URI') or local
    self._client = self._mlflow.MlflowClient(uri, registry_uri=uri)
    if earlier is not None:
      self.id = earlier
      self._client.update_run(earlier, status='RUNNING')
      return
    experiment = self._client.get_experiment_by_name(PROJECT)
    number = (
      self._client.create_experiment(PROJECT)
      if experiment is None
      else experiment.experiment_id
    )
    made = self._client.create_run(number, tags=run.tags, run_name=run.name)
    self.id = made.info.run_id
    entities = self._mlflow.entities
    fields = [entities.Param(*field) for field in _flat(run.config)]
    for at in range(0, len(fields), 100):  # the most that it takes at once
      self._client.log_batch(self.id, params=fields[at : at + 100])

  def last(self) -> dict[str, int]:
    """Returns the last step of each metric in the database."""
    names = self._client.get_run(self.id).data.metrics
    return {
      name: max(m.step for m in self._client.get_metric_history(self.id, name))
      for name in names
    }

  def write(self, step: int, values: dict[str, float]) -> None:
    """Writes values of a step."""
    now, metric = int(1000 * time.time()), self._mlflow.entities.Metric
    written = [metric(name, values[name], now, step) for name in values]
    self._client.log_batch(self.id, metrics=written)

  def close(self, status: str, reason: str = '') -> None:
    """Ends the run; a reason becomes the tag `rolled_back`."""
    if reason:
      self._client.set_tag(self.id, 'rolled_back', reason)
    ended = 'FINISHED' if status == 'finished' else 'KILLED'
    self._client.set_terminated(self.id, ended)


_PATIENCE_S = 600.0


class Wandb:
  """A run of Weights & Biases, in files.

  Each session writes files of its own. They have the same id, so that
  `wandb sync` makes one run of them.

  Args:
    run: our run.
    earlier: id of the run to continue; None: a new run.
  """

  def __init__(self, run: TrackedRun, earlier: str | None):
    wandb = load('wandb')
    self.id = earlier or uuid.uuid4().hex[:8]
    settings = wandb.Settings(
      console='off',
      silent=True,
      disable_code=True,
      disable_git=True,
      disable_job_creation=True,
      x_disable_stats=True,
      # Where training has all processors, its own process may take longer to
      # start than the 30 seconds that it is given, and then has no metrics.
      x_service_wait=_PATIENCE_S,
      init_timeout=_PATIENCE_S,
    )
    self._run = wandb.init(
      project=PROJECT,
      id=self.id,
      name=run.name,
      notes='; '.join(f'{name} {text}' for name, text in run.tags.items()),
      config=run.config,
      dir=os.fspath(run.workdir),
      mode='offline',
      settings=settings,
    )

  def last(self) -> dict[str, int]:
    """Returns nothing: what the files hold can only be read by its server."""
    return {}

  def write(self, step: int, values: dict[str, float]) -> None:
    """Writes values of a step."""
    self._run.log(values, step=step)

  def close(self, status: str, reason: str = '') -> None:
    """Ends the run; a reason becomes `rolled_back` in its summary."""
    if reason:
      self._run.summary['rolled_back'] = reason
    self._run.finish(exit_code=0 if status == 'finished' else 1)


CLIENTS: dict[str, Callable[[TrackedRun, str | None], Client]] = {
  'mlflow': Mlflow,
  'wandb': Wandb,
}


def _flat(value: Any, path: str = '') -> list[tuple[str, str]]:
  """Returns the fields of nested dicts as (path, text), such as `data.name`."""
  if isinstance(value, dict) and value:
    return [
      field
      for name, inner in value.items()
      for field in _flat(inner, f'{path}.{name}' if path else name)
    ]
  return [(path, str(value)[:_MOST_TEXT])]
