"""Errors that end a command: a user's mistake, a negative answer, a signal."""

import contextlib
import difflib
from collections.abc import Iterable, Iterator
from typing import Any

# Exit statuses of commands, beside 0 (docs/errors.md).
FAILED = 1
USER_ERROR = 2
PREEMPTED = 75

# What to do about data that are not where they were.
MOVED = '(data that have moved: --data=DIRECTORY, or --config.data.directory)'


class UserError(ValueError):
  """A mistake that the user can correct; commands exit with status 2 on it."""

  def __init__(self, field: str, value: object, allowed: str):
    text = f'{field}: got {_short(value)}; allowed: {allowed}'
    super().__init__(' '.join(text.split()))  # a field may be anybody's text
    self.field = field

  def __reduce__(self):
    return UserError.quoted, (str(self),)  # when it leaves a worker process

  @classmethod
  def quoted(cls, text: str) -> 'UserError':
    """Returns a UserError with the text of one that another process raised."""
    error = cls.__new__(cls, text)  # sets what str() shows
    error.field = text.partition(': ')[0]
    return error


class Preempted(BaseException):
  """A request to stop the command; what it had finished is saved.

  It is no Exception, so that code which handles errors does not catch it.
  """


class Failed(Exception):
  """A command's negative answer: a reason for a person, and the full result."""

  def __init__(self, reason: str, result: dict[str, Any]):
    super().__init__(reason)
    self.result = result


@contextlib.contextmanager
def within(place: object) -> Iterator[None]:
  """Adds a place, such as a file, to the field name of an error inside."""
  try:
    yield
  except UserError as error:
    raise UserError.quoted(f'{place}: {error}') from None


def one_of(names: Iterable[str], wrong: object = None) -> str:
  """Returns in words which names are allowed, and which was probably meant."""
  names = sorted(map(str, names))
  text = 'one of ' + ', '.join(names)
  close = [] if wrong is None else difflib.get_close_matches(str(wrong), names)
  return f'{text} (did you mean {close[0]}?)' if close else text


def article(noun: str) -> str:
  """Returns a noun with `a` or `an` before it."""
  return f'{"an" if noun[0] in "AEIOUaeiou" else "a"} {noun}'


def _short(value: object) -> str:
  try:
    text = ' '.join(repr(value).split())
  except Exception:  # such as a number of more digits than Python writes
    text = f'{article(type(value).__name__)} that cannot be shown'
  # The end of a path is its most informative part.
  return text if len(text) <= 120 else f'{text[:40]}...{text[-77:]}'
