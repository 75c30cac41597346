"""Optional packages: imported when they are needed, or named when missing."""

import importlib
from typing import Any

from bignas_jax.values import errors


def load(field: str, value: str, extra: str, *modules: str) -> list[Any]:
  """Imports modules of packages that an extra brings.

  Args:
    field: what a user said that needs them, such as `--format`.
    value: what it was said to be.
    extra: its name in setup.cfg.
    modules: full names.

  Returns:
    The modules.

  Raises:
    UserError: one is not installed; says how to install it.
  """
  found = []
  for name in modules:
    try:
      found.append(importlib.import_module(name))
    except ModuleNotFoundError as error:
      if (error.name or '').split('.')[0] != name.split('.')[0]:
        raise  # it is there, and something that it needs is not
      raise errors.UserError(
        field,
        value,
        f"with the extra that has {name}: pip install -e '.[{extra}]'",
      ) from None
  return found
