"""Estimates of a run's duration on a pod, from the compiler's reports.

The compiler counts the body of a loop once and does not know which branch of a
switch is taken. Its time is therefore taken for one static child only, the
biggest where the step has it, and scaled to other children by their
activations: layers with so few channels are bound by memory, not by arithmetic.
If a step has no static child, the biggest is compiled for this alone (`ALONE`).
The static child's program has loops if its blocks are recomputed
(`Config.recompute`).
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from bignas_jax.costs import counting
from bignas_jax.estimates import chips
from bignas_jax.estimates.compiler_reports import Report
from bignas_jax.methods import programs, teaching
from bignas_jax.policies.policies import Child
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Config
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space

# The report of the biggest child, in runs whose steps have no static child.
ALONE = 'alone'
# Steps of a run, over whose children a mean is taken; the most of them.
_STEPS, _CHILDREN = 500, 1000
# Seconds of a child whose blocks are computed again in the backward pass, over
# those with residuals stored, by the compiler (docs/performance.md). One more
# forward pass would be 1.33, but recomputing reads less than was stored.
_AGAIN = 1.21
_FORWARD = 1 / 3  # of a child's cost without recomputation

ASSUMPTIONS = (
  'compiled with the least optimisation effort',
  'biggest child (without one, the smallest; without static children, the '
  'biggest compiled for this alone): seconds of the TPU compiler, or, where it '
  'gives none, the larger of FLOPs / peak and bytes / bandwidth; loops counted '
  'once are scaled by activations',
  'other children: that time by their activations; random ones by the mean '
  f'over {_STEPS} steps of the run, times {_AGAIN} if they alone recompute',
  'children as they are drawn before the policy has learnt; those that are '
  'only scored: one forward pass, a third of the time without recomputation',
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
    Seconds by name of the program; empty if there is no report on a static
    child, since the compiler's time is valid only for one.
  """
  space, policy = config_lib.space(config), config_lib.policy(config)
  reference, arch = ALONE, arch_lib.biggest(space)
  if policy.static:
    reference, arch = next(iter(policy.static.items()))
  if reference not in reports or reports[reference].problem:
    return {}
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
  for role, arch in policy.static.items():
    times[role] = unit * _activations(space, arch)
  elastic = _elastic(config)
  forward = _FORWARD * random_unit / _AGAIN
  for size in space.train_resolution if elastic else ():
    means = {role: _mean(space, elastic[role], size) for role in elastic}
    times |= {f'{role}@{size}': random_unit * n for role, n in means.items()}
    if policy.scored or policy.second_batches:
      scored = next(reversed(means.values()))
      times[f'{programs.SCORE}@{size}'] = forward * scored
  return times


def _steps(config: Config) -> list[list[Child]]:
  """Returns the children of some steps, which lie evenly over the run."""
  policy = config_lib.policy(config)
  state, last = policy.init(config.seed), config.steps - 1
  numbers = np.unique(np.linspace(0, last, _STEPS).astype(int))
  return [policy.sample(state, config.seed, int(n), None) for n in numbers]


def _elastic(config: Config) -> dict[str, list[Arch]]:
  """Returns children of each role that is not static, teachers first."""
  policy, drawn = config_lib.policy(config), {}
  if all(role in policy.static for role in policy.roles):
    return drawn
  for child in (child for children in _steps(config) for child in children):
    if child.role not in policy.static:
      drawn.setdefault(child.role, []).append(child.arch)
  return drawn


def _mean(space: Space, archs: list[Arch], resolution: int) -> float:
  """Returns the mean of the children's activations at one resolution."""
  some = archs[:: math.ceil(len(archs) / _CHILDREN)]
  same = (dataclasses.replace(arch, resolution=resolution) for arch in some)
  return float(np.mean([_activations(space, arch) for arch in same]))


def of_program(report: Report, chip: chips.Chip) -> float:
  """Returns a program's seconds by the compiler, or else by the roofline."""
  if report.seconds > 0:
    return report.seconds
  return chips.roofline(report.flops, report.bytes, chip)


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

  def mean(role: str) -> float:
    names = [role] if role in seconds else [f'{role}@{n}' for n in sizes]
    return float(np.mean([seconds[name] for name in names]))

  total = seconds[programs.UPDATE] + seconds.get(programs.START, 0)
  total += sum(s for name, s in seconds.items() if teaching.is_static(name))
  steps = _steps(config)
  for role in dict.fromkeys(config_lib.policy(config).roles):
    children = sum(one.role == role for children in steps for one in children)
    total += children / len(steps) * mean(role)
  scored = _scored(config, sum(map(len, steps)) / len(steps))
  return total + (scored * mean(programs.SCORE) if scored else 0)


def _scored(config: Config, children: float) -> float:
  """Returns how many children a step scores, or measures on a second split.

  Args:
    config: config of the run.
    children: mean number of children that a step trains.
  """
  policy, numbers = config_lib.policy(config), []

  def score(archs: list[Arch]) -> list[float]:
    numbers.append(len(archs))
    return [0.0] * len(archs)

  if policy.scored:
    policy.sample(policy.init(config.seed), config.seed, 0, score)
  second = policy.second_batches / policy.second_every
  return sum(numbers) + second * children
