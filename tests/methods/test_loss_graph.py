"""Any policy and loss graph: what is accepted runs, what cannot is refused."""

import collections
import dataclasses
import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import steps
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from bignas_jax.methods import jitted, loss_graph, losses, programs
from bignas_jax.methods import step as step_lib
from bignas_jax.methods.loss_graph import EMA, LABEL, Edge, Mean, Rule
from bignas_jax.policies import policies, sandwich
from bignas_jax.policies.policies import Child, Policy
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import metrics
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.training import loop
from bignas_jax.values import errors

# Those of the default rule, and free names: one of a static child.
USUAL = ('biggest', 'random', 'smallest')
ROLES = (*USUAL, 'narrow', 'any2')


def policy_of(space, roles):
  """A policy of these roles, in this order."""
  static = policies.ends(space) | {'narrow': arch_lib.smallest(space)}
  static = {role: arch for role, arch in static.items() if role in roles}

  def sample(state, seed, step, score=None):
    return children_of(space, roles, static)

  return Policy(tuple(roles), static, sample)


def children_of(space, roles, static):
  """One of each role, in this order; random ones at every resolution."""
  rng = np.random.default_rng(0)
  made = []
  for role in roles:
    arch = static.get(role)
    if arch is None:
      sizes = space.train_resolution
      arch = arch_lib.sample(space, rng, training=True)
      size = sizes[len(made) % len(sizes)]
      arch = dataclasses.replace(arch, resolution=size)
    made.append(Child(role, arch))
  return made


def runs(rule, roles):
  """What a step does, written out: True, if nothing is in its way."""
  if rule.regularised not in (*roles, 'all'):
    return False
  known = {*USUAL, *roles}
  pairs = [(edge.student, edge.teacher) for edge in rule.edges]
  earlier = {LABEL, EMA, *(one.name for one in rule.means)}
  for one in rule.means:
    taught_by = [teacher for student, teacher in pairs if student == one.name]
    if taught_by != [LABEL] * one.learnt:
      return False
    if not one.learnt and one.name not in {teacher for _, teacher in pairs}:
      return False
    if not one.of or any([*roles, *one.of].count(r) != 2 for r in one.of):
      return False
    known |= {one.name}
  for edge in rule.edges:
    if edge.student not in known or edge.teacher not in earlier | known:
      return False
    if not edge.weight > 0 or math.isinf(edge.weight):
      return False
  for role in roles:
    taught_by = [teacher for student, teacher in pairs if student == role]
    if not taught_by or len(set(taught_by)) < len(taught_by):
      return False
    if role in taught_by or not earlier.issuperset(taught_by):
      return False
    earlier.add(role)
  return True


_ONE = st.just(1.0)


@st.composite
def graphs(draw, names=(*ROLES, LABEL), weights=_ONE):
  """(rule, roles): often one that runs, often nearly so."""
  roles = draw(st.lists(st.sampled_from(ROLES), min_size=1, max_size=4))
  mean = Mean(
    name='both',
    of=tuple(draw(st.lists(st.sampled_from(roles), max_size=2))),
    learnt=draw(st.booleans()),
  )
  means = (mean,) if draw(st.booleans()) else ()
  edges, others = [], [EMA, *(one.name for one in means)]
  if means and mean.learnt:
    edges += [Edge(student='both', teacher=LABEL)]
  for number, role in enumerate(dict.fromkeys(roles)):
    before = [LABEL, *dict.fromkeys(roles)][: number + 1] + others
    teachers = draw(
      st.lists(st.sampled_from(before), min_size=1, max_size=3, unique=True)
    )
    edges += [
      Edge(student=role, teacher=teacher, weight=draw(weights))
      for teacher in teachers
    ]
  if draw(st.booleans()):
    student, teacher = (draw(st.sampled_from(names)) for _ in range(2))
    edges.append(Edge(student=student, teacher=teacher))
  edges = draw(st.permutations(edges))
  regularised = draw(st.sampled_from([*roles, *roles, *ROLES, 'all']))
  aggregate = draw(st.sampled_from(['sum', 'mean']))
  rule = Rule(
    edges=tuple(edges),
    means=means,
    regularised=regularised,
    aggregate=aggregate,
  )
  return rule, tuple(roles)


@given(
  graphs(
    names=(*ROLES, LABEL, EMA, 'both', 'other'),
    weights=st.sampled_from(
      [1.0, 1.0, 1.0, 0.5, 0.0, -1.0, math.nan, math.inf]
    ),
  )
)
@settings(max_examples=500)
def test_what_is_accepted_is_what_can_run(policy):
  rule, roles = policy
  try:
    loss_graph.check(rule, roles)
  except errors.UserError as error:
    assert error.field.startswith('rule.')
    assert not runs(rule, roles)
  else:
    assert runs(rule, roles)


@functools.cache
def _setup(resolutions):
  config = tiny.config(space=steps.space_of(resolutions))
  return config_lib.setup(config, mesh_lib.create(jax.devices()[:1]))


def setup_of(rule, roles, resolutions):
  setup = _setup(resolutions)
  policy = policy_of(setup.model.space, roles)
  rule = loss_graph.among(rule, roles)
  return dataclasses.replace(setup, rule=rule, policy=policy, ema_decay=0.5)


_shapes = {}


def outputs(setup, program):
  """Shapes of a program's results; traced once for equal functions."""
  role = program.name.partition('@')[0]
  name = (
    program.name,
    setup.model.space.resolution,
    [edge for edge in setup.rule.edges if edge.student == role],
    role in loss_graph.teachers(setup.rule),
    loss_graph.regularises(setup.rule, role),
    jax.tree.structure(program.arguments),
  )
  found = _shapes.get(repr(name))
  if found is None:
    found = jax.eval_shape(program.function, *program.arguments)
    _shapes[repr(name)] = found
  return found


def shapes(tree):
  return jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), tree)


@given(graphs(), st.sampled_from([(8,), (8, 12)]))
@settings(max_examples=25)
def test_what_is_accepted_is_traced_and_fits_together(policy, resolutions):
  """A step, with shapes in place of arrays: each program gets what it takes."""
  rule, roles = policy
  if not runs(rule, roles):
    return
  loss_graph.check(rule, roles)
  setup = setup_of(rule, roles, resolutions)
  listed = programs.all_programs(setup)
  used = set()

  def standing_in(program):
    def call(*arguments):
      used.add(program.name)
      assert shapes(arguments) == shapes(program.arguments), program.name
      return outputs(setup, program)

    return call

  compiled = {program.name: standing_in(program) for program in listed}
  state, batch = listed[-1].arguments[0], jitted.batch(setup)
  children = setup.policy.sample({}, 0, 0)
  after, measured = programs.step(setup, compiled, state, batch, children)
  assert shapes(after) == shapes(state)
  assert len(measured) == len(roles) + 1
  known = {programs.key(setup, child) for child in children}
  known |= {
    f'forward:{programs.key(setup, one)}'
    for one in children
    if one.role in loss_graph.members(rule)
  }
  known |= {f'mean:{one.name}' for one in rule.means}
  known |= {EMA} & loss_graph.teachers(rule)
  known |= {'start', 'update'}
  assert used <= known and used >= known - {'start'}
  for child, numbers in zip(children, measured, strict=False):
    teachers = set(loss_graph.teachers_of(rule, child.role))
    assert ('agreement' in numbers) == bool(teachers)


def _logits(setup, batch, params, arch):
  """Those of one child on the whole batch."""
  images = setup.model.images(batch['image'], arch.resolution)
  net = setup.model.net()
  net = dataclasses.replace(net, pooling=type(net.pooling)(), recompute=False)
  own = arch_lib.encode(setup.model.space, arch)
  return net.apply({'params': params}, images, own)


def test_a_step_of_random_children_that_teach_the_smallest():
  """No biggest child, two resolutions, and a teacher that is not static."""
  roles = ('random', 'random', 'smallest')
  rule = Rule(
    edges=(
      Edge(student='random', teacher=LABEL),
      Edge(student='smallest', teacher='random', weight=0.5),
      Edge(student='smallest', teacher=LABEL, weight=2.0),
    ),
    regularised='random',
    dropout=0.0,
    weight_decay=0.0,
    label_smoothing=0.0,
  )
  loss_graph.check(rule, roles)
  setup = setup_of(rule, roles, (8, 12))
  children = setup.policy.sample({}, 0, 0)
  assert [one.arch.resolution for one in children[:2]] == [8, 12]
  params, batch, gradient, measured = steps.ran(setup, children)

  def total(params):
    labels = jnp.asarray(batch['label'])
    first, second, smallest = (
      _logits(setup, batch, params, one.arch) for one in children
    )
    taught = jax.lax.stop_gradient(second)
    parts = [
      losses.cross_entropy(first, labels).mean(),
      losses.cross_entropy(second, labels).mean(),
      0.5 * losses.soft_cross_entropy(smallest, taught).mean()
      + 2.0 * losses.cross_entropy(smallest, labels).mean(),
    ]
    return sum(parts), parts

  wanted, parts = jax.jit(jax.grad(total, has_aux=True))(params)
  found = [numbers['loss'] for numbers in measured[:3]]
  np.testing.assert_allclose(found, parts, rtol=1e-4)
  chex.assert_trees_all_close(gradient, wanted, rtol=1e-3, atol=2e-5)


def test_a_smallest_child_of_drawn_resolution_shares_its_programs():
  """MutualNet: it learns as random children do, at any resolution."""
  rule = Rule(dropout=0.0, weight_decay=0.0, label_smoothing=0.0)
  setup = setup_of(rule, USUAL, (8, 12))
  space = setup.model.space
  policy = sandwich.sandwich(space, 1, 'drawn')
  setup = dataclasses.replace(setup, policy=policy)
  sizes, plain = collections.Counter(), sandwich.sandwich(space, 1)
  for step in range(200):
    biggest, random, smallest = policy.sample({}, 0, step)
    sizes[smallest.arch.resolution] += 1
    arch = dataclasses.replace(smallest.arch, resolution=8)
    ends = [biggest, Child('smallest', arch)]
    assert [*ends, random] == plain.sample({}, 0, step)
  assert sizes.keys() == {8, 12} and min(sizes.values()) > 70
  assert policies.evaluated(policy, space) == policies.ends(space)

  names = [program.name for program in programs.all_programs(setup)]
  assert names == ['biggest', 'random@8', 'random@12', 'update']
  children = next(
    some
    for some in (policy.sample({}, 0, step) for step in range(20))
    if some[2].arch.resolution == 12
  )
  params, batch, _, measured = steps.ran(setup, children)
  wanted = jax.jit(functools.partial(_sandwich_losses, setup, batch, children))
  found = [numbers['loss'] for numbers in measured[:3]]
  np.testing.assert_allclose(found, wanted(params), rtol=1e-4)

  # A smallest child that learns in another way has programs of its own.
  edges = Edge(student='smallest', teacher=LABEL), *rule.edges
  other = dataclasses.replace(rule, edges=edges)
  own = programs.all_programs(dataclasses.replace(setup, rule=other))
  assert {'smallest@8', 'smallest@12'} < {program.name for program in own}


def _sandwich_losses(setup, batch, children, params):
  """The loss of each child: all learn from the first one."""
  first, *others = (_logits(setup, batch, params, c.arch) for c in children)
  by_label = losses.cross_entropy(first, jnp.asarray(batch['label']))
  taught = [losses.soft_cross_entropy(logits, first) for logits in others]
  return [of_images.mean() for of_images in (by_label, *taught)]


def test_another_child_in_a_static_role_is_no_step():
  setup = setup_of(Rule(), ('biggest', 'smallest'), (8, 12))
  smallest = arch_lib.smallest(setup.model.space)
  state = step_lib.described_state(setup)
  refused = pytest.raises(AssertionError, match='another child is biggest')
  with refused:
    programs.step(setup, {}, state, {}, [Child('biggest', smallest)])


def test_a_first_child_that_is_static_starts_the_sum_itself():
  """And one that comes again does not: it is one program for both."""
  listed = programs.all_programs(setup_of(Rule(), ('biggest',), (8,)))
  assert [program.name for program in listed] == ['biggest', 'update']
  listed = programs.all_programs(setup_of(Rule(), ('biggest',) * 2, (8,)))
  names = [program.name for program in listed]
  assert names == ['start', 'biggest', 'update']
  gradients = listed[0].function()
  like = step_lib.described_state(_setup((8,))).params
  assert shapes(gradients) == shapes(like)
  assert not any(leaf.any() for leaf in jax.tree.leaves(gradients))


def test_a_rule_of_one_role_sees_the_label_alone():
  """All else that the rule says stays."""
  mean = Mean(name='both', of=('biggest', 'smallest'))
  edges = *Rule().edges, Edge(student='random', teacher='both')
  rule = Rule(edges=edges, means=(mean,), dropout=0.3, aggregate='mean')
  alone = loss_graph.alone(rule, 'random')
  loss_graph.check(alone, ('random',))
  edge = Edge(student='random', teacher=LABEL)
  own = {'edges': (edge,), 'means': (), 'regularised': 'random'}
  assert alone == dataclasses.replace(rule, **own)


def test_a_run_without_a_biggest_child(tmp_path):
  """It is watched by its first child, and evaluated at both ends."""
  rule = Rule(
    edges=(Edge(student='random', teacher=LABEL),), regularised='random'
  )
  config = tiny.config(
    space=steps.BASE,
    policy='uniform',
    rule=rule,
    steps=2,
    eval_every=2,
    recovery=config_lib.Recovery(window=1),
  )
  result = loop.train(config, tmp_path)
  ends = {f'eval/{role}/top1' for role in ('biggest', 'smallest')}
  assert ends <= set(result)
  lines = metrics.read(tmp_path)
  assert [line['step'] for line in lines] == [1, 2, 2]
  assert 'train/top1_random' in lines[0]
  assert loop.train(config, tmp_path) == result
  assert len(metrics.read(tmp_path)) == 3
