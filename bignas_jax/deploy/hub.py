"""Child packages on a model hub, named `hf://OWNER/NAME[@REVISION]`.

A package is downloaded once for each commit, into a directory of the user's
cache, where it is a package like any other.
"""

import os
import pathlib
import re
from typing import Any

from etils import epath

from bignas_jax.system import extras, storage
from bignas_jax.values import errors

_SCHEME = 'hf://'
_NAME = re.compile(r'(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?')
_COMMIT = re.compile('[0-9a-f]{40}')
_NEEDED = 'child.json', 'model.safetensors'
_FILES = [*_NEEDED, 'README.md', 'config.json']


def path(text: str, field: str = '--child') -> epath.Path:
  """Returns the directory of a package that a user's text names.

  Args:
    text: a path, or `hf://OWNER/NAME[@REVISION]`; then the package is
      downloaded, unless it is in the cache.
    field: the user's option that holds the text, for messages.

  Raises:
    UserError: the text is neither; huggingface_hub is not installed; or the hub
      does not have the package, or cannot be reached.
  """
  if not text.startswith(_SCHEME):
    return storage.path(text, field)
  parsed = _NAME.fullmatch(text.removeprefix(_SCHEME))
  if parsed is None:
    allowed = f'{_SCHEME}OWNER/NAME or {_SCHEME}OWNER/NAME@REVISION'
    raise errors.UserError(field, text, allowed)
  repo, revision = parsed['repo'], parsed['revision']
  if revision and _COMMIT.fullmatch(revision):
    place = _place(repo, revision)
    if all((place / name).is_file() for name in _NEEDED):
      return epath.Path(place)
  (hub,) = extras.load(field, text, 'hub', 'huggingface_hub')
  try:
    return epath.Path(_download(hub, repo, revision))
  except Exception as error:  # of its HTTP library, which its version decides
    reason = ' '.join(str(error).split())[:160]
    allowed = f'a child package that the hub has and shows ({reason})'
    raise errors.UserError(field, text, allowed) from None


def _download(hub: Any, repo: str, revision: str | None) -> pathlib.Path:
  """Downloads a package, and returns its directory.

  Raises:
    ValueError: the repository has no such package.
  """
  endpoint = os.environ.get('HF_ENDPOINT')
  commit = hub.HfApi(endpoint).model_info(repo, revision=revision).sha
  place = _place(repo, commit)
  hub.snapshot_download(
    repo,
    revision=commit,
    local_dir=place,
    allow_patterns=_FILES,
    endpoint=endpoint,
  )
  missing = [name for name in _NEEDED if not (place / name).is_file()]
  if missing:
    raise ValueError(f'there is no {" and no ".join(missing)} in it')
  return place


def _place(repo: str, commit: str) -> pathlib.Path:
  """Returns where a package of a commit is kept."""
  home = pathlib.Path.home() / '.cache'
  cache = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or home)
  return cache / 'bignas_jax' / 'children' / repo.replace('/', '--') / commit
