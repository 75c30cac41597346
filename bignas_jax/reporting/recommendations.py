"""What `search/recommended.json` holds, as far as it is read again."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from etils import epath

from bignas_jax.reporting import contents, formats

NAME = 'recommended.json'
_HEADINGS = (
  *('child', 'device', 'limits', 'top-1, %', 'int8 top-1, %'),
  *('predicted, ms', 'measured, ms', 'bytes', 'files to copy'),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Float32:
  """Holds accuracies of a recommended child by split."""

  held_out: contents.Images
  test: contents.Images | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Int8:
  """Holds accuracies of a recommended child's int8 artifact by split."""

  test: contents.Images


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accuracies:
  """Holds accuracies of a recommended child by precision."""

  float32: Float32
  int8: Int8 | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recommendation:
  """Describes a child in `search/recommended.json`."""

  arch: dict[str, Any]
  accuracy: Accuracies
  child: contents.Text = None
  device: contents.Text = None
  runtime: contents.Text = None
  batch: contents.Number = None
  statistic: contents.Text = None
  limits: dict[str, contents.Number] = dataclasses.field(default_factory=dict)
  macs: contents.Number = None
  params: contents.Number = None
  bytes: contents.Number = None
  file_bytes: contents.Number = None
  predicted_ms: contents.Number = None
  measured_ms: contents.Number = None
  file: contents.Text = None
  int8_file: contents.Text = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recommended:
  """Holds `search/recommended.json`."""

  recommended: tuple[Recommendation, ...]


def read(search: epath.Path) -> tuple[Recommendation, ...]:
  """Returns the recommended children; none if there is no file.

  Args:
    search: directory of the run's searches.

  Raises:
    UserError: the file is damaged.
  """
  content = contents.read(search / NAME, Recommended)
  return () if content is None else content.recommended


def table(entries: Sequence[Recommendation]) -> str:
  """Returns recommended children as a table in plain text, a line for each.

  Accuracies are those on test images. What is not known is a dash.
  """
  rows = [_HEADINGS, *map(_cells, entries)]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return '\n'.join(
    '  '.join(map(str.ljust, row, widths)).rstrip() for row in rows
  )


def _cells(entry: Recommendation) -> tuple[str, ...]:
  percent, test = formats.FILTERS['percent'], entry.accuracy.float32.test
  small = entry.accuracy.int8
  device = entry.device or formats.NOTHING
  if entry.device and entry.runtime:
    device += f' ({entry.runtime})'
  files = [file for file in (entry.file, entry.int8_file) if file]
  return (
    entry.child or formats.NOTHING,
    device,
    formats.limits(entry.limits) or 'no limits',
    percent(test.top1 if test else None),
    percent(small.test.top1 if small else None),
    formats.shown(entry.predicted_ms),
    formats.shown(entry.measured_ms),
    formats.short(entry.bytes),
    ', '.join(files) or 'not extracted',
  )
