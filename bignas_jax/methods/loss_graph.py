"""A training rule as a loss graph: which child learns from which in a step.

The loss graph's nodes are the roles of a policy's children; an edge says that a
student learns from the label or from another child, whose logits are constants
for it (stop-gradient). One update follows from the sum or the mean over all
children of the step.
"""

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bignas_jax.methods import losses
from bignas_jax.values import errors, schema

LABEL = 'label'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edge:
  """An edge of the loss graph, from `teacher` (`label` or a role) to `student`.

  Of several children with the role `teacher`, the last one before the student
  teaches.

  Attributes:
    student: role of the children that learn.
    teacher: role of the child that they learn from, or `label`.
    weight: factor of the loss.
    loss: loss against a teacher (`losses.OF_TEACHER`); the loss against the
      label is always the cross-entropy.
    temperature: number that both logits are divided by before a loss against a
      teacher.
  """

  student: str
  teacher: str
  weight: schema.AtLeastZero = 1.0
  loss: Literal['soft_cross_entropy', 'kl', 'alpha'] = 'soft_cross_entropy'
  temperature: schema.Positive = 1.0


@dataclasses.dataclass(kw_only=True, slots=True)
class Rule:
  """The loss that one step minimises (BigNAS, section 3).

  Attributes:
    edges: the loss graph; the default is in-place distillation: only the
      biggest child sees the label, all others only its softmax.
    aggregate: whether the children's gradients are summed or averaged.
    regularised: the role that dropout, weight decay and label smoothing apply
      to; children with other roles are far from overfitting.
    dropout: dropout rate before the regularised child's classifier.
    weight_decay: factor of half the squared norm of all kernels, in the
      regularised child's loss.
    label_smoothing: smoothing of the regularised child's label.
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
  """Returns the roles that other children learn from."""
  return {edge.teacher for edge in rule.edges} - {LABEL}


def teachers_of(rule: Rule, role: str) -> list[str]:
  """Returns the roles that this role's children learn from."""
  sources = [e.teacher for e in rule.edges if e.student == role]
  return [source for source in sources if source != LABEL]


def among(rule: Rule, roles: Collection[str]) -> Rule:
  """Returns the rule with only the edges whose students have these roles."""
  edges = tuple(edge for edge in rule.edges if edge.student in roles)
  return dataclasses.replace(rule, edges=edges)


def check(rule: Rule, roles: Sequence[str]) -> None:
  """Checks a rule against a step's children; `programs` can run what passes.

  Edges to students of the default rule are left aside by policies that have no
  such child; all other names must be roles.

  Args:
    rule: the loss graph and the regularisation.
    roles: roles of the policy's children, in their order.

  Raises:
    UserError: a name is no role; a child has no teacher, or one that does not
      run before it; an edge is repeated, or its weight is no positive number;
      or no child has the regularised role.
  """
  known = {edge.student for edge in Rule().edges} | set(roles)
  for edge in rule.edges:
    for name, names in (edge.student, known), (edge.teacher, {LABEL, *known}):
      if name not in names:
        allowed = errors.one_of(names, name)
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
  logits: Float[Array, 'batch classes'],
  labels: Int[Array, 'batch'],
  teachers: dict[str, Float[Array, 'batch classes']],
) -> Float[Array, 'batch']:
  """Returns a child's loss for each image.

  Args:
    rule: the loss graph.
    role: role of this child.
    logits: logits of this child.
    labels: labels of the images.
    teachers: logits of the children that ran before, by role.
  """
  smoothing = rule.label_smoothing if role == rule.regularised else 0.0
  total = jnp.zeros(labels.shape)
  for edge in rule.edges:
    if edge.student != role:
      continue
    if edge.teacher == LABEL:
      term = losses.cross_entropy(logits, labels, smoothing)
    else:
      term = losses.of_teacher(
        edge.loss, logits, teachers[edge.teacher], edge.temperature
      )
    total = total + edge.weight * term
  return total
