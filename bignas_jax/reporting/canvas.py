"""What all pictures share: style, axes and SVG; alone imports matplotlib."""

import io
import warnings
from typing import Any

import matplotlib
import matplotlib.figure

INK = '#444444'

# For our own pictures alone: a notebook has a style, and a backend, of its own.
_STYLE: Any = {
  'svg.fonttype': 'none',  # text stays text: it can be searched and copied
  'svg.hashsalt': 'bignas_jax',  # the same picture has the same bytes
  'text.parse_math': False,  # a child may be called '$'
  'font.size': 9,
  'text.color': INK,
  'axes.labelcolor': INK,
  'axes.edgecolor': '#9a9a9a',
  'xtick.color': INK,
  'ytick.color': INK,
  'lines.linewidth': 1.6,
}
styled = matplotlib.rc_context(_STYLE)


def figure(xlabel: str, ylabel: str, size: tuple[float, float]):
  """Returns a figure of so many inches, and its labelled axes."""
  whole = matplotlib.figure.Figure(figsize=size, layout='constrained')
  axes = whole.subplots()
  axes.set_xlabel(xlabel)
  axes.set_ylabel(ylabel)
  axes.grid(color='#ececec', linewidth=0.8)
  axes.set_axisbelow(True)
  for side in ('top', 'right'):
    axes.spines[side].set_visible(False)
  return whole, axes


def note(axes, text: str, at, coordinates, offset) -> None:
  """Writes text that ends some points away from a place."""
  axes.annotate(
    text,
    at,
    xycoords=coordinates,
    xytext=offset,
    textcoords='offset points',
    ha='right',
  )


def svg(figure) -> str:
  """Returns a figure as SVG text, of equal bytes for equal pictures."""
  text = io.StringIO()
  nothing = dict.fromkeys(('Date', 'Creator', 'Format', 'Type'))
  with warnings.catch_warnings():
    # Text stays text: what matplotlib's font lacks, the reader's may have.
    warnings.filterwarnings('ignore', 'Glyph .* missing from font')
    figure.savefig(
      text, format='svg', metadata=nothing, facecolor='none', edgecolor='none'
    )
  return text.getvalue()
