"""What is recorded of a config: plain values, and the digest that names it."""

import dataclasses
import hashlib
import json
from typing import Any

from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Config
from bignas_jax.values import schema, structs

# The full space and digests stand for `arch`, `init_from` and `scores.archive`,
# `data_identity` for the directory of the data.
_MAY_DIFFER = (
  *('profile', 'layout', 'search', 'trackers'),
  *('arch', 'init_from', 'scores.archive'),
  *('data.directory', 'data.max_damaged', 'data.max_replaced'),
  *('data.worker', 'data.workers', 'data.prefetch'),
)


def to_dict(config: Config) -> dict[str, Any]:
  """Returns plain JSON values, with the space in full even if it was named."""
  size = config_lib.image_size(config)
  space = config_lib.space(config)
  named = dataclasses.replace(config, space=space, classes=0, image_size=size)
  return schema.plain(named)


def identity(fields: dict[str, Any]) -> dict[str, Any]:
  """Returns the fields of `to_dict` that determine the run and its results."""
  return structs.without(fields, _MAY_DIFFER)


def sha256(config: Config) -> str:
  """Returns the digest that names a config in manifests."""
  text = json.dumps(identity(to_dict(config)), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
