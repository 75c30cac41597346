"""What searches are asked, and the files that each question has of its own.

A question is all that decides a search's answer, as plain values. Its name is
readable, and differs from every other question's.
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

_READABLE = 120  # characters of a name, so that it is one on every file system
_WEIGHTS = 'weights.json'
BEST = 'best.json'
Question = dict[str, Any]


def name(asked: Question) -> str:
  """Returns such as `random-max_macs_1000000-1f2e3d4c`, of its strategy.

  The last part is a digest of all that was asked.
  """
  limits = [f'{k}_{v:.12g}' for k, v in sorted(asked['limits'].items())]
  readable = '-'.join([asked['strategy'], *limits])[:_READABLE]
  text = json.dumps(asked, sort_keys=True)
  return f'{readable}-{hashlib.sha256(text.encode()).hexdigest()[:8]}'


def result_path(directory: epath.Path, asked: Question) -> epath.Path:
  """Returns where a question's answer is."""
  return directory / 'results' / f'{name(asked)}.json'


def _begun_path(directory: epath.Path, asked: Question) -> epath.Path:
  return directory / 'begun' / f'{name(asked)}.json'


@contextlib.contextmanager
def alone(directory: epath.Path) -> Iterator[None]:
  """Keeps other searches of the run out; of several processes the first does.

  Args:
    directory: of the run's searches, which is made.

  Raises:
    UserError: another process searches, or nothing can be written there.
  """
  with contextlib.ExitStack() as held:

    def enter() -> None:
      files.check_writable(directory, 'workdir')
      if not storage.in_bucket(directory):
        directory.mkdir(parents=True, exist_ok=True)
      allowed = 'a run in which no other search is running; wait for its end'
      held.enter_context(locks.hold(directory / '.lock', 'workdir', allowed))

    cluster.once(enter)
    yield


def set_aside_others(
  directory: epath.Path, archive: epath.Path, step: int, weights: str
) -> bool:
  """Renames an archive whose children of this step had other weights.

  A run that goes back comes to a step twice, with other weights; so may one
  whose checkpoints were removed. The leader does this.

  Args:
    directory: of the run's searches; a file there says the weights of each
      step that was searched.
    archive: of the run.
    step: of the supernet.
    weights: a digest of its parameters.

  Returns:
    Whether there is no archive any more.
  """
  path = directory / _WEIGHTS
  told = files.read_json(path) if path.exists() else {}
  other = told.get(str(step), weights) != weights and archive.exists()
  if other:
    aside = next(
      place
      for number in itertools.count(1)
      if not (place := directory / f'archive.{number}.csv').exists()
    )
    archive.rename(aside)
    told = {}
    console.say(
      f'warning: step {step} has other weights than when it was searched; '
      f'the archive is {aside} now, and children are evaluated again'
    )
  if told.get(str(step)) != weights:
    files.write_json(path, told | {str(step): weights})
  return other


def begin(directory: epath.Path, asked: Question, children: int) -> int:
  """Writes down that a search has begun, unless it has begun before.

  Args:
    directory: of the run's searches.
    asked: of this one.
    children: that are known now.

  Returns:
    How many children were known when it began for the first time. What is
    learnt from them must be the same when it goes on.

  Raises:
    UserError: what was written then is damaged.
  """
  path = _begun_path(directory, asked)

  def write() -> int:
    known = children
    if path.exists():
      known = files.read_json(path).get('known')
      if type(known) is not int or known < 0:
        allowed = '{"known": a whole number}; delete the file to begin anew'
        raise errors.UserError(str(path), known, allowed)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, {'asked': asked, 'known': known})
    return known

  return cluster.once(write)


def finish(
  directory: epath.Path, asked: Question, result: dict[str, Any]
) -> None:
  """Writes the answer, also as `best.json`; the first process alone does."""
  path = result_path(directory, asked)
  path.parent.mkdir(parents=True, exist_ok=True)
  files.write_json(path, result)
  files.write_json(directory / BEST, result)
  _begun_path(directory, asked).unlink(missing_ok=True)
