"""The questions that searches are asked, and the files of each question.

A question is everything that determines a search's answer, as plain values.
Each question has a readable name that differs from that of any other.
"""

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterator
from typing import Any

from etils import epath

from bignas_jax.system import cluster, console, files, locks, storage
from bignas_jax.values import errors

_READABLE = 120  # characters of a name that every file system accepts
_WEIGHTS = 'weights.json'
BEST = 'best.json'
Question = dict[str, Any]


def name(asked: Question) -> str:
  """Returns a question's name, such as `random-max_macs_1000000-1f2e3d4c`.

  The name starts with the strategy and ends in a digest of the whole question.
  """
  limits = [f'{k}_{v:.12g}' for k, v in sorted(asked['limits'].items())]
  strategy = asked['strategy'].replace(':', '.')  # of a user's function
  readable = '-'.join([strategy, *limits])[:_READABLE]
  text = json.dumps(asked, sort_keys=True)
  return f'{readable}-{hashlib.sha256(text.encode()).hexdigest()[:8]}'


def result_path(directory: epath.Path, asked: Question) -> epath.Path:
  """Returns the file of a question's answer."""
  return directory / 'results' / f'{name(asked)}.json'


def _begun_path(directory: epath.Path, asked: Question) -> epath.Path:
  return directory / 'begun' / f'{name(asked)}.json'


@contextlib.contextmanager
def alone(directory: epath.Path, what: str = 'search') -> Iterator[None]:
  """Holds a lock that keeps others out of a directory; the leader takes it.

  Args:
    directory: directory of the run's searches, or of what a command makes; it
      is created.
    what: what is done in the directory, for the message.

  Raises:
    UserError: another process does the same in the run, or nothing can be
      written in the directory.
  """
  with contextlib.ExitStack() as held:

    def enter() -> None:
      files.check_writable(directory, 'workdir')
      if not storage.in_bucket(directory):
        directory.mkdir(parents=True, exist_ok=True)
      allowed = f'a run in which no other {what} is running; wait for its end'
      held.enter_context(locks.hold(directory / '.lock', 'workdir', allowed))

    cluster.once(enter)
    yield


def set_aside_others(
  directory: epath.Path, archive: epath.Path, step: int, weights: str
) -> bool:
  """Renames the archive if its children of this step had other weights.

  A rollback makes a run reach a step twice, with other weights the second time.
  The same can happen after checkpoints were removed. Only the leader calls
  this.

  Args:
    directory: directory of the run's searches; a file in it holds the digest of
      the weights of each step that was searched.
    archive: file of the run's archive.
    step: step of the supernet.
    weights: digest of the supernet's parameters.

  Returns:
    Whether the archive was renamed.
  """
  path = directory / _WEIGHTS
  digests = files.read_json(path) if path.exists() else {}
  other = digests.get(str(step), weights) != weights and archive.exists()
  if other:
    aside = next(
      place
      for number in itertools.count(1)
      if not (place := directory / f'archive.{number}.csv').exists()
    )
    archive.rename(aside)
    digests = {}
    console.say(
      f'warning: step {step} has other weights than when it was searched; '
      f'the archive is {aside} now, and children are evaluated again'
    )
  if digests.get(str(step)) != weights:
    files.write_json(path, digests | {str(step): weights})
  return other


def begin(directory: epath.Path, asked: Question, children: int) -> int:
  """Records that a search has begun, unless it was recorded before.

  Args:
    directory: directory of the run's searches.
    asked: question of this search.
    children: number of children that are known now.

  Returns:
    The number of children known when the search first began. A resumed search
    must learn from the same children.

  Raises:
    UserError: the earlier record is damaged.
  """
  path = _begun_path(directory, asked)

  def write() -> int:
    number = children
    if path.exists():
      number = files.read_json(path).get('known')
      if type(number) is not int or number < 0:
        allowed = '{"known": a whole number}; delete the file to begin anew'
        raise errors.UserError(str(path), number, allowed)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, {'asked': asked, 'known': number})
    return number

  return cluster.once(write)


def finish(
  directory: epath.Path, asked: Question, result: dict[str, Any]
) -> None:
  """Writes the answer to its file and `best.json`; only the leader calls it."""
  path = result_path(directory, asked)
  path.parent.mkdir(parents=True, exist_ok=True)
  files.write_json(path, result)
  files.write_json(directory / BEST, result)
  _begun_path(directory, asked).unlink(missing_ok=True)
