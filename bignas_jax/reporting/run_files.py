"""What a work directory holds, without the weights, as plain records."""

import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from etils import epath

from bignas_jax.costs import counting, latency, latency_tables
from bignas_jax.policies import policies
from bignas_jax.reporting import (
  children_table,
  contents,
  formats,
  plots,
  recommendations,
)
from bignas_jax.reporting.recommendations import Recommendation
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import directory, metrics
from bignas_jax.runs.archive import Archive, Entry
from bignas_jax.runs.config import Config
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.values import errors, schema, structs

_MOST_STEPS = 2**53  # that a float of an axis can hold


class ChildFile(NamedTuple):
  """Holds one `child.json`, and what lies beside it."""

  name: str
  info: contents.Child
  arch: Arch
  space: Space  # of this child only
  exports: contents.Exports  # export.json
  measured: contents.Measured  # latency.json, of `benchmark child`

  @property
  def rows(self) -> list[counting.Row]:
    """Returns its stem, its blocks and its head with their costs."""
    return counting.rows(self.space, arch_lib.biggest(self.space))


class RunFiles(NamedTuple):
  """Holds what is in the work directory; None or empty: not made yet."""

  workdir: epath.Path
  config: Config
  space: Space
  record: directory.Manifest  # config.json
  card: contents.Card | None  # run.json
  lines: list[dict[str, Any]]  # metrics.jsonl, each with its step
  entries: list[Entry]  # of the step of the last search
  older: int  # entries of other steps
  best: contents.Best | None
  best_arch: Arch | None
  calibration: contents.Calibration | None
  predictor: contents.Predictor | None
  ranking: contents.Ranking | None
  recommended: tuple[Recommendation, ...]
  sizes: list[children_table.Row]  # search/children.csv
  children: list[ChildFile]
  table: latency.Table | None  # predicts latencies

  @property
  def is_one(self) -> bool:
    """Returns whether one network was trained, and no supernet."""
    return arch_lib.is_one(self.space)

  @property
  def step(self) -> int:
    """Returns the last step that was logged."""
    return max((line['step'] for line in self.lines), default=0)

  def curve(self, metric: str, scale: float = 1.0) -> plots.Points:
    """Returns (step, value) of a metric, without what is not a number."""
    values = {
      line['step']: number * scale
      for line in self.lines
      if (number := formats.number(line.get(metric))) is not None
    }
    return sorted(values.items())

  def curves(self, metric: str, scale: float = 1.0) -> dict[str, plots.Points]:
    """Returns the curve of each role that has points.

    Args:
      metric: name of the metric, in which `{}` stands for the role.
      scale: factor of its values.
    """
    policy = config_lib.policy(self.config)
    roles = {*policies.evaluated(policy, self.space), *policy.roles}
    roles |= {one.name for one in self.config.rule.means} | {policies.LEARNT}
    curves = {
      role: self.curve(metric.format(role), scale) for role in sorted(roles)
    }
    return {role: points for role, points in curves.items() if points}

  def command(self, name: str, arguments: str = '') -> str:
    """Returns the command line that makes a missing file of the run."""
    workdir = shlex.quote(str(self.workdir))
    text = f'python -m bignas_jax.{name} --workdir={workdir} {arguments}'
    return text.strip()


def read(workdir: epath.Path, table: epath.Path | None = None) -> RunFiles:
  """Reads a run, finished or not.

  Args:
    workdir: the directory of the run.
    table: a file with latencies of the run's space; None: none.

  Raises:
    UserError: the directory is not a run's, or one of its files is damaged.
  """
  config = directory.load_config(workdir)
  space = config_lib.space(config)
  archive = Archive(workdir / 'search' / 'archive.csv', space).entries
  search = workdir / 'search'
  best = contents.read(search / 'best.json', contents.Best)
  step = _step_searched(archive, best)
  of_step = {entry.arch: entry for entry in archive if entry.step == step}
  entries = list(of_step.values())  # a child that came twice is one
  return RunFiles(
    workdir=workdir,
    config=config,
    space=space,
    record=directory.read(workdir),
    card=contents.read(workdir / directory.CARD, contents.Card),
    lines=_lines(workdir),
    entries=entries,
    older=len({(e.step, e.arch) for e in archive if e.step != step}),
    best=best,
    best_arch=_best_arch(search / 'best.json', space),
    calibration=contents.read(
      search / 'calibration.json', contents.Calibration
    ),
    predictor=contents.read(search / 'predictor.json', contents.Predictor),
    ranking=contents.read(workdir / directory.RANKING, contents.Ranking),
    recommended=recommendations.read(search),
    sizes=children_table.read(search / children_table.NAME, space),
    children=[child(p) for p in packages(workdir)],
    table=None if table is None else latency_tables.load(table, space),
  )


def _step_searched(
  entries: list[Entry], best: contents.Best | None
) -> int | None:
  """Returns the step of the checkpoint that the last search used.

  It need not be the highest: where a checkpoint was lost, or the run went
  back, the search was of an older one. What else a search leaves (its best,
  calibration, predictor) is of the same step.
  """
  step = None if best is None else best.step
  if any(entry.step == step for entry in entries):
    return step
  return entries[-1].step if entries else None


def _lines(workdir: epath.Path) -> list[dict[str, Any]]:
  """Returns what was logged, at steps that have a place on an axis."""
  lines = metrics.read(workdir)
  for line in lines:
    if not 0 <= line['step'] < _MOST_STEPS:
      place = f'{workdir / "metrics.jsonl"}: step'
      raise errors.UserError(place, line['step'], 'a whole number >= 0')
  return lines


def _best_arch(path: epath.Path, space: Space) -> Arch | None:
  content = contents.plain(path)
  if content is None:
    return None
  with errors.within(path):
    return arch_lib.from_dict(space, content.get('arch'))


def packages(workdir: epath.Path) -> Sequence[epath.Path]:
  """Returns each `child.json`; hidden directories are not finished."""
  paths = sorted(workdir.glob('children/*/child.json'))
  return [path for path in paths if not path.parent.name.startswith('.')]


def child(path: epath.Path) -> ChildFile:
  """Reads a `child.json`, and what lies beside it.

  Raises:
    UserError: one of the files is damaged.
  """
  plain = contents.plain(path) or {}
  with errors.within(path):
    space = schema.convert(Space, plain.get('network'), 'network')
    arch = pinning.described(space, plain.get('arch'))
  exports = path.parent / 'export' / 'export.json'
  measured = path.parent / latency.MEASURED
  return ChildFile(
    name=structs.encodable(path.parent.name),
    info=contents.read(path, contents.Child) or contents.Child(),
    arch=arch,
    space=space,
    exports=contents.read(exports, contents.Exports) or contents.Exports(),
    measured=contents.read(measured, contents.Measured) or contents.Measured(),
  )
