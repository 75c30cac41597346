"""The pictures of a report, as SVG text."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from bignas_jax.reporting import canvas

Points = Sequence[tuple[float, float]]

WIDE, HALF = (9.2, 4.0), (4.5, 3.0)  # inches; two halves stand side by side

_COLOURS = {
  'biggest': '#1f4e9c',
  'random': '#8a8a8a',
  'smallest': '#d1600a',
  'additive': '#2f7f86',
  'coarse_to_fine': '#5b8dd6',
  'evolution': '#4f9d69',
  'greedy': '#a0522d',
  'nsga2': '#c58b1b',
  'pareto_bins': '#c2457c',
  'predictor': '#8b4fb3',
}
_STARS = ('#e0482e', '#f2b134', '#6d3a9c', '#2a9d8f', '#c2457c', '#6b6b6b')
_KINDS = ('#9db7dd', '#5b8dd6', '#1f4e9c', '#d9d9d9', '#b9b9b9')
_BARS = ('#1f4e9c', '#9db7dd', '#d9d9d9')
_FAINT = '#d5d5d5'
_MARKERS_UP_TO = 60  # points on a line; more would run into one another
_DRAWN = 250  # points on a line
_MARGIN = 0.05  # of the axis, around what is drawn


@canvas.styled
def pareto(
  groups: Mapping[str, Points],
  front: Points,
  marked: Mapping[str, Points],
  limit: float | None = None,
  cost: str = 'million multiply-adds (MACs)',
) -> str:
  """Draws held-out accuracy against cost.

  The axis shows all but the poorest outliers, which become small triangles
  at its lower end; marked points are never outliers.

  Args:
    groups: (cost, top-1 %) of children, by what found them.
    front: points of the best children for their cost, by rising cost.
    marked: points with a name of their own, such as the extracted child.
    limit: the most that a child may cost; None: any.
    cost: what the axis calls it.
  """
  figure, axes = canvas.figure(cost, 'held-out top-1, %', WIDE)
  everything = [point for points in groups.values() for point in points]
  stars = [point for points in marked.values() for point in points]
  low, high = _limits([y for _, y in everything], [y for _, y in stars])
  for i, (name, points) in enumerate(groups.items()):
    colour = _COLOURS.get(name, f'C{i}')
    visible = [point for point in points if point[1] >= low]
    style = {'color': colour, 'alpha': 0.6, 'markeredgewidth': 0}
    axes.plot(*_xy(visible), 'o', markersize=5, label=name, **style)
    below = [(x, low) for x, y in points if y < low]
    if below:
      axes.plot(*_xy(below), 'v', markersize=5, clip_on=False, **style)
  axes.step(
    *_xy(front), color='#222222', where='post', linewidth=1.2, label='front'
  )
  for i, (name, points) in enumerate(marked.items()):
    axes.plot(
      *_xy(points),
      '*',
      color=_STARS[i % len(_STARS)],
      markeredgecolor='#222222',
      markeredgewidth=0.7,
      markersize=15,
      label=name,
    )
  if limit is not None:
    axes.axvline(limit, color='#888888', linestyle=(0, (4, 3)), linewidth=1)
    canvas.note(axes, 'limit', (limit, 1), ('data', 'axes fraction'), (-4, -9))
  outside = sum(y < low for _, y in everything)
  if outside:
    text = f'▾ {outside} below {low:.4g} %'
    canvas.note(axes, text, (1, 0), 'axes fraction', (0, -28))
  axes.set_ylim(low, high)
  if everything or stars:
    axes.legend(loc='lower right', framealpha=0.9, edgecolor=_FAINT)
  return canvas.svg(figure)


@canvas.styled
def curves(
  lines: Mapping[str, Points],
  ylabel: str,
  log: bool = False,
  size: tuple[float, float] = WIDE,
) -> str:
  """Draws values over steps, a line a name; long lines are averaged."""
  figure, axes = canvas.figure('step', ylabel, size)
  for i, (name, points) in enumerate(lines.items()):
    marker = 'o' if len(points) <= _MARKERS_UP_TO else ''
    axes.plot(
      *_xy(_averaged(points)),
      label=name,
      color=_COLOURS.get(name, f'C{i}' if i else '#1f4e9c'),
      marker=marker,
      markersize=2.5,
    )
  if log:
    axes.set_yscale('log')
    axes.yaxis.set_major_formatter('{x:g}')
  axes.set_xlim(left=0)
  if len(lines) > 1:
    axes.legend(frameon=False)
  return canvas.svg(figure)


@canvas.styled
def history(groups: Mapping[str, Points], best: Points) -> str:
  """Draws accuracies of children in the order in which they were evaluated.

  Args:
    groups: (position, held-out top-1 %) of children, by what found them.
    best: (position, held-out top-1 %) of the best so far, where it changes.
  """
  figure, axes = canvas.figure('children evaluated', 'held-out top-1, %', WIDE)
  everything = [point for points in groups.values() for point in points]
  low, high = _limits([y for _, y in everything], [y for _, y in best[-1:]])
  for i, (name, points) in enumerate(groups.items()):
    visible = [point for point in points if point[1] >= low]
    colour = _COLOURS.get(name, f'C{i}')
    style = {'color': colour, 'alpha': 0.6, 'markeredgewidth': 0}
    axes.plot(*_xy(visible), 'o', markersize=4, label=name, **style)
  axes.step(
    *_xy(best),
    color=canvas.INK,
    where='post',
    linewidth=1.2,
    label='best so far',
  )
  axes.set_ylim(low, high)
  axes.set_xlim(left=0)
  axes.legend(loc='lower right', framealpha=0.9, edgecolor=_FAINT)
  return canvas.svg(figure)


@canvas.styled
def agreement(points: Points, xlabel: str, ylabel: str) -> str:
  """Draws pairs of one quantity, and the line on which both are equal."""
  figure, axes = canvas.figure(xlabel, ylabel, WIDE)
  both = [value for point in points for value in point]
  room = max((max(both) - min(both)) * _MARGIN, 1e-9)
  ends = min(both) - room, max(both) + room
  axes.plot(ends, ends, color='#888888', linewidth=1)
  style = {'color': _STARS[0], 'alpha': 0.6, 'markeredgewidth': 0}
  axes.plot(*_xy(points), 'o', markersize=4, **style)
  axes.set_xlim(*ends)
  axes.set_ylim(*ends)
  return canvas.svg(figure)


@canvas.styled
def scatter(points: Points, xlabel: str, ylabel: str) -> str:
  """Draws pairs of two quantities."""
  figure, axes = canvas.figure(xlabel, ylabel, HALF)
  style = {'color': _STARS[0], 'alpha': 0.7, 'markeredgewidth': 0}
  axes.plot(*_xy(points), 'o', markersize=5, **style)
  return canvas.svg(figure)


@canvas.styled
def blocks(rows: Sequence[tuple[str, int, int, str]]) -> str:
  """Draws a network as a row of bars, as high as its parts are wide.

  Args:
    rows: a name, the channels and the pixels of the output, and a kind, which
      gives the colour, of each part from the image to the classes.
  """
  figure, axes = canvas.figure('', 'channels', (9.2, 2.6))
  kinds = list(dict.fromkeys(kind for *_, kind in rows))
  for i, kind in enumerate(kinds):
    at = [n for n, row in enumerate(rows) if row[3] == kind]
    heights = [rows[n][1] for n in at]
    colour = _KINDS[i % len(_KINDS)]
    axes.bar(at, heights, 0.85, color=colour, label=kind)
  for n, (name, channels, *_) in enumerate(rows):
    style = {'rotation': 90, 'ha': 'center', 'va': 'bottom', 'fontsize': 7}
    axes.text(n, channels * 1.06, name, color=canvas.INK, **style)
  sizes = [pixels for _, _, pixels, _ in rows]
  starts = [n for n in range(len(rows)) if n == 0 or sizes[n] != sizes[n - 1]]
  axes.set_xticks(starts, [f'{sizes[n]} px' for n in starts], fontsize=8)
  axes.set_yscale('log')
  axes.yaxis.set_major_formatter('{x:g}')
  widths = [channels for _, channels, *_ in rows]
  axes.set_ylim(min(widths) * 0.6, max(widths) * 4)
  axes.grid(visible=False, axis='x')
  figure.legend(loc='outside upper left', ncols=len(kinds), frameon=False)
  return canvas.svg(figure)


@canvas.styled
def bars(groups: dict[str, dict[str, float | None]], ylabel: str) -> str:
  """Draws values in percent, a cluster of bars a group; None: no bar."""
  figure, axes = canvas.figure('', ylabel, (9.2, 2.5))
  series = list(dict.fromkeys(itertools.chain(*groups.values())))
  width = 0.8 / max(1, len(series))
  for i, name in enumerate(series):
    values = [group.get(name) for group in groups.values()]
    at = np.arange(len(groups)) + (i - (len(series) - 1) / 2) * width
    drawn = axes.bar(
      at,
      [0 if value is None else value for value in values],
      width * 0.92,
      label=name,
      color=_BARS[i % len(_BARS)],
    )
    axes.bar_label(
      drawn,
      ['' if value is None else f'{value:.1f}' for value in values],
      padding=2,
      fontsize=8,
    )
  axes.set_xticks(range(len(groups)), list(groups))
  axes.tick_params('x', length=0)
  axes.grid(visible=False, axis='x')
  axes.set_ylim(0, 108)
  axes.set_yticks(range(0, 101, 25))
  figure.legend(loc='outside upper left', ncols=len(series), frameon=False)
  return canvas.svg(figure)


def _limits(values: list[float], always: list[float]) -> tuple[float, float]:
  """Returns an axis with `always`, but no low outliers (Tukey's fence)."""
  if not values + always:
    return 0.0, 100.0
  least, most = min(values + always), max(values + always)
  if values:
    lower, upper = np.percentile(values, [25, 75])
    fence = lower - 1.5 * (upper - lower)
    least = min([y for y in values if y >= fence] + always)
  room = max((most - least) * _MARGIN, 0.5)
  return max(0.0, least - room), most + room


def _averaged(points: Points) -> Points:
  """Returns at most _DRAWN points, means of equally many neighbours."""
  n = -(-len(points) // _DRAWN)
  if n <= 1:
    return points
  chunks = [points[i : i + n] for i in range(0, len(points), n)]
  return [tuple(np.mean(chunk, axis=0).tolist()) for chunk in chunks]


def _xy(points: Points) -> tuple[list[float], list[float]]:
  return [x for x, _ in points], [y for _, y in points]
