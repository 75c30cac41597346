"""What a work directory holds, without the weights, as plain records."""

import shlex
from typing import Any, NamedTuple

from etils import epath

from bignas_jax import arch as arch_lib
from bignas_jax import config as config_lib
from bignas_jax import (
  errors,
  files,
  latency,
  latency_tables,
  metrics,
  nested,
  page,
  plots,
  sampling,
)
from bignas_jax import workdir as workdir_lib
from bignas_jax.arch import Arch
from bignas_jax.archive import Archive, Entry
from bignas_jax.config import Config
from bignas_jax.space import Space


class ChildFile(NamedTuple):
  """One `child.json`."""

  name: str
  info: dict[str, Any]
  arch: Arch
  space: Space  # pinned to the arch
  exports: dict[str, Any] | None  # export.json
  measured: dict[str, Any] | None  # latency.json, of `benchmark child`


class Run(NamedTuple):
  """What the work directory holds; None or empty: not made yet."""

  workdir: epath.Path
  config: Config
  space: Space
  receipt: dict[str, Any]  # config.json
  card: dict[str, Any] | None  # run.json
  lines: list[dict[str, Any]]  # metrics.jsonl
  entries: list[Entry]  # of the step of the last search
  older: int  # entries of other steps
  best: dict[str, Any] | None
  best_arch: Arch | None
  calibration: dict[str, Any] | None
  predictor: dict[str, Any] | None
  children: list[ChildFile]
  table: latency.Table | None  # predicts latencies

  @property
  def is_one(self) -> bool:
    """Whether one network was trained, and no supernet."""
    return arch_lib.is_one(self.space)

  @property
  def step(self) -> int:
    """The last that was logged."""
    return max((line['step'] for line in self.lines), default=0)

  def curve(self, metric: str, scale: float = 1.0) -> plots.Points:
    """(step, value) of a metric; what is not a number is left out."""
    found = {
      line['step']: number * scale
      for line in self.lines
      if (number := page.number(line.get(metric))) is not None
    }
    return sorted(found.items())

  def curves(self, metric: str, scale: float = 1.0) -> dict[str, plots.Points]:
    """Curves by role, whose place in the name is `{}`; none without points."""
    found = {
      role: self.curve(metric.format(role), scale) for role in sampling.ROLES
    }
    return {role: points for role, points in found.items() if points}

  def command(self, name: str, arguments: str = '') -> str:
    """What a person types to make what is not there yet."""
    where = shlex.quote(str(self.workdir))
    text = f'python -m bignas_jax.{name} --workdir={where} {arguments}'
    return text.strip()


def read(workdir: epath.Path, table: epath.Path | None = None) -> Run:
  """Reads a run, finished or not.

  Args:
    workdir: of the run.
    table: of latencies, of the run's space.

  Raises:
    UserError: the directory is not a run's, or one of its files is damaged.
  """
  config = workdir_lib.load_config(workdir)
  space = config_lib.space(config)
  archive = Archive(workdir / 'search' / 'archive.csv', space).entries
  best = _json(workdir / 'search' / 'best.json')
  step = _step_searched(archive, best)
  of_step = {entry.arch: entry for entry in archive if entry.step == step}
  entries = list(of_step.values())  # a child that came twice is one
  paths = sorted(workdir.glob('children/*/child.json'))
  return Run(
    workdir=workdir,
    config=config,
    space=space,
    receipt=_json(workdir / 'config.json') or {},
    card=_json(workdir / workdir_lib.CARD),
    lines=metrics.read(workdir),
    entries=entries,
    older=len({(e.step, e.arch) for e in archive if e.step != step}),
    best=best,
    best_arch=None
    if best is None
    else arch_lib.from_dict(space, best.get('arch')),
    calibration=_json(workdir / 'search' / 'calibration.json'),
    predictor=_json(workdir / 'search' / 'predictor.json'),
    children=[_child(p) for p in paths if p.parent.name[0] != '.'],
    table=None if table is None else latency_tables.load(table, space),
  )


def _step_searched(
  entries: list[Entry], best: dict[str, Any] | None
) -> int | None:
  """Returns the step of which the last search was.

  It need not be the highest: where a checkpoint was lost, or the run went
  back, the search was of an older one. What else a search leaves (its best,
  calibration, predictor) is of the same step.
  """
  told = (best or {}).get('step')
  if any(entry.step == told for entry in entries):
    return told
  return entries[-1].step if entries else None


def _json(path: epath.Path) -> dict[str, Any] | None:
  return files.read_json(path) if path.is_file() else None


def _child(path: epath.Path) -> ChildFile:
  info = _json(path) or {}
  try:
    space = nested.build(Space, info['network'])
    arch = arch_lib.from_dict(space, info['arch'])
  except (KeyError, TypeError) as error:
    raise errors.UserError(
      str(path), str(error), 'a complete child.json; extract the child again'
    ) from None
  exports = _json(path.parent / 'export' / 'export.json')
  measured = _json(path.parent / latency.MEASURED)
  return ChildFile(path.parent.name, info, arch, space, exports, measured)
