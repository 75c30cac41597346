"""The record of `fit` in a work directory, `fit.json`, and its clock.

The record holds what was asked, what was measured, and the seconds that each
phase took, over all sessions. An interrupted command goes on from it.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

import bignas_jax
from bignas_jax.fitting.survey import Survey
from bignas_jax.fitting.trial import Measured
from bignas_jax.runs import directory
from bignas_jax.system import files
from bignas_jax.values import errors, schema, stored

NAME, CONFIG = 'fit.json', 'config.py'
_FORMAT = 1
_SECONDS = 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
  """The contents of `fit.json`.

  Attributes:
    version: version of this package that wrote the file.
    images: the images, as they were asked for, with an absolute path.
    minutes: time for everything.
    survey: what the images are like.
    size: number of the row of `rules.SIZES` that was chosen; None: none is yet.
    measured: seconds of the chosen config's parts; None: not measured yet.
    evaluations: number of children that each search evaluates; None: the
      searches have not begun.
    spent_s: seconds of each phase, over all sessions.
    format: number of the file's format.
  """

  version: str
  images: str
  minutes: schema.Positive
  survey: Survey
  size: schema.Whole | None = None
  measured: Measured | None = None
  evaluations: schema.Natural | None = None
  spent_s: dict[str, schema.AtLeastZero] = dataclasses.field(
    default_factory=dict
  )
  format: int = _FORMAT


def new(images: str, minutes: float, survey: Survey) -> Record:
  """Returns the record of a command that begins."""
  return Record(
    version=bignas_jax.__version__,
    images=images,
    minutes=minutes,
    survey=survey,
  )


def read(workdir: epath.Path, images: str, minutes: float) -> Record | None:
  """Returns the record of an interrupted command; None: nothing has begun.

  Raises:
    UserError: the directory was begun for something else, holds a run or a
      config that `fit` did not write, or lies among the images.
  """
  root, place = (os.path.realpath(os.fspath(p)) for p in (images, workdir))
  if images and os.path.commonpath([root, place]) == root:
    allowed = f'a directory that is not in that of the images, {images}'
    raise errors.UserError('--workdir', str(workdir), allowed)
  path = workdir / NAME
  if not path.is_file():
    for name in CONFIG, 'config.json':
      if (workdir / name).exists():
        allowed = f'a new directory, or one that fit began; there is a {name}'
        raise errors.UserError('--workdir', str(workdir), allowed)
    return None
  fields = files.read_json(path)
  stored.check_format(fields, _FORMAT, str(path))
  record = schema.convert(Record, fields, f'{path}:', others=True)
  for field, here, there in (
    ('--images', images, record.images),
    ('--minutes', minutes, record.minutes),
  ):
    if here != there:
      allowed = f'{there!r}, with which {workdir} was begun; or another workdir'
      raise errors.UserError(field, here, allowed)
  return record


def writable(workdir: epath.Path) -> None:
  """Raises UserError if the directory cannot be written to.

  Its config file must have a path that `--config=FILE:ARG` can name.
  """
  if ':' in str(workdir):
    allowed = 'a directory on this machine, without a colon in its path'
    raise errors.UserError('--workdir', str(workdir), allowed)
  directory.check_place(workdir)
  files.check_file(workdir / NAME, '--workdir')
  files.check_file(workdir / CONFIG, '--workdir')


class Clock:
  """Counts the seconds of each phase, and keeps the record on the disk.

  Args:
    workdir: work directory, which exists.
    record: the record to go on with.
    now: clock in seconds.
    began: when the command began, on that clock.
  """

  def __init__(
    self,
    workdir: epath.Path,
    record: Record,
    now: Callable[[], float],
    began: float,
  ):
    self.record, self._path, self.now = record, workdir / NAME, now
    self._since = began
    self.add('look')

  @contextlib.contextmanager
  def phase(self, name: str) -> Iterator[None]:
    """Adds the time of the block to a phase, however the block ends."""
    self.add('other')
    try:
      yield
    finally:
      self.add(name)

  def add(self, name: str) -> None:
    """Adds the time since the last call to a phase, and writes the record."""
    now = self.now()
    spent = dict(self.record.spent_s)
    spent[name] = round(spent.get(name, 0.0) + now - self._since, 3)
    self._since = now
    self.note(spent_s=spent)

  def note(self, **changes: Any) -> None:
    """Changes fields of the record, and writes it."""
    self.record = dataclasses.replace(self.record, **changes)
    files.write_json(self._path, schema.plain(self.record))

  def left_s(self) -> float:
    """Returns the seconds that are left of the time for everything."""
    spent = sum(self.record.spent_s.values()) + self.now() - self._since
    return _SECONDS * self.record.minutes - spent
