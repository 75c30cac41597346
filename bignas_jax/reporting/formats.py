"""Numbers as text, for the page's templates, where these are filters."""

import functools
import math
from collections.abc import Mapping
from typing import Any

_BOUND = 1e100  # of what is a number: float32 ends at 3e38
NOTHING = '\N{EN DASH}'


def number(value: Any) -> float | None:
  """Returns a number that a picture can show, or None, whatever a file held."""
  if isinstance(value, bool) or not isinstance(value, int | float):
    return None
  return float(value) if abs(value) < _BOUND else None


def shown(value: Any, form: str = '.3g', scale: float = 1) -> str:
  """Returns a number times `scale` in a format of Python's, or a dash."""
  amount = number(value)
  return NOTHING if amount is None else format(scale * amount, form)


def share(value: Any, whole: Any) -> float | None:
  """Returns value / whole; None: one is unknown, or the whole is 0."""
  amount, of = number(value), number(whole)
  return amount / of if amount is not None and of else None


def short(value: Any) -> str:
  """Writes 1234567 as 1.23 M."""
  amount = number(value)
  if amount is None:
    return NOTHING
  for unit, size in (('G', 1e9), ('M', 1e6), ('k', 1e3)):
    if amount >= size:
      digits = max(0, 2 - int(math.log10(amount / size)))
      return f'{amount / size:.{digits}f} {unit}'
  return f'{amount:.0f}'


def duration(value: Any, unit: float = 1) -> str:
  """Writes a time in units of so many seconds as hours, minutes or seconds."""
  amount = number(value)
  if amount is None:
    return NOTHING
  for name, size in (('hours', 3600), ('minutes', 60)):
    if amount * unit >= 1.5 * size:
      return f'{amount * unit / size:.1f} {name}'
  return f'{amount * unit:.0f} seconds'


def limits(given: Mapping[str, Any]) -> str:
  """Writes {'max_macs': 1e6} as: at most 1,000,000 MACs."""
  words = {'max': 'at most', 'min': 'at least'}
  units = {
    'macs': 'MACs',
    'params': 'parameters',
    'activation_bytes': 'bytes of activations',
    'file_bytes': 'bytes of weights',
    'memory_bytes': 'bytes of memory',
    'latency_ms': 'ms',
  }
  texts = []
  for name, value in given.items():
    end, _, what = name.partition('_')
    if number(value) is not None:
      text = shown(value, 'g' if what == 'latency_ms' else 'z,.0f')
      texts.append(f'{words.get(end, end)} {text} {units.get(what, what)}')
  return ', '.join(texts)


FILTERS = {
  'number': number,
  'shown': shown,
  'integer': functools.partial(shown, form='z,.0f'),
  'percent': functools.partial(shown, form='.1f', scale=100),
  'share': share,
  'short': short,
  'duration': duration,
  'limits': limits,
}
