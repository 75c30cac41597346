"""The search for children of a trained supernet."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from bignas_jax.costs import latency
from bignas_jax.costs.limits import Limits
from bignas_jax.reporting import formats, search_results
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import directory as directory_lib
from bignas_jax.runs import restore
from bignas_jax.runs.archive import Archive
from bignas_jax.selection import (
  calibration,
  indicators,
  questions,
  recommended,
)
from bignas_jax.selection import task as task_lib
from bignas_jax.selection.child_costs import Memory
from bignas_jax.selection.questions import Question
from bignas_jax.selection.scorer import Basis, Scorer
from bignas_jax.selection.task import Request, Task
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.strategies import predictor
from bignas_jax.strategies import table as table_lib
from bignas_jax.strategies.problem import Problem, Shares
from bignas_jax.supernet import evaluation
from bignas_jax.supernet.evaluation import Score
from bignas_jax.system import cluster, console, files, process, stopping
from bignas_jax.training import recovery
from bignas_jax.values import errors

# What a search writes beside its answer.
_CALIBRATION, _PICTURE = 'calibration.json', 'pareto.svg'
_PREDICTOR = 'predictor.json'


def _check_places(directory: epath.Path, asked: Sequence[Question]) -> None:
  """Checks that the results can be written, before any child is evaluated."""
  names = questions.BEST, _CALIBRATION, _PICTURE, _PREDICTOR
  written = [directory / name for name in (*names, *recommended.FILES)]
  answers = [questions.result_path(directory, question) for question in asked]
  for path in (*written, *answers):
    files.check_file(path, 'search')


def search(
  workdir: epath.Path,
  strategy: str,
  limits: Limits,
  changes: Mapping[str, Any] | None = None,
  table: latency.Table | None = None,
  data: str = '',
  memory: Memory = Memory(),  # noqa: B008 (a tuple of constants)
) -> dict[str, Any]:
  """Finds the most accurate child within the limits.

  Scores are top-1 on the images held out from training. Children that an
  interrupted search evaluated are looked up in the archive.

  Args:
    workdir: work directory of a trained run.
    strategy: name of the strategy, as in `table.get`.
    limits: limits on costs.
    changes: changes to the config's settings of searches (`problem.Search`).
    table: latency table, needed if latency is limited.
    data: where the run's data are now; '': the data are where they were.
    memory: batch and precision of the cost `memory_bytes`.

  Returns:
    The contents of `search/best.json`.

  Raises:
    UserError: no child can keep the limits, `workdir` is not that of a run,
      another search is running in it, or the results cannot be written.
    Preempted: several processes were asked to stop; in a lone process the
      signal itself raises this.
    Failed: the disk is full; the children evaluated so far are kept.
  """
  asked = [Request(limits, table, memory)]
  (result,), _ = _search(workdir, strategy, asked, changes, data)
  return result


def recommend(
  workdir: epath.Path,
  requests: Sequence[Request],
  strategy: str = 'coarse_to_fine',
  changes: Mapping[str, Any] | None = None,
  data: str = '',
) -> dict[str, Any]:
  """Finds a child for each of several requests, all from one archive.

  Searches one request after another. A child that was evaluated for one of them
  may be the answer to any.

  Args:
    workdir: work directory of a trained run.
    requests: at least one (`task.requests` makes them of tables and limits).
    strategy: name of the strategy, as in `table.get`.
    changes: changes to the config's settings of searches (`problem.Search`).
    data: where the run's data are now; '': the data are where they were.

  Returns:
    A dict with `recommended`, the entries of `search/recommended.json`; and for
    all searches together, how many children were `evaluated` and `looked_up`,
    and the `seconds` that evaluations took.

  Raises:
    UserError, Preempted, Failed: as in `search`.
  """
  results, entries = _search(workdir, strategy, requests, changes, data)
  for entry in entries:
    limits = formats.limits(entry['limits']) or 'no limits'
    place = f' on {task_lib.device(entry)}' if entry['device'] else ''
    top1 = entry['accuracy']['float32']['held_out']['top1']
    console.say(
      f'{entry["child"]}: top-1 {top1:.3f}, {entry["macs"]:,} MACs '
      f'({limits}{place})'
    )
  sums = {
    name: round(sum(result[name] for result in results), 1)
    for name in ('evaluated', 'looked_up', 'seconds')
  }
  shared = {name: results[-1][name] for name in ('strategy', 'split', 'step')}
  return shared | {'recommended': entries} | sums


def _search(
  workdir: epath.Path,
  strategy: str,
  requests: Sequence[Request],
  changes: Mapping[str, Any] | None,
  data: str,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
  """Returns the answer to each request, and the recommended children."""
  cluster.join(preemptible=True)
  config = directory_lib.load_config(workdir)
  settings = task_lib.changed(config.search, changes or {})
  space = config_lib.space(config)
  tasks = task_lib.checked_all(space, strategy, settings, requests)
  directory, again = workdir / 'search', 'to go on from the last child'
  with (
    recovery.full_disk_as_failed(workdir, again),
    questions.alone(directory),
    _pauses() as pause,
  ):
    path = directory / 'archive.csv'
    archive = Archive(path, space)
    run = restore.load(workdir, data)
    weights = restore.weights(run)
    asked = [task.question(run.step, weights) for task in tasks]
    cluster.once(lambda: _check_places(directory, asked))
    if cluster.once(
      lambda: questions.set_aside_others(directory, path, run.step, weights)
    ):
      archive = Archive(path, space)
    # Processes with different archives would evaluate different children.
    cluster.same('search', asked, (asked, archive.entries))
    evaluator = restore.evaluator(
      run.config, run.model, run.splits, run.splits.held_out
    )
    with console.busy('compiling'):
      evaluator.compile(space.resolution)
    scorers = []
    for task, question in zip(tasks, asked, strict=True):
      if len(tasks) > 1:
        console.say(f'search {len(scorers) + 1} of {len(tasks)}: {task.words}')
      before = questions.begin(directory, question, len(archive.entries))
      scorers.append(_find(run, evaluator, archive, task, before, pause))
    best = scorers[-1].best(tasks[-1].fits)
    worth = calibration.compare(run, evaluator, best.arch, pause)
    results = [*map(answer, tasks, scorers, asked)]
    answers = recommended.collect(workdir, run, tasks, scorers, archive.entries)

    def write() -> None:
      files.write_json(directory / _CALIBRATION, worth)
      if strategy == 'predictor':
        scores = scorers[-1].scores(archive.entries)
        quality = predictor.quality(space, scores, settings.predictor)
        if quality is not None:
          files.write_json(directory / _PREDICTOR, quality)
      marked = [*dict.fromkeys([best, *answers.chosen])]
      picture = search_results.front_picture(archive.entries, marked)
      files.write_text(directory / _PICTURE, picture)
      recommended.write(workdir, answers)
      for question, result in zip(asked, results, strict=True):
        questions.finish(directory, question, result)

    cluster.once(write)  # the others wait until it is written
  return results, answers.entries


def _find(
  run: restore.Run,
  evaluator: evaluation.Evaluator,
  archive: Archive,
  task: Task,
  before: int,
  pause: Callable[[], None],
) -> Scorer:
  """Runs a search on the run's held-out images; the rest is as in `find`."""
  evaluate = functools.partial(evaluator.score, run.params)
  basis = Basis(run.step, run.config.calibration.images)
  of_scales = indicators.batch_norm_scales
  shares = functools.partial(of_scales, task.space, run.params)
  return find(task, archive, before, evaluate, basis, pause, shares)


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
    table_lib.get(strategy)(problem, settings)
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
