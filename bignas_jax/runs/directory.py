"""The work directory of a run: the config it belongs to, and its files."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

from etils import epath

import bignas_jax
from bignas_jax.data import identity, sources
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import config_record
from bignas_jax.runs.config import Config
from bignas_jax.spaces import zoo
from bignas_jax.spaces.space import Space
from bignas_jax.system import files, locks, storage
from bignas_jax.values import errors, schema, stored, structs

_CONFIG = 'config.json'
CARD = 'run.json'
# How well indicators rank children.
RANKING = 'ranking.json'
# Where the weights of a converted run are from.
ORIGIN = 'origin.json'
FORMAT = 1  # of `config.json`; that of version 0.1.0, without a number, is 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
  """The contents of `config.json`.

  Attributes:
    version: version of this package that wrote the file.
    config_sha256: digest of the config, as that version computed it.
    config: full config of the run.
    data: description of the run's data (`identity`); None: there is none.
  """

  version: str
  config_sha256: str
  config: dict[str, Any]
  data: dict[str, Any] | None = None


def check_place(workdir: epath.Path) -> None:
  """Checks that a run can be written in the work directory, before any work.

  Raises:
    UserError: the path is a file, or nothing can be written there; the error
      says why.
  """
  files.check_writable(workdir, 'workdir')
  if workdir.exists() and not workdir.is_dir():
    raise errors.UserError('workdir', str(workdir), 'a directory, or a new one')


def claim(
  workdir: epath.Path, config: Config, splits: sources.Splits | None = None
) -> None:
  """Makes the directory this config's, or checks that it already is.

  Args:
    workdir: work directory.
    config: config of the run.
    splits: data of the run; None: the data are neither described nor compared.

  Raises:
    UserError: the directory belongs to another config or to a run on other
      data; the error names what differs.
  """
  path = workdir / _CONFIG
  fields = config_record.to_dict(config)
  if path.exists():
    manifest = read(workdir)
    there = config_record.to_dict(_config(workdir, manifest))
    differences = structs.differences(
      config_record.identity(there), config_record.identity(fields)
    )
    if differences:
      raise errors.UserError(
        'workdir',
        str(workdir),
        'a directory of the same config; this one differs in '
        + '; '.join(differences),
      )
    if splits is not None:
      record, here = manifest.data, identity.describe(splits)
      directory = config.data.directory
      identity.check(record, here, directory, str(workdir))
    return
  workdir.mkdir(parents=True, exist_ok=True)
  text = {
    'format': FORMAT,
    'version': bignas_jax.__version__,
    'seed': config.seed,
    'config_sha256': config_record.sha256(config),
    'config': fields,
  }
  if splits is not None:
    text['data'] = identity.describe(splits)
  files.write_json(path, text)


def claimed(workdir: epath.Path) -> str | None:
  """Returns the text of `config.json`, or None for an unclaimed directory."""
  path = workdir / _CONFIG
  return files.read_text(path) if path.is_file() else None


def load_config(workdir: epath.Path) -> Config:
  """Returns the config of a run that has been started.

  Raises:
    UserError: there is no config, its file is damaged, or this version does not
      know what is in it.
  """
  return _config(workdir, read(workdir))


def named_space(text: str, field: str = '--space') -> Space:
  """Returns the space of a name, or of the run in a work directory.

  Raises:
    UserError: there is neither.
  """
  path = storage.path(text, field)
  if text in zoo.SPACES:
    return zoo.get(text)
  if not path.is_dir():
    allowed = f"a run's directory, or {errors.one_of(zoo.SPACES, text)}"
    raise errors.UserError(field, text, allowed)
  return config_lib.space(load_config(path))


def _config(workdir: epath.Path, manifest: Manifest) -> Config:
  """Returns the config that a file means, whichever version wrote it."""
  place = f'{workdir / _CONFIG}: config'
  return stored.convert(Config, manifest.config, place, manifest.version)


def config_sha256(workdir: epath.Path, config: Config) -> str:
  """Returns the digest that a run's config had when the run started.

  If the run has not started, the digest is computed now. A later version may
  leave other fields out of the digest.
  """
  if claimed(workdir) is None:
    return config_record.sha256(config)
  return read(workdir).config_sha256


def read(workdir: epath.Path) -> Manifest:
  """Returns the contents of `config.json`.

  Raises:
    UserError: the file is missing, damaged, or of a newer format.
  """
  path = workdir / _CONFIG
  if not path.is_file():
    raise errors.UserError(
      'workdir', str(workdir), f'a directory of a run, with {_CONFIG} in it'
    )
  fields = files.read_json(path)
  stored.check_format(fields, FORMAT, str(path))
  return schema.convert(Manifest, fields, f'{path}:', others=True)


def origin(workdir: epath.Path) -> dict[str, Any] | None:
  """Returns where the weights of a converted run are from; else None."""
  path = workdir / ORIGIN
  return files.read_json(path) if path.exists() else None


@contextlib.contextmanager
def lock(workdir: epath.Path) -> Iterator[None]:
  """Locks the directory, so that one training process at a time uses it.

  A bucket has no locks: in a bucket, no process is kept out.

  Raises:
    UserError: another process trains in the directory.
  """
  if not storage.in_bucket(workdir):
    workdir.mkdir(parents=True, exist_ok=True)
  allowed = 'a directory that no other run is using'
  with locks.hold(workdir / '.lock', 'workdir', allowed):
    yield
