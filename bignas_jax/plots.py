"""Pictures, as SVG text; the only importer of matplotlib."""

import io
from collections.abc import Sequence

import matplotlib

matplotlib.use('svg')
import matplotlib.figure  # noqa: E402

Points = Sequence[tuple[float, float]]

_COLOURS = {'biggest': '#1f4e9c', 'random': '#8a8a8a', 'smallest': '#d1600a'}


def _figure(xlabel: str, ylabel: str, size=(7.0, 4.2)):
  matplotlib.rcParams.update(
    {'svg.fonttype': 'none', 'svg.hashsalt': 'bignas_jax', 'font.size': 10}
  )
  figure = matplotlib.figure.Figure(figsize=size, layout='constrained')
  axes = figure.subplots()
  axes.set_xlabel(xlabel)
  axes.set_ylabel(ylabel)
  axes.grid(alpha=0.3)
  for side in ('top', 'right'):
    axes.spines[side].set_visible(False)
  return figure, axes


def _svg(figure) -> str:
  text = io.StringIO()
  figure.savefig(text, format='svg', metadata={'Date': None})
  return text.getvalue()


def pareto(
  groups: dict[str, Points], front: Points, marked: dict[str, Points]
) -> str:
  """Accuracy against cost.

  Args:
    groups: (M MACs, top-1 %) of children, by what found them.
    front: the best for their cost, by rising cost.
    marked: points with a name of their own, such as the extracted child.
  """
  figure, axes = _figure('million multiply-adds', 'top-1, %')
  for name, points in groups.items():
    axes.plot(*_xy(points), 'o', markersize=4, alpha=0.5, label=name)
  axes.step(
    *_xy(front), 'k-', where='post', linewidth=1.2, label='front'
  )
  for name, points in marked.items():
    axes.plot(*_xy(points), '*', markersize=14, label=name)
  axes.legend(frameon=False, loc='lower right')
  return _svg(figure)


def curves(lines: dict[str, Points], ylabel: str, log: bool = False) -> str:
  """Values over steps, a line a name."""
  figure, axes = _figure('step', ylabel, (7.0, 3.4))
  for name, points in lines.items():
    axes.plot(*_xy(points), label=name, color=_COLOURS.get(name))
  if log:
    axes.set_yscale('log')
  if len(lines) > 1:
    axes.legend(frameon=False)
  return _svg(figure)


def _xy(points: Points) -> tuple[list[float], list[float]]:
  return [x for x, _ in points], [y for _, y in points]
