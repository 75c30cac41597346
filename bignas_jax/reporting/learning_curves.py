"""How a run was trained: curves over steps, who learned from whom, how fast."""

import statistics
from collections.abc import Mapping

from bignas_jax.methods import loss_graph
from bignas_jax.reporting import plots
from bignas_jax.reporting.run_files import RunFiles
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Config

LOG_FROM = 30  # largest over smallest value of a curve


def pictures(run: RunFiles) -> dict[str, str]:
  """Draws losses, accuracies, learning rate and speed over steps."""
  losses = run.curves('train/loss_{}')
  trained = run.curves('train/top1_{}', 100)
  tested = run.curves('eval/{}/top1', 100)
  rate = {'learning rate': run.curve('lr')}
  speed = {'images/s': run.curve('images_per_s')}
  return {
    'losses': drawn(losses, 'training loss', plots.WIDE),
    'train-top1': drawn(trained, 'training top-1, %'),
    'eval-top1': drawn(tested, 'test top-1, %'),
    'lr': drawn(rate, 'learning rate'),
    'speed': drawn(speed, 'images a second'),
  }


def drawn(
  lines: Mapping[str, plots.Points],
  ylabel: str,
  size: tuple[float, float] = plots.HALF,
) -> str:
  """Draws curves over steps; returns '' if none has a point."""
  lines = {label: points for label, points in lines.items() if points}
  values = [value for points in lines.values() for _, value in points]
  if not values:
    return ''
  share = ylabel.endswith('%')  # of 100: what matters is near the top
  log = not share and min(values) > 0 and max(values) > LOG_FROM * min(values)
  return plots.curves(lines, ylabel, log, size)


def teachers(config: Config) -> dict[str, list[str]]:
  """Returns who learns from each source of targets."""
  by_source: dict[str, dict[str, None]] = {}
  roles = config_lib.policy(config).roles
  for edge in loss_graph.among(config.rule, roles).edges:
    child = ' child' if edge.teacher in roles else ''
    source = f'{edge.teacher}{child}'
    by_source.setdefault(source, {})[edge.student] = None
  return {source: list(students) for source, students in by_source.items()}


def images_per_s(run: RunFiles) -> float | None:
  """Returns the median speed; None: it was not recorded."""
  speeds = [speed for _, speed in run.curve('images_per_s') if speed > 0]
  return statistics.median(speeds) if speeds else None
