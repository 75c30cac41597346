"""What a report is written with: numbers as text, text as HTML.

All text goes through `text`, so that a name in a file cannot become markup.
"""

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bignas_jax.reporting import plots
from bignas_jax.spaces.arch import Arch
from bignas_jax.values import structs

LOG_FROM = 30  # largest over smallest value of a curve
_BOUND = 1e100  # of what is a number: float32 ends at 3e38
NOTHING = '\N{EN DASH}'
STYLE = """
:root { color: #222; background: #fff;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
body { max-width: 60rem; margin: 2.5rem auto 4rem; padding: 0 1.2rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.3rem; margin: 3rem 0 .6rem; padding-top: .9rem;
  border-top: 1px solid #ddd; }
h3 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
p { max-width: 44rem; margin: .5rem 0; }
.facts, figcaption, caption, .card small { color: #666; }
.cards { display: grid; gap: 1rem; margin: 1.4rem 0;
  grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); }
.card { border: 1px solid #ddd; border-top: 3px solid #1f4e9c;
  border-radius: 4px; padding: .7rem 1rem .8rem; }
.card.best { border-top-color: #e0482e; }
.card strong { display: block; font-size: 1.7rem; line-height: 1.3; }
.card span, .card small { display: block; }
.missing { background: #f6f6f4; border-left: 3px solid #bbb;
  padding: .6rem 1rem; }
.pair { display: grid; gap: 0 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); }
figure { margin: 1rem 0; break-inside: avoid; }
figcaption, caption { font-size: .88rem; text-align: left; max-width: 44rem; }
svg { width: 100%; height: auto; display: block; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto,
  sans-serif !important; }
.whole { white-space: nowrap; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
caption { padding-bottom: .4rem; }
th, td { padding: .25rem .9rem .25rem 0; text-align: left; white-space: nowrap;
  border-bottom: 1px solid #e8e8e8; }
th { font-weight: 600; border-bottom-color: #aaa; vertical-align: bottom; }
td.n, th.n { text-align: right; }
tr.strong td { font-weight: 600; background: #fdf3ef; }
code, pre { font: .86em ui-monospace, Menlo, Consolas, monospace; }
code { background: #f1f1ee; padding: .1em .35em; border-radius: 3px;
  overflow-wrap: anywhere; }
pre { background: #f6f6f4; padding: 1rem; overflow-x: auto; }
summary { cursor: pointer; }
@media print { body { margin: 0; } h2 { break-after: avoid; }
  tr, .card { break-inside: avoid; } pre { white-space: pre-wrap; } }
"""


# Numbers as text.


class Integer(NamedTuple):
  """A cell: 1234567 as 1,234,567."""

  value: Any


class Percent(NamedTuple):
  """A cell: 0.9712 as 97.1."""

  value: Any


def number(value: Any) -> float | None:
  """A number that a picture can show, or None, whatever a file held."""
  if isinstance(value, bool) or not isinstance(value, int | float):
    return None
  return float(value) if abs(value) < _BOUND else None


def integer(value: Any) -> str:
  found = number(value)
  return NOTHING if found is None else f'{round(found):,}'


def percent(value: Any) -> str:
  found = number(value)
  return NOTHING if found is None else f'{100 * found:.1f}'


def digits(value: Any) -> str:
  """12.345 as 12.3."""
  found = number(value)
  return NOTHING if found is None else f'{found:.3g}'


def small(value: Any) -> str:
  """0.0000123 as 1.2e-05."""
  found = number(value)
  return NOTHING if found is None else f'{found:.1e}'


def short(value: Any) -> str:
  """1234567 as 1.23 M."""
  found = number(value)
  if found is None:
    return NOTHING
  for unit, size in (('G', 1e9), ('M', 1e6), ('k', 1e3)):
    if found >= size:
      digits = max(0, 2 - int(math.log10(found / size)))
      return f'{found / size:.{digits}f} {unit}'
  return f'{found:.0f}'


def duration(seconds: float) -> str:
  for unit, size in (('hours', 3600), ('minutes', 60)):
    if seconds >= 1.5 * size:
      return f'{seconds / size:.1f} {unit}'
  return f'{seconds:.0f} seconds'


def limits(given: Mapping[str, Any] | None) -> str:
  """{'max_macs': 1e6} as: at most 1,000,000 MACs."""
  words = {'max': 'at most', 'min': 'at least'}
  units = {
    'macs': 'MACs',
    'params': 'parameters',
    'activation_bytes': 'bytes of activations',
    'file_bytes': 'bytes of weights',
    'latency_ms': 'ms',
  }
  told = []
  for name, value in (given or {}).items():
    end, _, what = name.partition('_')
    found = number(value)
    if found is not None:
      shown = f'{found:g}' if what == 'latency_ms' else integer(value)
      told.append(f'{words.get(end, end)} {shown} {units.get(what, what)}')
  return ', '.join(told)


def entries(arch: Arch) -> list[str]:
  """Resolution, width, depth, kernel size and expand ratio."""
  lists = arch.width, arch.depth, arch.kernel_size, arch.expand_ratio
  return [str(arch.resolution), *(' '.join(map(str, each)) for each in lists)]


def split(name: Any) -> str:
  return str(name or 'unnamed').replace('_', '-')


# HTML; what these return is markup, what they are given is text.


def text(value: Any) -> str:
  return html.escape(structs.encodable(str(value)))


def prose(words: str) -> str:
  """Text in which no line ends within `top-1`."""
  return re.sub(
    r'(?i)\b(top-\d)', r'<span class="whole">\1</span>', text(words)
  )


def p(words: str) -> str:
  return f'<p>{prose(words)}</p>'


def missing(sentence: str, command: str) -> str:
  return (
    f'<p class="missing">{text(sentence)} <code>{text(command)}</code>.</p>'
  )


def section(title: str, body: str) -> str:
  """A heading and markup below it."""
  return f'<section><h2>{text(title)}</h2>{body}</section>'


def table(
  head: Sequence[str],
  rows: Sequence[Sequence[Any]],
  caption: str = '',
  strong: Sequence[int] = (),
) -> str:
  """Numbers stand at the right, below a heading that does too."""
  kinds = [isinstance(value, Integer | Percent) for value in (rows or [[]])[0]]
  cells = ''.join(
    f'<th{" class=n" if right else ""}>{text(name)}</th>'
    for name, right in zip(head, kinds or [False] * len(head), strict=False)
  )
  body = ''.join(
    f'<tr{" class=strong" if i in strong else ""}>'
    f'{"".join(map(cell, row))}</tr>'
    for i, row in enumerate(rows)
  )
  told = f'<caption>{text(caption)}</caption>' if caption else ''
  above = f'<thead><tr>{cells}</tr></thead>' if head else ''
  return (
    f'<div class="scroll"><table>{told}{above}<tbody>{body}</tbody></table>'
    '</div>'
  )


def cell(value: Any) -> str:
  if isinstance(value, Integer):
    return f'<td class="n">{integer(value.value)}</td>'
  if isinstance(value, Percent):
    return f'<td class="n">{percent(value.value)}</td>'
  return f'<td>{text(value)}</td>'


def curves(name, lines, ylabel, caption, size=plots.HALF) -> str:
  """A picture of curves over steps; nothing if there are none."""
  lines = {label: points for label, points in lines.items() if points}
  values = [value for points in lines.values() for _, value in points]
  if not values:
    return ''
  share = ylabel.endswith('%')  # of 100: what matters is near the top
  log = not share and min(values) > 0 and max(values) > LOG_FROM * min(values)
  return figure(name, plots.curves(lines, ylabel, log, size), caption)


def pair(*figures: str) -> str:
  return f'<div class="pair">{"".join(figures)}</div>'


def figure(name: str, svg: str, caption: str) -> str:
  """An SVG document inside the page, its identifiers made unique there."""
  svg = svg[svg.index('<svg') :]
  svg = re.sub(r'\bid="', f'id="{name}-', svg)
  svg = re.sub(r'(url\(#|href="#)', rf'\g<1>{name}-', svg)
  label = f'role="img" aria-label="{text(caption)}"'
  svg = svg.replace('<svg', f'<svg {label}', 1)
  return (
    f'<figure id="{name}">{svg}<figcaption>{prose(caption)}</figcaption>'
    '</figure>'
  )


def page(title: str, sections: Iterable[str]) -> str:
  """The policy lets the page load nothing, whatever is in it."""
  return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'">
<title>{text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{chr(10).join(sections)}
</main>
</body>
</html>
"""
