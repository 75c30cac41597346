"""What the JSON files of a run hold, as far as a report reads them.

A file that a full disk, a person or another program has changed may hold
anything. What is missing or null is None, and shown as unknown; what has
another type than here is an error that names the file and the field.
"""

import dataclasses
from typing import Any, TypeVar

from etils import epath

from bignas_jax.spaces import latency
from bignas_jax.system import files
from bignas_jax.values import schema, structs

T = TypeVar('T')
Number = int | float | None
Text = str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Commit:
  """Of the code, in a sitting."""

  sha: Text = None
  dirty: bool | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sitting:
  """One start of the training command, in `run.json`."""

  started: Text = None
  status: Text = None
  first_step: Number = None
  step: Number = None
  hours: Number = None
  devices: Number = None
  device_kind: Text = None
  hosts: tuple[str, ...] | None = None
  commit: Commit | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
  """`run.json`."""

  status: Text = None
  step: Number = None
  of: Number = None
  images: Number = None
  hours: Number = None
  sittings: tuple[Sitting, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Best:
  """`search/best.json`; its architecture is read by itself."""

  strategy: Text = None
  step: int | None = None
  macs: Number = None
  params: Number = None
  top1: Number = None
  seconds: Number = None
  limits: dict[str, Number] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uncalibrated:
  """Accuracies with statistics that are not a child's own."""

  borrowed: Number = None
  initial: Number = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibrated:
  """A child in `search/calibration.json`."""

  name: Text = None
  macs: Number = None
  calibrated: Number = None
  uncalibrated: Uncalibrated | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
  """`search/calibration.json`."""

  split: Text = None
  borrowed_from: Text = None
  children: tuple[Calibrated, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictor:
  """`search/predictor.json`."""

  children: Number = None
  folds: Number = None
  rank_correlation: Number = None
  mean_abs_error: Number = None
  predicted: tuple[Number, ...] | None = None
  measured: tuple[Number, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
  """What was measured on how many images of a split, in `child.json`.

  That is `accuracy`, `calibration`, `parity`, and an export's `reference`:
  each has some of the fields.
  """

  images: Number = None
  split: Text = None
  seed: Number = None
  top1: Number = None
  top5: Number = None
  max_abs_diff: Number = None
  logits_scale: Number = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
  """Where a child comes from, in `child.json`."""

  step: Number = None
  config_sha256: Text = None
  version: Text = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Child:
  """`child.json`; its space and its architecture are read by themselves."""

  macs: Number = None
  params: Number = None
  accuracy: Images | None = None
  calibration: Images | None = None
  parity: Images | None = None
  source: Source | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
  """An artifact, in `export.json`."""

  max_abs_diff: Number = None
  top1_agreement: Number = None
  bytes: Number = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exports:
  """`export.json`."""

  reference: Images | None = None
  formats: dict[str, Format] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timed:
  """A child in one runtime at one batch size, in `latency.json`."""

  device: Text = None
  runtime: Text = None
  batch: Number = None
  median_ms: Number = None
  p90_ms: Number = None
  least_ms: Number = None
  images_per_s: Number = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
  """`latency.json`."""

  rows: tuple[Timed, ...] | None = None


def read(path: epath.Path, kind: type[T]) -> T | None:
  """Returns what a JSON file holds; None: there is no such file.

  Raises:
    UserError: it cannot be read, is no JSON object, or of another kind.
  """
  found = plain(path)
  if found is None:
    return None
  return schema.convert(kind, files.finite(found), f'{path}:', others=True)


def plain(path: epath.Path) -> dict[str, Any] | None:
  """Returns a JSON object as it stands in its file; None: there is no file.

  Raises:
    UserError: it cannot be read, or is no JSON object.
  """
  return structs.encodable(files.read_json(path)) if path.exists() else None


def measured_ms(found: Measured | None, table: latency.Table) -> float | None:
  """What a child took where, and as, the table was measured.

  Args:
    found: contents of MEASURED.
    table: of which device, runtime and batch.

  Returns:
    Milliseconds of a batch, the table's statistic of several; None: it was
    measured in another way.
  """
  names = 'device', 'runtime', 'batch'
  for row in (found and found.rows) or ():
    if all(getattr(row, name) == table.about[name] for name in names):
      return getattr(row, f'{table.about.get("statistic")}_ms', None)
  return None
