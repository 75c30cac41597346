"""Random children whose choices grow by phase: what a phase may draw."""

import collections
import dataclasses

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import steps
import tiny

from bignas_jax.methods import losses, programs
from bignas_jax.methods.loss_graph import LABEL, Edge, Rule
from bignas_jax.policies import policies, progressive
from bignas_jax.policies.progressive import Phase
from bignas_jax.runs import config as config_lib
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions, zoo
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.training import loop
from bignas_jax.values import errors

FIELDS = ('kernel_size', 'depth', 'expand_ratio', 'width')
RULE = Rule(
  edges=(Edge(student='random', teacher=LABEL),),
  regularised='random',
  aggregate='mean',
  dropout=0.0,
  weight_decay=0.0,
  label_smoothing=0.0,
)


def _allowed(phase, gene):
  number = getattr(phase, gene.field)
  return gene.choices[-number:] if number else gene.choices


@st.composite
def phases(draw):
  whole = st.integers(0, 3)
  return Phase(
    steps=draw(st.integers(1, 5)),
    random_children=draw(st.integers(1, 4)),
    **{field: draw(whole) for field in FIELDS},
  )


@hypothesis.given(
  st.lists(phases(), min_size=1, max_size=4), st.integers(0, 30)
)
def test_children_are_of_the_steps_phase(some, step):
  space = zoo.ATTENTIVE_NAS
  policy = progressive.progressive(space, some)
  children = policy.sample({}, 3, step, None)
  assert children == policy.sample({}, 3, step, None)
  assert policies.is_of(policy, children)
  # The phase, counted down.
  left, number = step, 0
  while number < len(some) - 1 and left >= some[number].steps:
    left, number = left - some[number].steps, number + 1
  phase = some[number]
  assert len(children) == phase.random_children
  (size,) = {child.arch.resolution for child in children}
  assert size in space.train_resolution
  for child in children:
    arch_lib.check(space, child.arch)
    values = arch_lib.read(space, child.arch)
    genes = decisions.genes(space)
    for gene, value in zip(genes[1:], values[1:], strict=True):
      assert value in _allowed(phase, gene), gene


def test_a_phase_draws_all_its_choices_equally_often():
  space = tiny.SPACE
  phase = Phase(steps=1, random_children=4, width=1, depth=2)
  policy = progressive.progressive(space, [phase])
  drawn = [
    c.arch for step in range(500) for c in policy.sample({}, 0, step, None)
  ]
  assert {arch.width for arch in drawn} == {(8, 16, 24)}
  counts = collections.Counter((a.depth, a.kernel_size) for a in drawn)
  assert set(counts) == {((d,), (k,)) for d in (1, 2) for k in (3, 5)}
  assert all(abs(n / 2000 - 1 / 4) < 0.05 for n in counts.values())
  assert {arch.resolution for arch in drawn} == set(space.train_resolution)


def test_no_phase_is_refused():
  with pytest.raises(errors.UserError, match=r'phases.*at least one'):
    config_lib.check(tiny.config(policy='progressive', rule=RULE))


def _setup(numbers):
  some = tuple(Phase(steps=1, random_children=n) for n in numbers)
  config = tiny.config(
    space=steps.BASE, policy='progressive', phases=some, rule=RULE
  )
  return config_lib.setup(config, mesh_lib.create(jax.devices()[:1]))


def test_a_mean_is_over_the_children_that_a_step_has():
  setup = _setup((3, 2))
  space = setup.model.space
  compiled = programs.compile_all(programs.all_programs(setup))
  assert set(compiled) == {'start', 'random@8', 'update'}
  update, sums = compiled['update'], []
  plain = dataclasses.replace(setup, policy=setup.policy._replace(varies=False))
  assert len(programs.all_programs(plain)[-1].arguments) == 3
  batch = steps.make_batch(0, pixels=8)
  there = mesh_lib.put(
    setup.model.mesh, batch, mesh_lib.split(setup.model.mesh)
  )

  def noting(state, gradients, norms, scale):
    sums.append(jax.tree.map(lambda g: g * scale, gradients))
    return update(state, gradients, norms, scale)

  compiled['update'] = noting

  def mean(params, children):
    terms = []
    for child in children:
      images = setup.model.images(batch['image'], child.arch.resolution)
      net = setup.model.net()
      pooling = type(net.pooling)()
      net = dataclasses.replace(net, pooling=pooling, recompute=False)
      indices = arch_lib.encode(space, child.arch)
      logits = net.apply({'params': params}, images, indices)
      labels = jnp.asarray(batch['label'])
      terms.append(losses.cross_entropy(logits, labels).mean())
    return sum(terms) / len(terms)

  for step, number in (0, 3), (1, 2):
    state = steps.perturbed(setup)
    params = jax.device_get(state.params)
    children = setup.policy.sample({}, 0, step, None)
    assert len(children) == number
    with jax.transfer_guard('disallow'):
      _, measured = programs.step(setup, compiled, state, there, children)
    wanted = jax.jit(jax.grad(lambda p, c=children: mean(p, c)))(params)
    chex.assert_trees_all_close(sums[-1], wanted, rtol=1e-3, atol=2e-5)
    norm = np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(sums[-1])))
    np.testing.assert_allclose(measured[-1]['grad_norm'], norm, rtol=1e-4)
    assert len(measured) == number + 1


def test_a_run_goes_through_its_phases(tmp_path):
  some = Phase(steps=1, random_children=1), Phase(steps=1, random_children=2)
  config = tiny.config(
    space=steps.BASE,
    policy='progressive',
    phases=some,
    rule=RULE,
    steps=2,
    eval_every=2,
    recovery=config_lib.Recovery(window=1),
  )
  result = loop.train(config, tmp_path)
  assert loop.train(config, tmp_path) == result
