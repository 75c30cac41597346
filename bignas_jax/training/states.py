"""What a checkpoint holds: the training state, and the policy's if it has one.

A policy without a state adds nothing to a checkpoint. The architecture that a
policy has learnt lies in a file of its own, where other commands find it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from bignas_jax.methods import step as step_lib
from bignas_jax.methods.step import State
from bignas_jax.policies import policies
from bignas_jax.runs.checkpoints import Checkpoints
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.system import cluster, console, files
from bignas_jax.system import mesh as mesh_lib

Tree = Any

_POLICY = 'policy'
_LEARNT = f'{policies.LEARNT}.json'


def joined(state: State, of_policy: policies.State) -> Tree:
  """Returns the tree that a checkpoint holds."""
  if not of_policy:
    return state
  return {**state._asdict(), _POLICY: of_policy}


def keep_learnt(workdir: epath.Path, archs: dict[str, Arch]) -> None:
  """Writes the learnt architecture, if there is one, as `--arch` reads it.

  Args:
    workdir: work directory.
    archs: the evaluated children by role.
  """
  if policies.LEARNT in archs:
    fields = {'arch': arch_lib.to_dict(archs[policies.LEARNT])}
    cluster.once(lambda: files.write_json(workdir / _LEARNT, fields))


def restore_or_init(
  setup: step_lib.Setup,
  checkpoints: Checkpoints,
  weights: Callable[[], Tree] = dict,
) -> tuple[State, policies.State]:
  """Returns the newest checkpoint's states, or else those of step 0.

  Args:
    setup: setup of the run.
    checkpoints: checkpoints of the run.
    weights: makes the parameters that step 0 has instead of random ones.
  """
  like = step_lib.described_state(setup)
  first = setup.policy.init(setup.seed)
  step = checkpoints.latest()
  if step is not None:
    console.say(f'resuming from step {step}')
    restored = checkpoints.restore(step, joined(like, first))
    if not first:
      return restored, {}
    of_policy = restored.pop(_POLICY)
    return State(**restored), of_policy
  return initial(setup, cluster.each(weights)), first


def initial(
  setup: step_lib.Setup, params: Tree | None = None, step: int = 0
) -> State:
  """Returns a state that no step has changed, on the mesh.

  Args:
    setup: setup of the run.
    params: parameters in place of random ones; None: none.
    step: number of steps that the state counts as done.
  """
  init = step_lib.init_state(setup)
  places = mesh_lib.places(step_lib.described_state(setup))

  def run(given: Tree) -> State:
    return init(given)._replace(step=jnp.int32(step))

  given = mesh_lib.put(setup.model.mesh, params or {}, mesh_lib.REPLICATED)
  return jax.jit(run, out_shardings=places)(given)
