"""Optional packages, imported only when they are needed."""

import importlib
from typing import Any

from bignas_jax.values import errors


def load(field: str, value: str, extra: str, *modules: str) -> list[Any]:
  """Imports modules of packages that an extra of this package installs.

  Args:
    field: the user's option that needs the modules, such as `--format`.
    value: the value of that option.
    extra: name of the extra in setup.cfg.
    *modules: full names of the modules.

  Returns:
    The modules, in the given order.

  Raises:
    UserError: a module is not installed; the message says how to install it.
  """
  imported = []
  for name in modules:
    try:
      imported.append(importlib.import_module(name))
    except ModuleNotFoundError as error:
      if (error.name or '').split('.')[0] != name.split('.')[0]:
        raise  # it is installed, but a module that it needs is not
      raise errors.UserError(
        field,
        value,
        f"with the extra that has {name}: pip install -e '.[{extra}]'",
      ) from None
  return imported
