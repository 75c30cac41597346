"""The search for children of a trained supernet."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from etils import epath

from bignas_jax.costs import latency, latency_tables
from bignas_jax.costs import limits as limits_lib
from bignas_jax.costs.limits import Cost, Limits
from bignas_jax.reporting import plots
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import directory as directory_lib
from bignas_jax.runs import restore
from bignas_jax.runs.archive import Archive, Entry
from bignas_jax.selection import calibration, child_costs, indicators, questions
from bignas_jax.selection.questions import Question
from bignas_jax.selection.scorer import Basis, Scorer
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.strategies import predictor
from bignas_jax.strategies import problem as problem_lib
from bignas_jax.strategies import table as table_lib
from bignas_jax.strategies.problem import Problem, Search, Shares
from bignas_jax.supernet.evaluation import Score
from bignas_jax.system import cluster, console, files, process, stopping
from bignas_jax.training import loop, recovery
from bignas_jax.values import errors, schema

# What a search writes beside its answer.
_CALIBRATION, _PICTURE = 'calibration.json', 'pareto.svg'
_PREDICTOR = 'predictor.json'


class Task(NamedTuple):
  """A search that has passed all checks.

  Attributes:
    space: space of the children.
    strategy: name of the strategy, a key of `table.STRATEGIES`.
    settings: settings of the strategy.
    limits: limits that children keep.
    costs: function that returns the costs of a child by name.
    start: a child that keeps the limits.
    latency: the latency table's `about` and digest, if there is a table.
  """

  space: Space
  strategy: str
  settings: Search
  limits: Limits
  costs: Cost
  start: Arch
  latency: dict[str, Any] | None

  def fits(self, arch: Arch) -> bool:
    """Returns whether a child keeps the limits."""
    return self.limits.fit(self.costs(arch))

  def question(self, step: int, weights: str) -> Question:
    """Returns everything that determines the search's answer.

    Args:
      step: step of the supernet.
      weights: digest of the supernet's parameters.
    """
    return {
      'strategy': self.strategy,
      'limits': self.limits.to_dict(),
      'settings': schema.plain(self.settings),
      'latency': self.latency,
      'step': step,
      'weights': weights,
    }


def _check_places(directory: epath.Path, asked: Question) -> None:
  """Checks that the results can be written, before any child is evaluated."""
  names = questions.BEST, _CALIBRATION, _PICTURE, _PREDICTOR
  written = [directory / name for name in names]
  for path in (*written, questions.result_path(directory, asked)):
    files.check_file(path, 'search')


def search(
  workdir: epath.Path,
  strategy: str,
  limits: Limits,
  changes: Mapping[str, Any] | None = None,
  table: latency.Table | None = None,
  data: str = '',
) -> dict[str, Any]:
  """Finds the most accurate child within the limits.

  Scores are top-1 on the images held out from training. Children that an
  interrupted search evaluated are looked up in the archive.

  Args:
    workdir: work directory of a trained run.
    strategy: name of the strategy, a key of `table.STRATEGIES`.
    limits: limits on costs.
    changes: changes to the config's settings of searches (`problem.Search`).
    table: latency table, needed if latency is limited.
    data: where the run's data are now; '': the data are where they were.

  Returns:
    The contents of `search/best.json`.

  Raises:
    UserError: no child can keep the limits, `workdir` is not that of a run,
      another search is running in it, or the results cannot be written.
    Preempted: several processes were asked to stop; in a lone process the
      signal itself raises this.
    Failed: the disk is full; the children evaluated so far are kept.
  """
  cluster.join(preemptible=True)
  config = directory_lib.load_config(workdir)
  settings = _changed(config.search, changes or {})
  task = checked(config_lib.space(config), strategy, settings, limits, table)
  directory, again = workdir / 'search', 'to go on from the last child'
  with (
    recovery.no_room_in_one_line(workdir, again),
    questions.alone(directory),
    _pauses() as pause,
  ):
    path = directory / 'archive.csv'
    archive = Archive(path, task.space)
    run = restore.load(workdir, data)
    config, weights = run.config, restore.weights(run)
    asked = task.question(run.step, weights)
    cluster.once(lambda: _check_places(directory, asked))
    if cluster.once(
      lambda: questions.set_aside_others(directory, path, run.step, weights)
    ):
      archive = Archive(path, task.space)
    # Processes with different archives would evaluate different children.
    cluster.same('search', asked, (asked, archive.entries))
    before = questions.begin(directory, asked, len(archive.entries))
    evaluator = loop.evaluator(
      config, run.model, run.splits, run.splits.held_out
    )
    evaluator.compile(task.space.resolution)
    evaluate = functools.partial(evaluator.score, run.params)
    basis = Basis(run.step, config.calibration.images)
    of_scales = indicators.batch_norm_scales
    shares = functools.partial(of_scales, task.space, run.params)
    scorer = find(task, archive, before, evaluate, basis, pause, shares)
    result, best = answer(task, scorer, asked), scorer.best(task.fits)
    worth = calibration.compare(run, evaluator, best.arch, pause)

    def write() -> None:
      files.write_json(directory / _CALIBRATION, worth)
      if strategy == 'predictor':
        quality = predictor.quality(
          task.space, scorer.scores(archive.entries), settings.predictor
        )
        if quality is not None:
          files.write_json(directory / _PREDICTOR, quality)
      picture = picture_of(archive.entries, {'best': [best]})
      files.write_text(directory / _PICTURE, picture)
      questions.finish(directory, asked, result)

    cluster.once(write)  # the others wait until it is written
  return result


def checked(
  space: Space,
  strategy: str,
  settings: Search,
  limits: Limits,
  table: latency.Table | None = None,
) -> Task:
  """Returns the task of a search after checking all that it is asked.

  Raises:
    UserError: the search cannot be asked this, or no child can keep the limits.
  """
  costs = child_costs.of(space, table and functools.partial(_predicted, table))
  table_lib.check(strategy, limits, settings, costs(arch_lib.smallest(space)))
  if strategy == 'batch_norm_scales':
    indicators.check(space)
  if strategy == 'nsga2':  # it compares children by these costs
    limits = dataclasses.replace(limits, required=settings.objectives)
  start = limits_lib.feasible(space, costs, limits)
  about = None
  if table is not None:
    about = table.about | {'sha256': latency_tables.sha256(table)}
  return Task(space, strategy, settings, limits, costs, start, about)


def find(
  task: Task,
  archive: Archive,
  before: int,
  evaluate: Callable[[Arch], Score],
  basis: Basis,
  pause: Callable[[], None],
  shares: Callable[[], Shares] | None = None,
) -> Scorer:
  """Runs the strategy and returns the scorer, which has seen all its children.

  Args:
    task: search to run.
    archive: archive of the run, which gets every child that is evaluated.
    before: number of the archive's entries that may be learnt from.
    evaluate: function that evaluates a child on held-out images.
    basis: basis of the scores.
    pause: function called before each evaluation; may raise Preempted.
    shares: function that returns the shares of `Problem`.
  """
  space, strategy, settings = task.space, task.strategy, task.settings
  expected = table_lib.planned(strategy, space, task.fits, settings)
  with console.Progress(strategy, expected) as bar:
    scorer = Scorer(space, evaluate, archive, basis, strategy, bar, pause)
    archived = scorer.scores(archive.entries[:before])
    for arch in table_lib.published(space):
      if task.fits(arch):
        scorer(arch)
    problem = Problem(
      space,
      scorer,
      task.costs,
      task.fits,
      task.start,
      archived,
      task.limits.to_dict(),
      shares,
    )
    table_lib.STRATEGIES[strategy](problem, settings)
  return scorer


def answer(task: Task, scorer: Scorer, asked: Question) -> dict[str, Any]:
  """Returns the best child and what is known of it, as plain values."""
  best = scorer.best(task.fits)
  result = best._asdict() | asked
  result |= {
    'arch': arch_lib.to_dict(best.arch),
    'costs': task.costs(best.arch),
    'split': 'held_out',
    'evaluated': len(scorer.visited),
    'looked_up': len(scorer.visited) - scorer.evaluated,
    'seconds': round(scorer.seconds, 1),
  }
  return files.finite(result)


@contextlib.contextmanager
def _pauses() -> Iterator[Callable[[], None]]:
  """Yields a function to call wherever all processes may stop together.

  The function raises Preempted in every process once one of them was asked to
  stop. In a lone process it does nothing: the signal itself stops the process.
  """
  if not process.joined():
    yield lambda: None
    return
  with stopping.StopRequest() as stop:

    def pause() -> None:
      if stop.due():
        raise errors.Preempted('all evaluated children are kept, start again')

    yield pause


def _predicted(table: latency.Table, arch: Arch) -> float:
  """Returns a child's milliseconds, or infinity at an unknown resolution."""
  in_table = arch.resolution in table.resolutions
  return table.predict(arch) if in_table else math.inf


def _changed(settings: Search, changes: Mapping[str, Any]) -> Search:
  names = [field.name for field in dataclasses.fields(Search)]
  for name, value in changes.items():
    if name not in names:
      allowed = f'a setting: {errors.one_of(names, name)}'
      raise errors.UserError(f'search.{name}', value, allowed)
  return schema.check(dataclasses.replace(settings, **changes), 'search')


def picture_of(entries: list[Entry], marked: dict[str, list[Entry]]) -> str:
  """Returns an SVG of the archive, with the front and some children marked."""
  groups: dict[str, list] = {}
  for entry in entries:
    groups.setdefault(entry.strategy, []).append(_point(entry))
  front = problem_lib.front([_point(entry) for entry in entries])
  return plots.pareto(
    groups, front, {k: [_point(e) for e in v] for k, v in marked.items()}
  )


def _point(entry: Entry) -> tuple[float, float]:
  return entry.macs / 1e6, entry.top1 * 100
