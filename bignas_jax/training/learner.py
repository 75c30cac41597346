"""The policy of a run at work: it samples children, and learns from them.

All hosts sample the same children, because they measure the same numbers.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax

from bignas_jax.data import loader
from bignas_jax.methods import programs
from bignas_jax.methods.step import Setup, State
from bignas_jax.policies import policies
from bignas_jax.policies.policies import Child
from bignas_jax.system import mesh as mesh_lib

Tree = Any


class Learner:
  """A policy and its state.

  Args:
    setup: setup of the run.
    second: endless batches of the second split, of which this process has its
      rows; None: the policy measures nothing on them.
  """

  def __init__(self, setup: Setup, second: loader.Batches | None):
    self.state: policies.State = {}
    self._setup, self._batches = setup, second
    self._second: Iterator[loader.Batch] = iter(())
    self._compiled: dict[str, Callable] = {}

  @contextlib.contextmanager
  def started(self, step: int, compiled: dict[str, Callable]) -> Iterator[None]:
    """Prepares batches of the second split while the block runs.

    Args:
      step: number of updates that were made before.
      compiled: compiled programs of the run by name.
    """
    self._compiled, policy = compiled, self._setup.policy
    with contextlib.ExitStack() as held:
      if self._batches is not None:
        first = step // policy.second_every * policy.second_batches
        ahead = self._batches.prepared(first)
        self._second = held.enter_context(contextlib.closing(ahead))
      yield

  def sample(self, draw: int, state: State, batch: Tree) -> list[Child]:
    """Returns the children of a step, on all hosts the same."""
    setup = self._setup
    score = functools.partial(
      programs.scores, setup, self._compiled, state, batch
    )
    children = setup.policy.sample(self.state, setup.seed, draw, score)
    assert policies.is_of(setup.policy, children), children
    return children

  def learn(
    self, done: int, state: State, children: list[Child], measured: list[Any]
  ) -> list[Any]:
    """Updates the policy's state, if it has one, when the step has ended.

    Args:
      done: number of updates.
      state: training state after them.
      children: children of the last step.
      measured: metrics of each child and, last, of the update.

    Returns:
      The metrics, with those on the second split if there are any.
    """
    *of_children, of_update = measured
    policy = self._setup.policy
    if policy.second_batches and done % policy.second_every == 0:
      second = self._measured(state, children)
      pairs = zip(of_children, second, strict=True)
      of_children = [one | other for one, other in pairs]
    if self.state:
      numbers = jax.device_get(of_children)
      self.state = policy.update(self.state, children, numbers)
    return [*of_children, of_update]

  def _measured(self, state: State, children: list[Child]) -> list[Any]:
    """Returns metrics of each child on the next batches of the second split."""
    mesh = self._setup.model.mesh
    number = self._setup.policy.second_batches
    batches = [
      mesh_lib.put(mesh, batch, mesh_lib.split(mesh))
      for batch in itertools.islice(self._second, number)
    ]
    return programs.on_second(
      self._setup, self._compiled, state, batches, children
    )
