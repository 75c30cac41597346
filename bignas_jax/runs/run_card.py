"""The run card, `run.json`: where, when and with what a run was made.

A run that is stopped and resumed has several sessions. Each session, called a
sitting in the file, is one start of the training command. The card accounts for
all seconds of each session: what share of them were steps that the run needed
(goodput), and what the others were.
"""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import pathlib
import platform
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import jax
from etils import epath

import bignas_jax
from bignas_jax.runs import directory as directory_lib
from bignas_jax.runs.config import Config
from bignas_jax.system import cluster, files, process
from bignas_jax.values import errors, schema

PACKAGES = (
  *('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy'),
  *('libtpu', 'jax-cuda13-plugin'),
)
# What the seconds of a session are spent on; the rest, such as starting and
# reading a checkpoint, is `other`.
_SPENT = (
  *('training', 'repeated', 'input_wait', 'compiling', 'saving', 'evaluating'),
)
_BEAT_S = 1  # least seconds between two writings, but for the last


@contextlib.contextmanager
def session(workdir: epath.Path, config: Config) -> Iterator['Card']:
  """Yields the card of a session, and records how the session ends.

  Only the leader writes the card.

  Raises:
    UserError: there is a card that cannot be read.
  """
  hosts = cluster.answers(socket.gethostname())
  card = Card(workdir, config, hosts)
  try:
    yield card
  except errors.Preempted:
    card.end('preempted')
    raise
  except BaseException:
    card.end('failed')
    raise
  card.end('finished')


class Card:
  """The card of a run, with the current session.

  Args:
    workdir: work directory of the run, locked.
    config: config of the run.
    hosts: host of each of the run's processes.
  """

  def __init__(self, workdir: epath.Path, config: Config, hosts: list[str]):
    self._path, self._config = workdir / directory_lib.CARD, config
    self._sha256 = directory_lib.config_sha256(workdir, config)
    sessions = cluster.once(lambda: _sessions(self._path))
    self._earlier = [_closed(one) for one in sessions]
    self._farthest = max((one['step'] or 0 for one in sessions), default=0)
    self._spent, self._repeated = dict.fromkeys(_SPENT, 0.0), 0
    self._within: list[str] = []  # what is being done, the innermost last
    self._began = self._written = self._since = time.monotonic()
    now = _now()
    self._session: dict[str, Any] = {
      'status': 'running',
      'started': now,
      'seen': now,
      'hours': 0.0,
      'seconds': {},
      'repeated_steps': 0,
      'first_step': None,
      'step': None,
      'processes': len(hosts),
      'hosts': list(dict.fromkeys(hosts)),
      'devices': jax.device_count(),
      'device_kind': jax.devices()[0].device_kind,
      'commit': commit(pathlib.Path(__file__).parent),
      'versions': versions(),
    }
    self._write()

  def reached(self, step: int, first: int | None = None) -> None:
    """Records a finished step.

    Args:
      step: last finished step.
      first: step that the session began at; None: no change.
    """
    self._session['step'] = step
    if first is not None:
      self._session['first_step'] = first
    if time.monotonic() - self._written > _BEAT_S:
      self._write()

  def trained(self, step: int, seconds: float, waited: float) -> None:
    """Accounts for a step that has ended.

    Args:
      step: the step's number, counted from 1.
      seconds: its time; none of it is inside `doing`.
      waited: time of these seconds that it waited for images.
    """
    if step <= self._farthest:
      self._repeated += 1
      self._spent['repeated'] += seconds
      return
    self._farthest = step
    waited = min(waited, seconds)
    self._spent['input_wait'] += waited
    self._spent['training'] += seconds - waited

  @contextlib.contextmanager
  def doing(self, what: str) -> Iterator[None]:
    """Accounts for the time of the enclosed code: compiling, saving, ...

    It may be nested; then the time inside is not that of the outer one.
    """
    self._settle()
    self._within.append(what)
    try:
      yield
    finally:
      self._settle()
      self._within.pop()

  def _settle(self) -> None:
    now = time.monotonic()
    if self._within:
      self._spent[self._within[-1]] += now - self._since
    self._since = now

  def end(self, status: str) -> None:
    """Writes the final status of the session."""
    self._session['status'] = status
    self._write()

  def _write(self) -> None:
    self._settle()
    self._written = time.monotonic()
    self._session['seen'] = _now()
    wall_s = self._written - self._began
    self._session['hours'] = round(wall_s / 3600, 6)
    self._session['seconds'] = _account(self._spent, wall_s)
    self._session['repeated_steps'] = self._repeated
    if process.leads():
      sessions = [*self._earlier, self._session]
      files.write_json(self._path, _card(self._config, self._sha256, sessions))


def _account(spent: dict[str, float], wall_s: float) -> dict[str, float]:
  """Returns seconds that add up to the wall time, to the millisecond."""
  seconds = {name: round(value, 3) for name, value in spent.items()}
  other = round(wall_s - sum(seconds.values()), 3)
  return seconds | {'other': max(0.0, other)}


def _sums(sessions: list[dict[str, Any]]) -> dict[str, Any]:
  """Returns what all sessions together were spent on.

  Sessions of a version that kept no account are left out.
  """
  accounts = [one['seconds'] for one in sessions if one.get('seconds')]
  total = {
    name: round(sum(one.get(name, 0.0) for one in accounts), 3)
    for name in (*_SPENT, 'other')
  }
  wall_s = sum(total.values())
  return {
    'seconds': total,
    'goodput': round(total['training'] / wall_s, 6) if wall_s else None,
    'repeated_steps': sum(one.get('repeated_steps', 0) for one in sessions),
  }


def _card(
  config: Config, sha256: str, sessions: list[dict[str, Any]]
) -> dict[str, Any]:
  """Returns the contents of the file: sums over sessions, then each session."""
  last = sessions[-1]
  steps = sum((s['step'] or 0) - (s['first_step'] or 0) for s in sessions)
  reached = [s['step'] for s in sessions if s['step'] is not None]
  return {
    'format': 1,
    'status': last['status'],
    'config_sha256': sha256,
    'started': sessions[0]['started'],
    'ended': None if last['status'] == 'running' else last['seen'],
    'step': reached[-1] if reached else None,
    'of': config.steps,
    'steps': steps,  # with steps repeated after a session was killed
    'images': steps * config.batch_size,
    'hours': round(sum(s['hours'] for s in sessions), 6),
    'device_hours': round(sum(s['hours'] * s['devices'] for s in sessions), 6),
    **_sums(sessions),
    'sittings': sessions,
  }


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Session:
  """The fields that are read of an earlier session; others stay as they are."""

  status: str
  started: str
  seen: str
  hours: schema.AtLeastZero
  devices: schema.Natural
  seconds: dict[str, schema.AtLeastZero] = dataclasses.field(
    default_factory=dict
  )
  repeated_steps: schema.Whole = 0
  first_step: schema.Whole | None = None
  step: schema.Whole | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _StoredCard:
  """The fields that are read of a card."""

  sittings: tuple[_Session, ...]


def _sessions(path: epath.Path) -> list[dict[str, Any]]:
  if not path.exists():
    return []
  card = files.read_json(path)
  schema.convert(_StoredCard, card, f'{path}:', others=True)
  return card['sittings']


def _closed(one: dict[str, Any]) -> dict[str, Any]:
  """Returns an earlier session, with status `killed` if it did not end."""
  killed = one['status'] == 'running'
  return one | {'status': 'killed'} if killed else one


def versions() -> dict[str, str]:
  """Returns the versions of Python, this package and installed `PACKAGES`."""
  installed = {
    'python': platform.python_version(),
    'bignas_jax': bignas_jax.__version__,
  }
  for name in PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      installed[name] = importlib.metadata.version(name)
  return installed


def commit(directory: pathlib.Path) -> dict[str, Any] | None:
  """Returns `sha` and `dirty` of the checkout that this code is in, or None.

  `dirty` is whether a file that Git tracks differs from that commit.
  """

  def git(*arguments: str) -> str:
    return subprocess.run(
      # `status` would write a fresher index, under a lock.
      ['git', '--no-optional-locks', '-C', str(directory), *arguments],
      capture_output=True,
      check=True,
      text=True,
      timeout=20,
    ).stdout.strip()

  try:
    # It is not known if installed inside another project's checkout.
    git('ls-files', '--error-unmatch', '__init__.py')
    sha = git('rev-parse', 'HEAD')
    changed = git('status', '--porcelain', '--untracked-files=no')
  except (OSError, subprocess.SubprocessError):
    return None
  return {'sha': sha, 'dirty': bool(changed)}


def _now() -> str:
  now = datetime.datetime.now(datetime.UTC)
  return now.isoformat(timespec='seconds')
