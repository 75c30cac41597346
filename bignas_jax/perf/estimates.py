"""How long a run would take on a pod, from what the compiler says.

The compiler counts the body of a loop once and says nothing of the branch
taken, so its time is asked for one static child alone, the biggest where there
is one, and scaled by activations: convolutions this thin wait for memory, not
for arithmetic. That child has loops if it computes its blocks again
(`Config.recompute`).
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from bignas_jax.methods import programs
from bignas_jax.perf import chips
from bignas_jax.perf.compiler_reports import Figures
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Config
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import counting
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space

_SAMPLES = 1000  # random children that a mean is taken over
_AGAIN = 4 / 3  # forward, forward again and backward, to once and backward

ASSUMPTIONS = (
  'compiled with the least optimisation effort',
  'biggest child (without one, the smallest): seconds of the TPU compiler, '
  'or, where it gives none, the larger of FLOPs / peak and bytes / bandwidth; '
  'loops counted once are scaled by activations',
  'other children: that time by their activations; random ones by the mean '
  f'over {_SAMPLES} samples, and a third more if they alone recompute',
  'peak bytes: the program, what it is not given of the state, and a copy of '
  'the state, which is being saved',
  'input, logging, checkpoints and evaluation: hidden behind the steps',
)


def seconds(
  config: Config, chip: chips.Chip, figures: Mapping[str, Figures]
) -> dict[str, float]:
  """Seconds of each program, branches and loops taken into account.

  Empty, if the step has no static child, of which alone the compiler knows.
  """
  space, roles = config_lib.space(config), config_lib.roles(config)
  fixed = programs.static(roles)
  if not fixed:
    return {}
  known, make = next(iter(fixed.items()))
  counted = sum(
    row.cost.activations
    for row in counting.rows(space, make(space))
    if not (config.recompute and _is_repeated(row.name))
  )
  unit = of_program(figures[known], chip) / counted
  random_unit = unit if config.recompute else _AGAIN * unit
  found = {
    name: of_program(figures[name], chip)
    for name in (programs.START, programs.UPDATE)
    if name in figures
  }
  for role, make in fixed.items():
    found[role] = unit * _activations(space, make(space))
  if 'random' not in roles:
    return found
  rng = arch_lib.generator(config.seed)
  sampled = [
    arch_lib.sample(space, rng, training=True) for _ in range(_SAMPLES)
  ]
  for resolution in space.train_resolution:
    found[f'random@{resolution}'] = random_unit * float(
      np.mean(
        [
          _activations(space, dataclasses.replace(arch, resolution=resolution))
          for arch in sampled
        ]
      )
    )
  return found


def of_program(one: Figures, chip: chips.Chip) -> float:
  """Seconds by the compiler, where it says anything, or by the roofline."""
  if one.seconds > 0:
    return one.seconds
  return max(one.flops / chip.flops, one.bytes / chip.bandwidth)


def _is_repeated(row: str) -> bool:
  """Whether a loop computes it that was counted with an earlier block."""
  _, is_block, number = row.partition('.block')
  return bool(is_block) and int(number) > 2


def _activations(space: Space, arch: Arch) -> int:
  return counting.cost(space, arch).activations


def step_seconds(config: Config, seconds: dict[str, float]) -> float | None:
  """Returns what a step takes, by `seconds`; None if they are not known."""
  if not seconds:
    return None
  sizes = config_lib.space(config).train_resolution
  total = seconds[programs.UPDATE] + seconds.get(programs.START, 0)
  for role in config_lib.roles(config):
    names = [f'{role}@{size}' for size in sizes]
    took = [seconds[n] for n in ([role] if role in seconds else names)]
    total += float(np.mean(took))
  return total
