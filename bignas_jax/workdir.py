"""The directory of a run: which config it belongs to, where things lie."""

import contextlib
from collections.abc import Iterator
from typing import Any

from etils import epath

import bignas_jax
from bignas_jax import config as config_lib
from bignas_jax import (
  data_identity,
  errors,
  files,
  locks,
  nested,
  sources,
  storage,
)
from bignas_jax.config import Config

_CONFIG = 'config.json'
CARD = 'run.json'


def check_place(workdir: epath.Path) -> None:
  """Checks, before any work, that a run can be written there.

  Raises:
    UserError: it is a file, or nothing can be written; says why.
  """
  files.check_writable(workdir, 'workdir')
  if workdir.exists() and not workdir.is_dir():
    raise errors.UserError('workdir', str(workdir), 'a directory, or a new one')


def claim(
  workdir: epath.Path, config: Config, splits: sources.Splits | None = None
) -> None:
  """Makes the directory this config's, or checks that it is.

  Args:
    workdir: the directory.
    config: of the run.
    splits: its data; None: they are not described, nor compared.

  Raises:
    UserError: it belongs to another config; names the differing fields. Or to
      a run on other data; says in what they differ.
  """
  path = workdir / _CONFIG
  fields = config_lib.to_dict(config)
  if path.exists():
    receipt = read(workdir)
    # As this version reads it: fields that are new have their defaults.
    before = config_lib.from_dict(receipt['config'])
    there = config_lib.identity(config_lib.to_dict(before))
    found = nested.differences(there, config_lib.identity(fields))
    if found:
      raise errors.UserError(
        'workdir',
        str(workdir),
        'a directory of the same config; this one differs in '
        + '; '.join(found),
      )
    if splits is not None:
      told, here = receipt.get('data'), data_identity.describe(splits)
      where = config.data.directory
      data_identity.check(told, here, where, str(workdir))
    return
  workdir.mkdir(parents=True, exist_ok=True)
  text = {
    'version': bignas_jax.__version__,
    'seed': config.seed,
    'config_sha256': config_lib.sha256(config),
    'config': fields,
  }
  if splits is not None:
    text['data'] = data_identity.describe(splits)
  files.write_json(path, text)


def claimed(workdir: epath.Path) -> str | None:
  """What says whose the directory is, or None: nobody has claimed it."""
  path = workdir / _CONFIG
  return path.read_text() if path.is_file() else None


def load_config(workdir: epath.Path) -> Config:
  """The config of a run that has been started.

  Raises:
    UserError: there is none, or its file is damaged.
  """
  return config_lib.from_dict(read(workdir)['config'])


def config_sha256(workdir: epath.Path, config: Config) -> str:
  """The digest that a run's config had when it started, if it has.

  A later version may leave out other fields of what it is made of.
  """
  there = read(workdir) if claimed(workdir) is not None else {}
  return there.get('config_sha256', config_lib.sha256(config))


def read(workdir: epath.Path) -> dict[str, Any]:
  """What `config.json` says.

  Raises:
    UserError: there is none, or it is damaged.
  """
  path = workdir / _CONFIG
  if not path.is_file():
    raise errors.UserError(
      'workdir', str(workdir), f'a directory of a run, with {_CONFIG} in it'
    )
  found = files.read_json(path)
  if not isinstance(found.get('config'), dict):
    raise errors.UserError(str(path), found, 'a JSON object with a config')
  return found


@contextlib.contextmanager
def lock(workdir: epath.Path) -> Iterator[None]:
  """Holds the directory for one training process at a time.

  A bucket has no locks: there, nobody is kept out.

  Raises:
    UserError: another process trains in it.
  """
  if not storage.in_bucket(workdir):
    workdir.mkdir(parents=True, exist_ok=True)
  allowed = 'a directory that no other run is using'
  with locks.hold(workdir / '.lock', 'workdir', allowed):
    yield
