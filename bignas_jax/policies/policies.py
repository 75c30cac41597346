"""A sampling policy: which children a step trains.

A policy is a pair of functions over a small state, as in optax: `sample`
chooses the children of a step, `update` learns from what was measured of them.
A policy may ask for scores of children on the step's batch, which follow from
the training state. So every host computes the same children, and so does a
resumed run.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space

_ROLE = re.compile(r'[A-Za-z][A-Za-z0-9_]*')
# Nodes of the loss graph that are no children, and programs that train none.
RESERVED = ('label', 'ema', 'all', 'start', 'score', 'resort', 'update')


class Child(NamedTuple):
  """A child in a step, its role there, and the weight of its loss."""

  role: str
  arch: Arch
  weight: float = 1.0


ALLOWED = f'letters, digits and _, but for {", ".join(RESERVED)}'


# What metrics call the architecture that a policy has learnt.
LEARNT = 'most_probable'

# Children -> their losses on the step's batch, equal on all hosts.
Score = Callable[[list[Arch]], list[float]]
# Arrays by name; they lie in the checkpoint. Empty: the policy has no state.
State = dict[str, Shaped[np.ndarray, '...']]
# Of each child, its `step_metrics.of_child`.
Measured = Sequence[dict[str, Any]]


def stateless(seed: int) -> State:
  """Returns the state of a policy that has none."""
  del seed
  return {}


def unchanged(state: State, children: list[Child], measured: Measured) -> State:
  """Returns the state as it is: the update of a policy that learns nothing."""
  del children, measured
  return state


class Policy(NamedTuple):
  """A policy for one space.

  Attributes:
    roles: roles of the children of a step, in their order, teachers first. A
      role is a free name, and may occur several times.
    static: the only child of a role, by role; it is compiled as a network of
      its own. Children of other roles may be any of the space; roles that are
      trained alike share their programs (`loss_graph.alike`).
    sample: a function of (state, seed, draw, score) that returns the children
      of a step. The draw is the number of the step's batch, which is that of
      the step until a rollback skips batches. Without a score, it may return
      any children of its roles.
    varies: whether a step may have fewer children: the first of `roles`.
    scored: whether `sample` scores children on the step's batch.
    weighs: whether children have weights; else all weights are 1.
    second_batches: number of batches of the second split (`sources.Splits`)
      that the children of a step are measured on after the update. `update` is
      given their mean loss and accuracy, as `second_loss` and `second_top1`.
    second_every: how often a step's children are measured so, in updates.
    resorts: numbers of updates after which hidden channels are sorted by
      importance (`channel_order`).
    init: a function from the seed to the state before the first step.
    update: a function of (state, children, measured) that returns the state
      after a step. It is called before the next step's children are sampled,
      so it makes each step wait for its metrics; if the state is empty, it is
      not called. The metrics may not be finite: such a step is rolled back.
    learnt: a function from the state to the architecture that the policy would
      choose by what it has learnt; None: the policy learns nothing.
    gated: whether `update` learns from gradients of gates (`methods.gates`):
      the metrics of each child that is not static have `gates`.
  """

  roles: tuple[str, ...]
  static: dict[str, Arch]
  sample: Callable[[State, int, int, Score | None], list[Child]]
  varies: bool = False
  scored: bool = False
  weighs: bool = False
  second_batches: int = 0
  second_every: int = 1
  resorts: frozenset[int] = frozenset()
  init: Callable[[int], State] = stateless
  update: Callable[[State, list[Child], Measured], State] = unchanged
  learnt: Callable[[State], Arch] | None = None
  gated: bool = False


def is_role(name: str) -> bool:
  """Returns whether a name may be that of a role.

  Roles stand in names of programs and of metrics.
  """
  return bool(_ROLE.fullmatch(name)) and name not in RESERVED


def ends(space: Space) -> dict[str, Arch]:
  """Returns the biggest and the smallest child by their usual roles."""
  return {
    'biggest': arch_lib.biggest(space),
    'smallest': arch_lib.smallest(space),
  }


def evaluated(
  policy: Policy, space: Space, state: State | None = None
) -> dict[str, Arch]:
  """Returns the children that a run evaluates, by role.

  They are the static ones, and the ends that have a role; if a policy has none
  of these, the biggest and the smallest. With a state, the architecture that
  the policy has learnt is one more.
  """
  usual = ends(space)
  named = {role: usual[role] for role in usual if role in policy.roles}
  children = policy.static | named | policy.static or usual
  learnt = {LEARNT: policy.learnt(state)} if policy.learnt and state else {}
  return children | learnt


def is_of(policy: Policy, children: Sequence[Child]) -> bool:
  """Returns whether a step of a policy may consist of these children."""
  roles = tuple(child.role for child in children)
  fewest = 1 if policy.varies else len(policy.roles)
  right = len(roles) >= fewest and roles == policy.roles[: len(roles)]
  return right and all(
    child.arch == policy.static.get(child.role, child.arch)
    and (policy.weighs or child.weight == 1)
    for child in children
  )
