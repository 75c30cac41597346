"""python -m bignas_jax.list: lists spaces and published networks."""

from collections.abc import Sequence
from typing import Any

from absl import flags

from bignas_jax import cli
from bignas_jax.costs import counting
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import presets, zoo
from bignas_jax.spaces.presets import Preset
from bignas_jax.spaces.space import Space
from bignas_jax.system import console


def main(arguments: Sequence[str]) -> dict[str, Any]:
  """Returns names, costs and published numbers of spaces and presets."""
  given = cli.parse(
    'list',
    'Spaces, and presets: published networks that every --arch takes by name.',
    _define,
    arguments,
  )
  wanted = list(zoo.SPACES.values())
  if given.space is not None:
    wanted = [zoo.get(given.space)]
  return {
    'spaces': [_space(space) for space in wanted],
    'presets': [
      _preset(name, preset)
      for space in wanted
      for name, preset in presets.of_space(space.name).items()
    ],
  }


def _define(values: flags.FlagValues) -> None:
  spaces = ', '.join(zoo.SPACES)
  cli.text(values, 'space', None, f'one of {spaces}; otherwise all')


def _space(space: Space) -> dict[str, Any]:
  """Returns a space's smallest and biggest child; also prints them."""
  children = arch_lib.count(space)
  console.say(f'space {space.name}: {children:,} children')
  ends = {}
  for name, make in presets.ENDS.items():
    arch = make(space)
    cost = counting.cost(space, arch)
    ends[name] = cost._asdict() | {'resolution': arch.resolution}
    console.say(f'  {name:18}{_summary(arch.resolution, cost)}')
  return {
    'name': space.name,
    'children': children,
    'resolution': list(space.resolution),
  } | ends


def _preset(name: str, preset: Preset) -> dict[str, Any]:
  """Returns a preset's counted and published numbers; also prints them."""
  arch, space = preset.arch, zoo.get(preset.space)
  cost = counting.cost(space, arch)
  console.say(
    f'{name:20}{_summary(arch.resolution, cost)} '
    f'{100 * preset.top1:.1f} % top-1 on ImageNet ({preset.source})'
  )
  return {
    'name': name,
    'space': preset.space,
    'resolution': arch.resolution,
    'macs': cost.macs,
    'params': cost.params,
    'published': {
      'top1': preset.top1,
      'macs': preset.macs,
      'params': preset.params,
      'source': preset.source,
    },
    'arch': arch_lib.to_dict(arch),
  }


def _summary(resolution: int, cost: counting.Cost) -> str:
  return (
    f'{resolution:4} px {cost.macs / 1e6:9.2f} M MACs '
    f'{cost.params / 1e6:7.3f} M parameters'
  )


if __name__ == '__main__':
  cli.run(main)
