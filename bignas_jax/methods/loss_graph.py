"""A training rule as a loss graph: which child learns from which in a step.

The loss graph's nodes are the roles of a policy's children; an edge says that a
student learns from the label, from another child or from a teacher that is no
child, whose logits are constants for it (stop-gradient). One update follows
from the sum or the mean over all children of the step.
"""

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bignas_jax.methods import losses
from bignas_jax.policies import policies
from bignas_jax.values import errors, schema

# Nodes that need no declaration: the label, and the averaged parameters'
# biggest child (`Config.ema_decay`).
LABEL, EMA = 'label', 'ema'
ALL = 'all'  # for all roles, as `Rule.regularised`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edge:
  """An edge of the loss graph, from `teacher` to `student`.

  Of several children with the role `teacher`, the last one before the student
  teaches.

  Attributes:
    student: role of the children that learn, or the name of a learnt mean.
    teacher: what they learn from: `label`, the role of a child, the name of a
      mean or of a package, or `ema`.
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mean:
  """A teacher: the mean of the logits of a step's children.

  Its members are computed before any child is trained, without dropout, and no
  gradient enters them.

  Attributes:
    name: name in the loss graph.
    of: roles of the children, each of which a step has once.
    learnt: whether the members weigh as much as the softmax of parameters says
      (RS-Net, ECCV 2020); these learn from the label alone, by an edge to this
      mean. Otherwise all members weigh the same.
  """

  name: str
  of: tuple[str, ...]
  learnt: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Package:
  """A teacher: the network of a child package, which is not trained.

  Its classes and the normalisation of its images are the run's.

  Attributes:
    name: name in the loss graph.
    path: directory of the child package.
    sha256: digest of its weights, set at start (`warm_start`).
  """

  name: str
  path: str
  sha256: str = ''


@dataclasses.dataclass(kw_only=True, slots=True)
class Rule:
  """The loss that one step minimises (BigNAS, section 3).

  Attributes:
    edges: the loss graph; the default is in-place distillation: only the
      biggest child sees the label, all others only its softmax.
    means: teachers that are means of children.
    packages: teachers that are networks of child packages.
    aggregate: whether the children's gradients are summed or averaged.
    regularised: the role that dropout, drop-connect, weight decay and label
      smoothing apply to; children with other roles are far from overfitting.
      `all`: they apply to all children.
    dropout: dropout rate before the regularised child's classifier.
    drop_connect: rate of drop-connect (stochastic depth) of the regularised
      child: a block whose shortcut is its unchanged input loses its own result
      for single images, at this rate times the share of blocks before it.
    drop_connect_stages: number of last stages whose blocks are dropped; 0: all.
    weight_decay: factor of half the squared norm of all kernels, in the
      regularised child's loss.
    label_smoothing: smoothing of the regularised child's label.
  """

  edges: tuple[Edge, ...] = (
    Edge(student='biggest', teacher=LABEL),
    Edge(student='smallest', teacher='biggest'),
    Edge(student='random', teacher='biggest'),
  )
  means: tuple[Mean, ...] = ()
  packages: tuple[Package, ...] = ()
  aggregate: Literal['sum', 'mean'] = 'sum'
  regularised: str = 'biggest'
  dropout: schema.Share = 0.2
  drop_connect: schema.Share = 0.0
  drop_connect_stages: schema.Whole = 0
  weight_decay: schema.AtLeastZero = 1e-5
  label_smoothing: schema.Share = 0.1


def teachers(rule: Rule) -> set[str]:
  """Returns the names of all that students learn from, but for the label."""
  return {edge.teacher for edge in rule.edges} - {LABEL}


def teachers_of(rule: Rule, role: str) -> list[str]:
  """Returns the names of what this role's children learn from."""
  sources = [e.teacher for e in rule.edges if e.student == role]
  return [source for source in sources if source != LABEL]


def regularises(rule: Rule, role: str) -> bool:
  """Returns whether children of this role are regularised."""
  return rule.regularised in (role, ALL)


def members(rule: Rule) -> set[str]:
  """Returns the roles that means are taken of."""
  return {role for one in rule.means for role in one.of}


def alike(rule: Rule, roles: Sequence[str]) -> dict[str, str]:
  """Returns for each role the first one whose children are trained alike.

  Such roles differ in their names alone: they learn from the same teachers by
  the same losses, and are regularised, teach or belong to a mean alike.
  """
  first: dict[tuple, str] = {}
  teach, of_means = teachers(rule), members(rule)

  def traits(role: str) -> tuple:
    own = [edge for edge in rule.edges if edge.student == role]
    edges = [dataclasses.replace(edge, student='') for edge in own]
    regular = regularises(rule, role)
    return *edges, regular, role in teach, role in of_means

  return {role: first.setdefault(traits(role), role) for role in roles}


def among(rule: Rule, roles: Collection[str]) -> Rule:
  """Returns the rule with only the edges that a policy of these roles uses."""
  students = {*roles, *(one.name for one in rule.means)}
  edges = tuple(edge for edge in rule.edges if edge.student in students)
  return dataclasses.replace(rule, edges=edges)


def from_label(*roles: str) -> tuple[Edge, ...]:
  """Returns the edges by which children of these roles learn from the label."""
  return tuple(Edge(student=role, teacher=LABEL) for role in roles)


def alone(rule: Rule, role: str) -> Rule:
  """Returns the rule by which one role learns from the label alone.

  It is regularised as the given rule says.
  """
  return dataclasses.replace(
    rule, edges=from_label(role), means=(), packages=(), regularised=role
  )


def check(rule: Rule, roles: Sequence[str]) -> None:
  """Checks a rule against a step's children; `programs` can run what passes.

  Edges to students of the default rule are left aside by policies that have no
  such child; all other names must be roles or teachers.

  Args:
    rule: the loss graph and the regularisation.
    roles: roles of the policy's children, in their order.

  Raises:
    UserError: a name is no role and no teacher, or that of two; a child has no
      teacher, or one that does not run before it; a learnt mean does not learn
      from the label; an edge is repeated, or its weight is no positive number;
      or no child is regularised.
  """
  usual = {edge.student for edge in Rule().edges} | set(roles)
  _check_declared(rule, roles, usual)
  first = {LABEL, EMA, *_declared(rule)}
  students = usual | {one.name for one in rule.means if one.learnt}
  for edge in rule.edges:
    for name, names in (edge.student, students), (edge.teacher, first | usual):
      if name not in names:
        allowed = errors.one_of(names, name)
        raise errors.UserError('rule.edges', name, allowed)
    if not (math.isfinite(edge.weight) and edge.weight > 0):
      raise errors.UserError(
        f'rule.edges of {edge.student}: weight', edge.weight, 'a number > 0'
      )
  if rule.regularised not in (*roles, ALL):
    allowed = errors.one_of({*roles, ALL}, rule.regularised)
    raise errors.UserError('rule.regularised', rule.regularised, allowed)
  for role in dict.fromkeys(roles):
    sources = [edge.teacher for edge in rule.edges if edge.student == role]
    earlier = {*first, *roles[: roles.index(role)]}
    once = len(set(sources)) == len(sources)
    if not sources or not set(sources) <= earlier or not once:
      allowed = f'{errors.one_of(earlier)}; at least one, and each once'
      raise errors.UserError(f'rule.edges of {role}', sources, allowed)


def _declared(rule: Rule) -> list[str]:
  """Returns the names of the means and packages of a rule."""
  return [one.name for one in (*rule.means, *rule.packages)]


def _check_declared(
  rule: Rule, roles: Sequence[str], usual: Collection[str]
) -> None:
  """Checks the means and the packages of a rule, as `check` does."""
  names = _declared(rule)
  used = {name for edge in rule.edges for name in (edge.teacher, edge.student)}
  for name in names:
    alone = name not in usual and names.count(name) == 1
    if not policies.is_role(name) or not alone:
      allowed = f'{policies.ALLOWED}; no role, and no other teacher'
      raise errors.UserError('rule.means or rule.packages', name, allowed)
    if name not in used:
      raise errors.UserError('rule.edges', used, f'also one from {name}')
  once = [role for role in dict.fromkeys(roles) if roles.count(role) == 1]
  for one in rule.means:
    if not one.of or not set(one.of) <= {*once} or len({*one.of}) < len(one.of):
      allowed = f'{errors.one_of(once)}; at least one, and each once'
      raise errors.UserError(f'rule.means of {one.name}', one.of, allowed)
    sources = [edge.teacher for edge in rule.edges if edge.student == one.name]
    if one.learnt and sources != [LABEL]:
      field = f'rule.edges of {one.name}'
      raise errors.UserError(field, sources, f'{LABEL}, which it learns from')


def loss(
  rule: Rule,
  role: str,
  logits: Float[Array, 'batch classes'],
  labels: Int[Array, 'batch'],
  teachers: dict[str, Float[Array, 'batch classes']],
) -> Float[Array, 'batch']:
  """Returns a student's loss for each image.

  Args:
    rule: the loss graph.
    role: role of this child, or name of this learnt mean.
    logits: logits of this student.
    labels: labels of the images.
    teachers: logits of its teachers, by name.
  """
  smoothing = rule.label_smoothing if regularises(rule, role) else 0.0
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
