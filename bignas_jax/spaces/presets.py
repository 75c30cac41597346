"""Published networks by name, and the names that a user may give architectures.

`parse` reads every `--arch`. A name is defined in this module only, apart from
`best`, which is defined by a work directory (`extraction.choose`).
"""

import contextlib
import os
import pathlib
from typing import Any, NamedTuple

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import once_for_all_json, zoo
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.spaces.stage import Choices
from bignas_jax.system import files
from bignas_jax.values import errors, schema


class Preset(NamedTuple):
  """A network as it was published.

  Attributes:
    space: name of the space that the network belongs to.
    arch: architecture of the network.
    macs: printed multiply-adds, rounded to a million; by torchvision, to ten
      million.
    params: printed parameters, rounded to a hundred thousand; None: not
      printed.
    top1: printed top-1 on the validation images of ImageNet, 0..1.
    source: publication, or package, that prints these numbers.
  """

  space: str
  arch: Arch
  macs: int
  params: int | None
  top1: float
  source: str


def _bignas(
  resolution: int, depth: Choices, macs: int, params: int, top1: float
) -> Preset:
  arch = Arch(
    resolution=resolution,
    width=(32, 16, 24, 40, 80, 112, 192, 320, 1280),
    depth=depth,
    kernel_size=(3, 3, 5, 3, 5, 5, 3),
    expand_ratio=(1, 6, 6, 6, 6, 6, 6),
  )
  return Preset('bignas', arch, macs, params, top1, 'arXiv:2003.11142')


def _attentive(
  resolution: int,
  width: Choices,  # from the fourth stage on
  depth: Choices,
  kernel_size: Choices,
  expand_ratio: Choices,
  macs: int,
  top1: float,
  source: str = 'arXiv:2011.09011',
) -> Preset:
  arch = Arch(
    resolution=resolution,
    width=(16, 16, 24, 32, *width),
    depth=depth,
    kernel_size=kernel_size,
    expand_ratio=expand_ratio,
  )
  return Preset('attentive_nas', arch, macs, None, top1, source)


def _multiplied(
  space: str,
  multiplier: float,
  macs: int,
  params: int,
  top1: float,
  source: str,
) -> Preset:
  whole = zoo.get(space)
  values = arch_lib.read(whole, arch_lib.biggest(whole))
  values[1] = whole.multipliers.index(multiplier)
  arch = arch_lib.write(whole, values)
  return Preset(space, arch, macs, params, top1, source)


_MOBILENET = 'arXiv:1704.04861'
_TORCHVISION = 'torchvision, IMAGENET1K_V1'

# The architectures of BigNAS-L and XL were not published. AlphaNet's A0 to A4
# and A6 are AttentiveNAS's architectures with other weights; its two A5 differ.
PRESETS = {
  'bignas_s': _bignas(
    192, (1, 2, 2, 2, 2, 3, 1), 242_000_000, 4_500_000, 0.765
  ),
  'bignas_m': _bignas(
    224, (1, 2, 2, 2, 4, 4, 1), 418_000_000, 5_500_000, 0.789
  ),
  'attentive_nas_a0': _attentive(
    192,
    (64, 112, 192, 216, 1792),
    (1, 3, 3, 3, 3, 3, 1),
    (3, 3, 3, 3, 3, 3, 3),
    (1, 4, 4, 4, 4, 6, 6),
    203_000_000,
    0.773,
  ),
  'attentive_nas_a1': _attentive(
    224,
    (64, 112, 192, 216, 1984),
    (1, 3, 3, 3, 3, 3, 1),
    (3, 3, 3, 5, 3, 5, 3),
    (1, 4, 4, 4, 4, 6, 6),
    279_000_000,
    0.784,
  ),
  'attentive_nas_a2': _attentive(
    224,
    (64, 112, 200, 224, 1984),
    (1, 3, 3, 3, 3, 4, 1),
    (3, 3, 3, 3, 3, 5, 3),
    (1, 4, 5, 4, 4, 6, 6),
    317_000_000,
    0.788,
  ),
  'attentive_nas_a3': _attentive(
    224,
    (64, 112, 208, 224, 1984),
    (2, 3, 3, 4, 3, 5, 1),
    (3, 3, 3, 5, 3, 3, 3),
    (1, 4, 4, 4, 4, 6, 6),
    357_000_000,
    0.791,
  ),
  'attentive_nas_a4': _attentive(
    256,
    (64, 112, 192, 216, 1984),
    (1, 3, 3, 4, 3, 5, 1),
    (3, 3, 3, 5, 3, 5, 3),
    (1, 4, 4, 5, 4, 6, 6),
    444_000_000,
    0.798,
  ),
  'attentive_nas_a5': _attentive(
    256,
    (72, 112, 192, 216, 1792),
    (1, 3, 3, 3, 4, 6, 1),
    (3, 3, 3, 5, 3, 3, 3),
    (1, 4, 5, 4, 4, 6, 6),
    491_000_000,
    0.801,
  ),
  'attentive_nas_a6': _attentive(
    288,
    (64, 112, 216, 224, 1984),
    (1, 3, 3, 4, 4, 6, 1),
    (3, 3, 3, 3, 3, 5, 3),
    (1, 4, 6, 5, 4, 6, 6),
    709_000_000,
    0.807,
  ),
  'alphanet_a5_small': _attentive(
    256,
    (64, 112, 208, 216, 1984),
    (1, 3, 3, 4, 4, 5, 1),
    (3, 3, 3, 3, 3, 5, 3),
    (1, 4, 4, 5, 4, 6, 6),
    491_000_000,
    0.8029,
    source='arXiv:2102.07954',
  ),
  # Its authors print 596 million; the architecture that they give has 594.8.
  'alphanet_a5_base': _attentive(
    288,
    (64, 112, 200, 216, 1984),
    (2, 3, 4, 3, 3, 5, 1),
    (3, 3, 5, 5, 3, 3, 3),
    (1, 4, 4, 4, 5, 6, 6),
    596_000_000,
    0.8062,
    source='arXiv:2102.07954',
  ),
  'mobilenet_v1_0.25': _multiplied(
    'mobilenet_v1', 0.25, 41_000_000, 500_000, 0.506, _MOBILENET
  ),
  'mobilenet_v1_0.5': _multiplied(
    'mobilenet_v1', 0.5, 149_000_000, 1_300_000, 0.637, _MOBILENET
  ),
  'mobilenet_v1_0.75': _multiplied(
    'mobilenet_v1', 0.75, 325_000_000, 2_600_000, 0.684, _MOBILENET
  ),
  'mobilenet_v1_1.0': _multiplied(
    'mobilenet_v1', 1.0, 569_000_000, 4_200_000, 0.706, _MOBILENET
  ),
  'mobilenet_v2_1.0': _multiplied(
    'mobilenet_v2', 1.0, 300_000_000, 3_500_000, 0.71878, _TORCHVISION
  ),
  'resnet18_1.0': _multiplied(
    'resnet18', 1.0, 1_810_000_000, 11_700_000, 0.69758, _TORCHVISION
  ),
  'resnet50_1.0': _multiplied(
    'resnet50', 1.0, 4_090_000_000, 25_600_000, 0.7613, _TORCHVISION
  ),
}

_MOST_BYTES = 2**24  # of a file; a child.json of 20,000 classes has a megabyte

ENDS = {'smallest': arch_lib.smallest, 'biggest': arch_lib.biggest}
# What `parse` reads, for --help.
WORDS = 'smallest, biggest, a preset (see `list`), JSON, or a file'


def of_space(name: str) -> dict[str, Preset]:
  """Returns the presets of the space of a name."""
  return {k: preset for k, preset in PRESETS.items() if preset.space == name}


def parse(space: Space, text: str) -> Arch:
  """Reads `smallest`, `biggest`, a preset, JSON, or a file that holds JSON.

  Raises:
    UserError: the text is none of these, or the architecture is not of the
      space.
  """
  named = of_space(space.name)
  if text in ENDS:
    return ENDS[text](space)
  if text in named:
    return arch_lib.check(space, named[text].arch)
  fields = read(text)
  if fields is None:
    names = errors.one_of([*ENDS, *named], text)
    allowed = f'in space {space.name} {names}, JSON, or a file that holds JSON'
    if text in PRESETS:
      allowed += f' (a preset of space {PRESETS[text].space})'
    raise errors.UserError('arch', text, allowed)
  with _place(text):  # search/best.json and child.json have it inside
    return of_fields(space, fields)


def of_fields(space: Space, fields: dict[str, Any]) -> Arch:
  """Returns the architecture of a JSON object, which may have it inside.

  Raises:
    UserError: an entry is missing, unknown or not of the space.
  """
  inner = fields.get('arch', fields)
  if once_for_all_json.is_form(space, inner):
    return once_for_all_json.read(space, inner)
  return arch_lib.from_dict(space, inner)


def space_of(text: str) -> Space:
  """Returns the space that a preset or a `child.json` belongs to.

  Raises:
    UserError: the text names neither a preset nor a `child.json`.
  """
  if text in PRESETS:
    return zoo.get(PRESETS[text].space)
  fields = read(text) or {}
  if 'network' not in fields:
    allowed = f'{errors.one_of(PRESETS, text)}, or a child.json'
    raise errors.UserError('arch', text, f'{allowed}; others need a space')
  with _place(text):
    return schema.convert(Space, fields['network'], 'arch.network')


def _is_json(text: str) -> bool:
  return text.lstrip().startswith('{')


def _place(text: str) -> contextlib.AbstractContextManager[None]:
  """Returns a context in which errors name the file, if the text names one."""
  return contextlib.nullcontext() if _is_json(text) else errors.within(text)


def read(text: str) -> dict[str, Any] | None:
  """Returns the JSON object in a text or in the file that it names, or None.

  Raises:
    UserError: the file cannot be read, or it does not hold a JSON object.
  """
  if _is_json(text):
    return files.parse_json(text, 'arch')
  if not os.path.isfile(text):  # False, not an error, for an odd name too
    return None
  return files.read_json(pathlib.Path(text), at_most=_MOST_BYTES)
