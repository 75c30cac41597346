"""How commands end: a mistake of the user in one line, a no, a signal."""

import contextlib
import difflib
from collections.abc import Iterable, Iterator
from typing import Any

# Exit statuses of commands, beside 0 (docs/errors.md).
FAILED = 1
USER_ERROR = 2
PREEMPTED = 75

# Of data that are not where they were.
MOVED = '(data that have moved: --data=DIRECTORY, or --config.data.directory)'


class UserError(ValueError):
  """A mistake that the user can mend; commands exit with status 2 on it."""

  def __init__(self, field: str, value: object, allowed: str):
    told = f'{field}: got {_short(value)}; allowed: {allowed}'
    super().__init__(' '.join(told.split()))  # a field may be anybody's text
    self.field = field

  def __reduce__(self):
    return UserError.quoted, (str(self),)  # when it leaves a worker process

  @classmethod
  def quoted(cls, text: str) -> 'UserError':
    """The one that another process has raised, from its text."""
    error = cls.__new__(cls, text)  # sets what str() shows
    error.field = text.partition(': ')[0]
    return error


class Preempted(BaseException):
  """The command was asked to stop, and what it had finished is saved.

  No Exception: what handles errors does not handle this.
  """


class Failed(Exception):
  """The answer is no: the reason for a person, and the result in full."""

  def __init__(self, reason: str, result: dict[str, Any]):
    super().__init__(reason)
    self.result = result


@contextlib.contextmanager
def within(place: object) -> Iterator[None]:
  """Adds the place, such as a file, to what is said of a field in it."""
  try:
    yield
  except UserError as error:
    raise UserError.quoted(f'{place}: {error}') from None


def one_of(names: Iterable[str], wrong: object = None) -> str:
  """Says which names are allowed, and which one was probably meant."""
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
  # A path says most at its end.
  return text if len(text) <= 120 else f'{text[:40]}...{text[-77:]}'
