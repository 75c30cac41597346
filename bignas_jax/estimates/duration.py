"""Estimates of a run's duration on a pod, from the compiler's reports.

The compiler counts the body of a loop once and does not know which branch of a
switch is taken. Its time is therefore taken for one static child only, the
biggest where the step has it, and scaled to other children by their
activations: layers with so few channels are bound by memory, not by arithmetic.
The static child's program has loops if its blocks are recomputed
(`Config.recompute`).
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from bignas_jax.costs import counting
from bignas_jax.estimates import chips
from bignas_jax.estimates.compiler_reports import Report
from bignas_jax.methods import programs, teaching
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Config
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space

_SAMPLES = 1000  # random children that a mean is taken over
# Cost of a step with recomputation over that without: a backward pass costs two
# forward passes, and recomputation adds one forward pass to the three.
_AGAIN = 4 / 3

ASSUMPTIONS = (
  'compiled with the least optimisation effort',
  'biggest child (without one, the smallest): seconds of the TPU compiler, '
  'or, where it gives none, the larger of FLOPs / peak and bytes / bandwidth; '
  'loops counted once are scaled by activations',
  'other children: that time by their activations; random ones by the mean '
  f'over {_SAMPLES} samples, and a third more if they alone recompute',
  'peak bytes: the program, what it is not given of the state, and a copy of '
  'the state, which is being saved',
  'forward passes of random children that a mean is taken of: not counted',
  'input, logging, checkpoints and evaluation: hidden behind the steps',
)


def seconds(
  config: Config, chip: chips.Chip, reports: Mapping[str, Report]
) -> dict[str, float]:
  """Returns the seconds of each program, with branches and loops accounted for.

  Args:
    config: config of the run.
    chip: device that the programs were compiled for.
    reports: compiler reports by name of the program.

  Returns:
    Seconds by name of the program; empty if the step has no static child, since
    the compiler's time is valid only for one.
  """
  space, policy = config_lib.space(config), config_lib.policy(config)
  fixed = policy.static
  if not fixed:
    return {}
  reference, arch = next(iter(fixed.items()))
  counted = sum(
    row.cost.activations
    for row in counting.rows(space, arch)
    if not (config.recompute and _is_repeated(row.name))
  )
  unit = of_program(reports[reference], chip) / counted
  random_unit = unit if config.recompute else _AGAIN * unit
  times = {
    name: of_program(reports[name], chip)
    for name in reports
    if name in (programs.START, programs.UPDATE) or teaching.is_static(name)
  }
  for role, arch in fixed.items():
    times[role] = unit * _activations(space, arch)
  elastic = [role for role in policy.roles if role not in fixed]
  if not elastic:
    return times
  rng = arch_lib.generator(config.seed)
  sampled = [
    arch_lib.sample(space, rng, training=True) for _ in range(_SAMPLES)
  ]
  for resolution in space.train_resolution:
    mean = random_unit * float(
      np.mean(
        [
          _activations(space, dataclasses.replace(arch, resolution=resolution))
          for arch in sampled
        ]
      )
    )
    times |= {f'{role}@{resolution}': mean for role in elastic}
  return times


def of_program(report: Report, chip: chips.Chip) -> float:
  """Returns a program's seconds by the compiler, or else by the roofline."""
  if report.seconds > 0:
    return report.seconds
  return max(report.flops / chip.flops, report.bytes / chip.bandwidth)


def _is_repeated(row: str) -> bool:
  """Returns whether a row is in a loop body counted with an earlier block."""
  _, is_block, number = row.partition('.block')
  return bool(is_block) and int(number) > 2


def _activations(space: Space, arch: Arch) -> int:
  return counting.cost(space, arch).activations


def step_seconds(config: Config, seconds: dict[str, float]) -> float | None:
  """Returns the seconds of a step by those of its programs; None: unknown."""
  if not seconds:
    return None
  sizes = config_lib.space(config).train_resolution
  total = seconds[programs.UPDATE] + seconds.get(programs.START, 0)
  total += sum(s for name, s in seconds.items() if teaching.is_static(name))
  for role in config_lib.policy(config).roles:
    names = [f'{role}@{size}' for size in sizes]
    took = [seconds[n] for n in ([role] if role in seconds else names)]
    total += float(np.mean(took))
  return total
