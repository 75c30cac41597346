"""A few steps and evaluations of a config, measured and then forgotten."""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable
from typing import Any

import jax

from bignas_jax.data import loader, pipeline, sources
from bignas_jax.methods import programs
from bignas_jax.methods import step as step_lib
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import restore
from bignas_jax.runs.config import Config
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.system import console
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.training import states
from bignas_jax.values import schema

_LEAST, _UNMEASURED = 8, 2  # steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
  """What a config's parts take on this machine, in seconds.

  Attributes:
    compile_s: to compile all programs of a step.
    step_s: a step, with its images.
    evaluator_s: to compile the programs that evaluate children.
    child_s: to evaluate a child on the held-out images.
  """

  compile_s: schema.AtLeastZero
  step_s: schema.Positive
  evaluator_s: schema.AtLeastZero
  child_s: schema.Positive


def measure(
  config: Config,
  seconds: float,
  now: Callable[[], float] = time.monotonic,
) -> Measured:
  """Measures a config; nothing is written.

  Args:
    config: a config whose space is a literal.
    seconds: how long steps are measured.
    now: clock in seconds.
  """
  setup = config_lib.setup(config)
  splits = sources.load(config.data, setup.model.space.channels)
  began = now()
  with console.busy('compiling'):
    compiled = programs.compile_all(programs.all_programs(setup))
  compile_s = now() - began
  console.say(f'compiled {len(compiled)} programs in {compile_s:.0f} s')
  state, step_s = _steps(config, setup, compiled, splits, seconds, now)
  evaluator_s, child_s = _children(config, setup, splits, state.params, now)
  return Measured(
    compile_s=compile_s,
    step_s=step_s,
    evaluator_s=evaluator_s,
    child_s=child_s,
  )


def _steps(
  config: Config,
  setup: step_lib.Setup,
  compiled: dict[str, Any],
  splits: sources.Splits,
  seconds: float,
  now: Callable[[], float],
) -> tuple[step_lib.State, float]:
  """Trains for some seconds; returns the state and the seconds of a step."""
  mesh = setup.model.mesh
  state = states.initial(setup)
  batches = pipeline.train_batches(
    splits.train,
    config.data,
    batch_size=config.batch_size,
    resolution=setup.model.image_size,
    seed=config.seed,
    rows=mesh_lib.rows(mesh, config.batch_size),
  )
  of_policy = setup.policy.init(config.seed)
  began, measured = now(), 0
  stream = loader.stream(batches, itertools.count())
  with contextlib.closing(stream):
    for draw, images in stream:
      if draw == _UNMEASURED:
        jax.block_until_ready(state)
        began = now()
      measured = max(0, draw - _UNMEASURED)
      if measured >= _LEAST:
        jax.block_until_ready(state)
        if now() - began >= seconds:
          break
      batch = mesh_lib.put(mesh, images, mesh_lib.split(mesh))
      children = setup.policy.sample(of_policy, config.seed, draw, None)
      state, _ = programs.step(
        setup, compiled, state, batch, children, norms=False
      )
  return state, (now() - began) / measured


def _children(
  config: Config,
  setup: step_lib.Setup,
  splits: sources.Splits,
  params: Any,
  now: Callable[[], float],
) -> tuple[float, float]:
  """Returns the seconds to compile an evaluator, and those of a child."""
  began = now()
  evaluator = restore.evaluator(config, setup.model, splits, splits.held_out)
  space = setup.model.space
  evaluator.compile(space.resolution)
  evaluator.score(params, arch_lib.smallest(space))  # compiles its last parts
  compiled = now()
  evaluator.score(params, arch_lib.biggest(space))
  return compiled - began, now() - compiled
