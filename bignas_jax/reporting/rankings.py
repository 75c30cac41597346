"""How well indicators rank children, in pictures and as lines of a table."""

from typing import NamedTuple

from bignas_jax.reporting import contents, formats, plots
from bignas_jax.reporting.run_files import RunFiles

# What the page calls an indicator.
_NAMES = {
  'calibrated_top1': 'calibrated accuracy in the supernet',
  'batch_norm_scales': 'sum of batch norm scales',
  'macs': 'MACs',
  'params': 'parameters',
}
_TOP1 = 'top-1 alone, %'


class Row(NamedTuple):
  """Holds a line of the table, and the name of its picture."""

  name: str
  correlation: contents.Correlation
  picture: str


def rows(run: RunFiles) -> list[Row]:
  """Returns a line for each indicator, as the file has them."""
  if run.ranking is None:
    return []
  return [
    Row(_NAMES.get(name, name), correlation, f'ranking{i}')
    for i, (name, correlation) in enumerate(run.ranking.indicators.items())
  ]


def pictures(run: RunFiles) -> dict[str, str]:
  """Draws accuracies of children alone against each indicator."""
  if run.ranking is None:
    return {}
  points = (_points(run.ranking, name) for name in run.ranking.indicators)
  return {
    row.picture: plots.scatter(pairs, row.name, _TOP1) if pairs else ''
    for row, pairs in zip(rows(run), points, strict=True)
  }


def _points(ranking: contents.Ranking, name: str) -> list[tuple[float, float]]:
  """Returns (indicator, top-1 %) of the children that have both."""
  pairs = [
    (formats.number(child.indicators.get(name)), formats.number(child.top1))
    for child in ranking.children
  ]
  return [(x, 100 * y) for x, y in pairs if x is not None and y is not None]
