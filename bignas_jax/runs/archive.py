"""The archive of a run: every evaluated child, in `search/archive.csv`."""

import contextlib
import csv
import io
import json
import typing
from collections.abc import Iterable
from typing import Annotated, NamedTuple

from etils import epath

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.system import console, files, process, storage
from bignas_jax.values import errors, schema
from bignas_jax.values.schema import Meta

_Count = Annotated[int, Meta(ge=0)]


class Entry(NamedTuple):
  """One line of the archive; accuracies are on held-out training images."""

  arch: Arch
  macs: _Count
  params: _Count
  top1: Annotated[float, Meta(ge=0, le=1)]
  images: _Count
  calibration_images: _Count
  order: _Count
  strategy: str
  step: _Count  # of the supernet
  top5: Annotated[float, Meta(ge=0, le=1)] | None = None  # older files lack it


_REQUIRED = [name for name in Entry._fields if name != 'top5']
_KINDS = typing.get_type_hints(Entry, include_extras=True)
_MEND = 'an evaluated child; mend or delete the line'


class Archive:
  """An archive file, which is read when opened and then appended to.

  A full disk or a crash can leave a last line that is incomplete. This line is
  left out, and it is removed when a line is appended; all other lines stay as
  they are. A line counts only with its line end, because a number that was cut
  off is another number.

  In a run of several processes, the leader writes the file.

  Args:
    path: file of the archive, which may be missing.
    space: space of the children.

  Raises:
    UserError: the file or a line of it cannot be read, or is of another space.
  """

  def __init__(self, path: epath.Path, space: Space):
    self._path, self._space = path, space
    self.entries: list[Entry] = []
    self._columns: list[str] = list(Entry._fields)
    # What is written before the next line; None: the line is appended.
    self._before: bytes | None = _line(self._columns)
    if path.exists():
      self._read(files.read_bytes(path))

  def append(self, entry: Entry) -> None:
    """Adds a child, which is on disk when this returns.

    Raises:
      OSError: there is no room; the file is as it was.
    """
    if process.leads():
      cells = entry._asdict() | {'arch': arch_lib.to_json(entry.arch)}
      line = _line(cells.get(column, '') for column in self._columns)
      if self._before is None:
        storage.append(self._path, line.decode(), durable=True)
      else:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        storage.write(self._path, self._before + line)
        self._before = None
    self.entries.append(entry)

  def _read(self, content: bytes) -> None:
    *lines, cut = content.split(b'\n')
    there = [(i, line) for i, line in enumerate(lines, 1) if line.strip()]
    headless = bool(there) and self._is_entry(there[0][1])
    if there and not headless:
      self._columns = self._header(*there.pop(0))
    last = there[-1] if there and not cut else None
    for number, line in there:
      try:
        self.entries.append(self._entry(number, line))
      except _NotWhole as error:
        if (number, line) != last:
          raise self._damaged(number, error) from None
        cut = there.pop()[1]
    if cut and process.leads():
      console.say(
        f'warning: {self._path}: the last line is not whole, and is left out'
      )
    if not cut and not headless and lines:
      self._before = None
    else:
      kept = [line + b'\n' for _, line in there]
      self._before = b''.join([_line(self._columns), *kept])

  def _header(self, number: int, line: bytes) -> list[str]:
    """Returns the columns of a header, in any order and maybe with others.

    Raises:
      UserError: a column of `Entry` is missing.
    """
    try:
      columns = _cells(line)
    except _NotWhole:
      columns = []
    if not {*columns} >= {*_REQUIRED}:
      allowed = f'the columns {", ".join(_REQUIRED)}'
      raise errors.UserError(f'{self._path} line {number}', columns, allowed)
    return columns

  def _is_entry(self, line: bytes) -> bool:
    """Returns whether the first line is a child; old files have no header."""
    for self._columns in (_REQUIRED, [*Entry._fields]):
      with contextlib.suppress(_NotWhole):
        self._entry(1, line)
        return True
    return False

  def _entry(self, number: int, line: bytes) -> Entry:
    """Returns the checked entry of a line.

    Raises:
      _NotWhole: a part of the line may be missing.
      UserError: the line is complete, and wrong.
    """
    cells = _cells(line)
    if len(cells) != len(self._columns):
      raise _NotWhole(f'{len(cells)} of {len(self._columns)} columns')
    record = dict(zip(self._columns, cells, strict=True))
    try:
      values = {
        name: record[name] if kind is str else json.loads(record[name])
        for name, kind in _KINDS.items()
        if name in _REQUIRED or record.get(name)
      }
    except (ValueError, RecursionError) as error:
      raise _NotWhole(str(error)) from None
    try:
      arch = arch_lib.from_dict(self._space, values.pop('arch'))
      fields = {
        name: schema.convert(_KINDS[name], value, name)
        for name, value in values.items()
      }
    except errors.UserError as error:
      raise self._damaged(number, error) from None
    return Entry(arch=arch, **fields)

  def _damaged(self, number: int, why: Exception) -> errors.UserError:
    return errors.UserError(f'{self._path} line {number}', str(why), _MEND)


class _NotWhole(Exception):
  """An error of a line that may be incomplete."""


def _line(cells: Iterable[object]) -> bytes:
  file = io.StringIO(newline='')
  csv.writer(file).writerow(list(cells))
  return file.getvalue().encode()


def _cells(line: bytes) -> list[str]:
  """Returns the cells of a line without its line end.

  Raises:
    _NotWhole: the line is not a line of a CSV file.
  """
  try:
    (cells,) = csv.reader([line.decode()], strict=True)
  except (UnicodeDecodeError, ValueError, csv.Error) as error:
    raise _NotWhole(str(error)) from None
  return cells
