"""A training rule as data: which child learns from whom, in one step.

The loss graph's nodes are the roles of the sampled children; an edge says
that a student learns from the label or from another child, whose softmax is a
constant for it (stop-gradient). One update follows from the sum or the mean
over all children of the step.
"""

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from bignas_jax.methods import losses
from bignas_jax.methods.sampling import ROLES
from bignas_jax.values import errors, schema

LABEL = 'label'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edge:
  """`student` learns from `teacher`: `label`, or the role of a child.

  Of several children of that role, the teacher is the last one before the
  student.
  """

  student: str
  teacher: str
  weight: schema.AtLeastZero = 1.0


@dataclasses.dataclass(kw_only=True, slots=True)
class Rule:
  """What one step minimises (BigNAS, section 3).

  Attributes:
    edges: the loss graph. The default is in-place distillation: only the
      biggest child sees the label, all others only its softmax.
    aggregate: the gradients of all children are summed or averaged.
    regularised: the role that dropout, weight decay and label smoothing apply
      to. All others are far from overfitting.
    dropout: before the biggest child's classifier.
    weight_decay: times half the squared norm of all kernels, in its loss.
    label_smoothing: of its cross-entropy.
  """

  edges: tuple[Edge, ...] = (
    Edge(student='biggest', teacher=LABEL),
    Edge(student='smallest', teacher='biggest'),
    Edge(student='random', teacher='biggest'),
  )
  aggregate: Literal['sum', 'mean'] = 'sum'
  regularised: str = 'biggest'
  dropout: schema.Share = 0.2
  weight_decay: schema.AtLeastZero = 1e-5
  label_smoothing: schema.Share = 0.1


def teachers(rule: Rule) -> set[str]:
  """Roles whose softmax other children learn from."""
  return {edge.teacher for edge in rule.edges} - {LABEL}


def teachers_of(rule: Rule, role: str) -> list[str]:
  """Roles whose softmax this one learns from."""
  sources = [e.teacher for e in rule.edges if e.student == role]
  return [source for source in sources if source != LABEL]


def among(rule: Rule, roles: Collection[str]) -> Rule:
  """What the rule says of children with these roles."""
  edges = tuple(edge for edge in rule.edges if edge.student in roles)
  return dataclasses.replace(rule, edges=edges)


def check(rule: Rule, roles: Sequence[str]) -> None:
  """Checks a rule against the children of a step.

  What passes can be run by `programs`.

  Args:
    rule: the loss graph.
    roles: of the children, in their order.

  Raises:
    UserError: a name is no role's; a child learns nothing, or from one that
      does not run before it; an edge comes twice or its weight is no positive
      number; or nothing is what the regularisation applies to.
  """
  for edge in rule.edges:
    for name, teachable in (
      (edge.student, ROLES),
      (edge.teacher, (LABEL, *ROLES)),
    ):
      if name not in teachable:
        allowed = errors.one_of(teachable, name)
        raise errors.UserError('rule.edges', name, allowed)
    if not (math.isfinite(edge.weight) and edge.weight > 0):
      raise errors.UserError(
        f'rule.edges of {edge.student}: weight', edge.weight, 'a number > 0'
      )
  if rule.regularised not in roles:
    allowed = errors.one_of(set(roles), rule.regularised)
    raise errors.UserError('rule.regularised', rule.regularised, allowed)
  for role in dict.fromkeys(roles):
    sources = [edge.teacher for edge in rule.edges if edge.student == role]
    earlier = {LABEL, *roles[: roles.index(role)]}
    once = len(set(sources)) == len(sources)
    if not sources or not set(sources) <= earlier or not once:
      allowed = f'{errors.one_of(earlier)}; at least one, and each once'
      raise errors.UserError(f'rule.edges of {role}', sources, allowed)


def loss(
  rule: Rule,
  role: str,
  logits: jax.Array,
  labels: jax.Array,
  softmaxes: dict[str, jax.Array],
) -> jax.Array:
  """A child's loss, [batch].

  Args:
    rule: the loss graph.
    role: of this child.
    logits: [batch, classes].
    labels: [batch].
    softmaxes: [batch, classes] by role, of the children that ran before.
  """
  smoothing = rule.label_smoothing if role == rule.regularised else 0.0
  total = jnp.zeros(labels.shape)
  for edge in rule.edges:
    if edge.student != role:
      continue
    if edge.teacher == LABEL:
      term = losses.cross_entropy(logits, labels, smoothing)
    else:
      target = jax.lax.stop_gradient(softmaxes[edge.teacher])
      term = losses.soft_cross_entropy(logits, target)
    total = total + edge.weight * term
  return total
