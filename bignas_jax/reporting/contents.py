"""What the JSON files of a run hold, as far as a report reads them.

A file that a full disk, a person or another program has changed may hold
anything. What is missing or null has the default below, and is shown as
unknown; what has another type is an error that names the file and the field.
"""

import dataclasses
from typing import Any, TypeVar

from etils import epath

from bignas_jax.system import files
from bignas_jax.values import schema, structs

T = TypeVar('T')
Number = int | float | None
Text = str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Commit:
  """Names the code of a session."""

  sha: Text = None
  dirty: bool | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Session:
  """Describes one start of the training command, in `run.json`."""

  started: Text = None
  status: Text = None
  first_step: Number = None
  step: Number = None
  hours: Number = None
  devices: Number = None
  device_kind: Text = None
  hosts: tuple[str, ...] = ()
  commit: Commit = Commit()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seconds:
  """Holds what the time of all sessions was spent on."""

  training: Number = None
  repeated: Number = None
  input_wait: Number = None
  compiling: Number = None
  saving: Number = None
  evaluating: Number = None
  other: Number = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
  """Holds `run.json`."""

  status: Text = None
  step: Number = None
  of: Number = None
  images: Number = None
  hours: Number = None
  seconds: Seconds = Seconds()
  goodput: Number = None
  repeated_steps: Number = None
  sittings: tuple[Session, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Best:
  """Holds `search/best.json`; its architecture is read by itself."""

  strategy: Text = None
  step: int | None = None
  macs: Number = None
  params: Number = None
  top1: Number = None
  seconds: Number = None
  limits: dict[str, Number] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uncalibrated:
  """Holds accuracies with statistics that are not a child's own."""

  borrowed: Number = None
  initial: Number = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibrated:
  """Describes a child in `search/calibration.json`."""

  name: Text = None
  macs: Number = None
  calibrated: Number = None
  uncalibrated: Uncalibrated = Uncalibrated()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
  """Holds `search/calibration.json`."""

  split: Text = None
  borrowed_from: Text = None
  children: tuple[Calibrated, ...] = ()

  @property
  def lender(self) -> str:
    """Returns the name of the child whose statistics the others borrowed."""
    return self.borrowed_from or 'biggest'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
  """Holds what was measured on how many images of a split, in `child.json`.

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
class Predictor:
  """Holds `search/predictor.json`."""

  predictor: Text = None  # None: trees
  children: Number = None
  folds: Number = None
  rank_correlation: Number = None
  mean_abs_error: Number = None
  predicted: tuple[Number, ...] = ()
  measured: tuple[Number, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranked:
  """Describes a child in `ranking.json`."""

  top1: Number = None
  indicators: dict[str, Number] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Correlation:
  """Says how well an indicator ranks, in `ranking.json`."""

  tau: Number = None
  low: Number = None
  high: Number = None
  p: Number = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranking:
  """Holds `ranking.json`."""

  step: Number = None
  steps: Number = None
  images: Number = None
  level: Number = None
  children: tuple[Ranked, ...] = ()
  indicators: dict[str, Correlation] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
  """Says where a child comes from, in `child.json`."""

  step: Number = None
  config_sha256: Text = None
  version: Text = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Child:
  """Holds `child.json`; its space and architecture are read by themselves."""

  macs: Number = None
  params: Number = None
  accuracy: Images = Images()
  calibration: Images = Images()
  parity: Images = Images()
  source: Source = Source()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reduced:
  """Describes an artifact in int8 or float16, in `export.json`."""

  file: Text = None
  images: Number = None
  top1: Number = None
  bytes: Number = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
  """Describes an artifact, in `export.json`."""

  max_abs_diff: Number = None
  top1_agreement: Number = None
  bytes: Number = None
  files: dict[str, Any] = dataclasses.field(default_factory=dict)
  int8: Reduced | None = None
  float16: Reduced | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exports:
  """Holds `export.json`."""

  reference: Images = Images()
  formats: dict[str, Format] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timed:
  """Times a child in one runtime at one batch size, in `latency.json`."""

  device: Text = None
  runtime: Text = None
  batch: Number = None
  median_ms: Number = None
  p90_ms: Number = None
  least_ms: Number = None
  images_per_s: Number = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
  """Holds `latency.json`; None: it is another file."""

  rows: tuple[Timed, ...] | None = None


def read(path: epath.Path, kind: type[T]) -> T | None:
  """Returns what a JSON file holds; None: there is no such file.

  Raises:
    UserError: it cannot be read, is no JSON object, or of another kind.
  """
  content = plain(path)
  if content is None:
    return None
  content = _without_nulls(files.finite(content))
  return schema.convert(kind, content, f'{path}:', others=True)


def _without_nulls(value: Any) -> Any:
  """Returns a JSON value without the fields that are null."""
  if isinstance(value, dict):
    fields = {name: v for name, v in value.items() if v is not None}
    return {name: _without_nulls(inner) for name, inner in fields.items()}
  if isinstance(value, list):
    return [_without_nulls(inner) for inner in value]
  return value


def plain(path: epath.Path) -> dict[str, Any] | None:
  """Returns a JSON object as it stands in its file; None: there is no file.

  Raises:
    UserError: it cannot be read, or is no JSON object.
  """
  return structs.encodable(files.read_json(path)) if path.exists() else None


def measured_ms(measured: Measured, about: dict[str, Any]) -> float | None:
  """Returns what a child took where, and as, a latency table was measured.

  Args:
    measured: what `benchmark child` measured.
    about: what the table says of itself: `device`, `runtime`, `batch` and
      `statistic`; a device of None: there is no table.

  Returns:
    Milliseconds of a batch, the table's statistic of several; None if it was
    measured in another way.
  """
  names = 'device', 'runtime', 'batch'
  if about['device'] is None:
    return None
  for row in measured.rows or ():
    if all(getattr(row, name) == about[name] for name in names):
      return getattr(row, f'{about.get("statistic")}_ms', None)
  return None
