"""The table of a supernet's children, one a budget, in `search/children.csv`.

The first nine columns are those of timm's results files, with their units:
percent, and millions of parameters.
"""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
from etils import epath

from bignas_jax.costs import counting
from bignas_jax.runs.archive import Entry
from bignas_jax.runs.config import Config
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.strategies import additive
from bignas_jax.strategies.problem import Problem
from bignas_jax.system import files
from bignas_jax.values import errors, schema

NAME = 'children.csv'
COLUMNS = (
  *('model', 'top1', 'top1_err', 'top5', 'top5_err', 'param_count'),
  *('img_size', 'crop_pct', 'interpolation'),  # so far timm's
  *('budget', 'macs', 'arch', 'basis', 'file'),
)
# What an accuracy is: measured on held-out images, or a sum of block scores.
EVALUATED, PREDICTED = 'held_out', 'predicted'
_BUDGETS = 8
_DIGITS = 3  # significant, of a budget
_INTERPOLATION = {'bilinear': 'bilinear'}  # of `Space.resize`; else bicubic
_SHARE: Any = Annotated[float, schema.Meta(ge=0, le=1)]
_MACS: Any = schema.AtLeastZero
_PERCENT = 100
_MEND = 'a table that `search` wrote; search again'


class Row(NamedTuple):
  """One child of the table.

  Attributes:
    budget: most MACs that it may have.
    arch: the child.
    top1: accuracy on held-out images, 0..1.
    top5: the same; None: not known.
    basis: EVALUATED or PREDICTED.
    file: file to copy, relative to the work directory; '': none yet.
  """

  budget: int
  arch: Arch
  top1: float
  top5: float | None
  basis: str
  file: str = ''


def budgets(space: Space) -> list[int]:
  """Returns budgets of MACs from the smallest to the biggest child.

  Each is a constant factor above the one before, and rounded up.
  """
  ends = arch_lib.smallest(space), arch_lib.biggest(space)
  low, high = (counting.cost(space, arch).macs for arch in ends)
  exact = np.geomspace(low, high, _BUDGETS)
  return list(dict.fromkeys(_rounded_up(budget) for budget in exact))


def _rounded_up(number: float) -> int:
  unit = 10 ** max(0, math.floor(math.log10(number)) + 1 - _DIGITS)
  return unit * math.ceil(number / unit - 1e-9)


def make(space: Space, entries: Iterable[Entry]) -> list[Row]:
  """Returns the best child within each budget, by what is in the archive.

  A budget that finds the child of the budget before it has no row. If block
  scores were measured (strategy `additive`), they answer budgets within which
  no child was evaluated. Elsewhere a child that was not evaluated is taken if
  its prediction, less the standard error of the scores, is above the accuracy
  of all that were.

  Args:
    space: space of the children.
    entries: children that were evaluated with equal weights and calibration.
  """
  scored = {entry.arch: entry for entry in entries}
  promise = None
  if any(entry.strategy == 'additive' for entry in scored.values()):
    promise = _Scores(space, {a: entry.top1 for a, entry in scored.items()})
  rows: list[Row] = []
  for budget in budgets(space):
    within = [entry for entry in scored.values() if entry.macs <= budget]
    row = None
    if within:
      best = max(within, key=lambda entry: (entry.top1, -entry.macs))
      row = Row(budget, best.arch, best.top1, best.top5, EVALUATED)
    if promise is not None:
      row = promise.better(budget, row)
    if row is not None and (not rows or rows[-1].arch != row.arch):
      rows.append(row)
  return rows


class _Scores:
  """Scores of single choices, and children that they promise most of.

  Args:
    space: space of the children.
    scores: top-1 of the children that were evaluated.
  """

  def __init__(self, space: Space, scores: dict[Arch, float]):
    self._space, self._scores = space, scores
    self._shares = additive.fit(space, scores)
    self._mean = sum(scores.values()) / len(scores)
    self._error = additive.standard_error(space, self._shares, scores)

  def better(self, budget: int, row: Row | None) -> Row | None:
    """Returns the child that is promised within a budget, or the row itself."""
    space = self._space
    fits = lambda arch: counting.cost(space, arch).macs <= budget  # noqa: E731
    problem = Problem(
      space,
      score=self._scores.__getitem__,
      costs=lambda arch: {},
      fits=fits,
      start=arch_lib.smallest(space),
    )
    best = additive.promising(
      problem, self._shares, self._scores, arch_lib.generator(0, 6)
    )
    if not best:
      return row
    predicted = self._mean + additive.predict(space, self._shares, best[0])
    if row is not None and not predicted - self._error > row.top1:
      return row
    top1 = min(1.0, max(0.0, predicted))
    return Row(budget, best[0], top1, None, PREDICTED)


def write(path: epath.Path, config: Config, space: Space, rows: Sequence[Row]):
  """Writes the table as a CSV file."""
  file = io.StringIO(newline='')
  lines = csv.DictWriter(file, COLUMNS, lineterminator='\n')
  lines.writeheader()
  for number, row in enumerate(rows, 1):
    lines.writerow(_cells(config, space, number, row))
  files.write_text(path, file.getvalue())


def _cells(
  config: Config, space: Space, number: int, row: Row
) -> dict[str, Any]:
  cost = counting.cost(space, row.arch)
  return {
    'model': f'{space.name}_{number}',
    **_accuracy('top1', row.top1),
    **_accuracy('top5', row.top5),
    'param_count': f'{cost.params / 1e6:g}',
    'img_size': row.arch.resolution,
    'crop_pct': f'{config.data.eval_crop:.3f}',
    'interpolation': _INTERPOLATION.get(space.resize, 'bicubic'),
    'budget': row.budget,
    'macs': cost.macs,
    'arch': arch_lib.to_json(row.arch),
    'basis': row.basis,
    'file': row.file,
  }


def _accuracy(name: str, value: float | None) -> dict[str, str]:
  if value is None:
    return {name: '', f'{name}_err': ''}
  percent = _PERCENT * value
  errs = _PERCENT - percent
  return {name: f'{percent:.3f}', f'{name}_err': f'{errs:.3f}'}


def read(path: epath.Path, space: Space) -> list[Row]:
  """Returns the rows of a table; none if there is no file.

  Raises:
    UserError: the file or a line is damaged, or is of another space.
  """
  if not path.exists():
    return []
  lines = csv.DictReader(io.StringIO(files.read_text(path)), strict=True)
  try:
    columns, every = lines.fieldnames or (), list(lines)
  except csv.Error as error:
    raise errors.UserError(str(path), str(error), _MEND) from None
  if not {*columns} >= {*COLUMNS}:
    raise errors.UserError(str(path), ','.join(columns)[:80], _MEND)
  rows = []
  for number, cells in enumerate(every, 1):
    with errors.within(f'{path} child {number}'):
      rows.append(_row(space, cells))
  return rows


def _row(space: Space, cells: dict[str, Any]) -> Row:
  """Returns the row of a line's cells; UserError names a wrong one."""
  if None in (*cells, *cells.values()):
    raise errors.UserError('cells', 'too few or too many', _MEND)

  def number(name: str) -> float:
    text = cells.get(name) or ''
    try:
      return float(text)
    except ValueError:
      raise errors.UserError(name, text, 'a number') from None

  def share(name: str) -> float:
    return schema.convert(_SHARE, number(name) / _PERCENT, name)

  arch = files.parse_json(cells.get('arch') or '', 'arch')
  return Row(
    budget=int(schema.convert(_MACS, number('budget'), 'budget')),
    arch=arch_lib.from_dict(space, arch),
    top1=share('top1'),
    top5=share('top5') if cells.get('top5') else None,
    basis=cells.get('basis') or EVALUATED,
    file=cells.get('file') or '',
  )


def child(path: epath.Path, space: Space, text: str) -> Arch:
  """Returns a child of the table by its number from 1, as text.

  Raises:
    UserError: there is no such child, or the table is damaged.
  """
  rows = read(path, space)
  if not rows:
    allowed = f'a child of a searched run; there is no {path}'
    raise errors.UserError('--arch', f'table:{text}', allowed)
  numbers = [str(number) for number in range(1, len(rows) + 1)]
  if text not in numbers:
    allowed = f'table:1 to table:{len(rows)}, a line of {path}'
    raise errors.UserError('--arch', f'table:{text}', allowed)
  return rows[int(text) - 1].arch
