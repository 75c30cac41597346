"""What `search/recommended.json` holds, as far as it is read again."""

import dataclasses
from typing import Any

from etils import epath

from bignas_jax.reporting import contents

NAME = 'recommended.json'


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
