"""The weights of a file, by the layout that a user names."""

from typing import Any

from etils import epath

import bignas_jax
from bignas_jax.conversion import (
  attentive_nas,
  efficientnet,
  layouts,
  once_for_all,
  torch_files,
)
from bignas_jax.conversion.layouts import Layout
from bignas_jax.spaces.space import Space
from bignas_jax.system import digests
from bignas_jax.values import errors

LAYOUTS = {
  'attentive_nas': attentive_nas.LAYOUT,
  'alphanet': attentive_nas.LAYOUT,
  'ofa_mbv3': once_for_all.MBV3,
  'ofa_proxyless': once_for_all.PROXYLESS,
  'ofa_resnet50': once_for_all.RESNET50,
  'efficientnet_b0': efficientnet.B0,
  'efficientnet_lite0': efficientnet.LITE0,
}
# Where files keep the tensors, beside what they say of their training.
_INSIDE = ('state_dict', 'model_state_dict', 'model')


def layout(name: str, *, single: bool) -> Layout:
  """Returns a layout by name.

  Args:
    name: one of LAYOUTS.
    single: whether it has to be that of a single network, not of a supernet.

  Raises:
    UserError: there is no such layout, or it is of the other kind.
  """
  if name not in LAYOUTS:
    allowed = errors.one_of(LAYOUTS, name)
    raise errors.UserError('--layout', name, allowed)
  if (LAYOUTS[name].single is not None) != single:
    some = [k for k, one in LAYOUTS.items() if (one.single is None) != single]
    flag, kind = '--workdir', 'a supernet'
    if single:
      flag, kind = '--out', 'a single network'
    allowed = f'with {flag}, the layout of {kind}: {errors.one_of(some)}'
    raise errors.UserError('--layout', name, allowed)
  return LAYOUTS[name]


def read(
  weights: epath.Path, name: str, space: Space, license_: str
) -> tuple[Any, dict[str, Any]]:
  """Returns a file's variables in this package's layout, and their origin.

  Args:
    weights: file that `torch.save` wrote.
    name: one of LAYOUTS.
    space: space of the file's network.
    license_: the weights' licence.

  Returns:
    The variables as `layouts.convert` makes them, and the content of
    `origin.json`.

  Raises:
    UserError: the file's tensors are not the space's.
  """
  file = torch_files.read(weights)
  arrays = {k: one.array() for k, one in tensors(file, str(weights)).items()}
  converted = layouts.convert(LAYOUTS[name], space, arrays, str(weights))
  return converted.variables, {
    'file': weights.name,
    'sha256': digests.digest(weights),
    'layout': name,
    'license': license_,
    'version': bignas_jax.__version__,
    'not_called': list(file.unknown),
    'unused': list(converted.unused),
  }


def tensors(file: torch_files.File, path: str) -> dict[str, torch_files.Tensor]:
  """Returns the tensors of a file by name.

  Raises:
    UserError: there is no dict of tensors in it.
  """
  value = file.value
  for name in _INSIDE:
    if isinstance(value, dict) and isinstance(value.get(name), dict):
      value = value[name]
  if isinstance(value, dict):
    inside = {
      name: one
      for name, one in value.items()
      if isinstance(name, str) and isinstance(one, torch_files.Tensor)
    }
    if inside:
      return inside
  kind = f'a {type(value).__name__} without tensors'
  allowed = 'a state_dict, or a dict with one as ' + ' or '.join(_INSIDE)
  raise errors.UserError(path, kind, allowed)
