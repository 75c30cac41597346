"""BigNAS in JAX: train one supernet, slice networks of any size from it.

`load_run`, `load_child`, `list_models`, `make_supernet` and `parameter_shapes`
are for notebooks (`bignas_jax.api`); everything else is a command.
"""

import importlib
from typing import Any

__version__ = '0.1.0'
_API = (
  *('list_models', 'load_child', 'load_run'),
  *('make_supernet', 'parameter_shapes'),
)


def __getattr__(name: str) -> Any:
  """Imports JAX and Flax when they are needed, not before."""
  if name in _API:
    return getattr(importlib.import_module('bignas_jax.api'), name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
