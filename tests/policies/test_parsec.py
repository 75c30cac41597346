"""PARSEC and FP-NAS as policies of a run: weights, and a second split."""

import dataclasses
import itertools
import math

import jax
import networks
import numpy as np
import pytest
import steps
import tiny

from bignas_jax.costs import counting
from bignas_jax.methods import programs
from bignas_jax.methods.loss_graph import LABEL, Edge, Rule
from bignas_jax.policies import distributions, parsec, policies, sampling
from bignas_jax.runs import checkpoints as checkpoints_lib
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import rollbacks
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import presets, zoo
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.training import loop, states
from bignas_jax.values import errors

SPACE, IMAGES = networks.ONE_OF, 20
RULE = Rule(
  edges=(Edge(student='random', teacher=LABEL),),
  regularised='random',
  dropout=0.0,
  weight_decay=1e-3,
)


def config(second=200, **changes):
  fields = {'space': steps.BASE, 'policy': 'parsec', 'rule': RULE}
  fields['parsec'] = parsec.Settings(samples=2, temperature=10.0, rate=0.5)
  made = tiny.config(**fields | changes)
  data = dataclasses.replace(made.data, second=second)
  return dataclasses.replace(made, data=data)


def policy_of(space=SPACE, **settings):
  settings = parsec.Settings(**{'temperature': 5.0} | settings)
  return sampling.create(space, 'parsec', of_parsec=settings, images=IMAGES)


def numbered(archs):
  """Losses that follow from the architectures."""
  return [sum(arch.kernel_size) / 10 for arch in archs]


def measured(children):
  losses = numbered([child.arch for child in children])
  return [{'second_loss': np.float32(loss)} for loss in losses]


# All that FP-NAS adds; a step has two children or three.
FP_NAS = parsec.Settings(
  samples=0, per_nat=2.0, temperature=1.0, rate=2.0, joins=3, macs=1.0, cost=0.1
)

# The policy.


def test_children_are_weighted_by_their_likelihoods():
  policy = policy_of(samples=5)
  state = policy.init(0)
  children = policy.sample(state, 0, 3, numbered)
  assert policies.is_of(policy, children) and len(children) == 5
  losses = np.array(numbered([child.arch for child in children]))
  weight = np.exp(-IMAGES * losses / 5)
  expected = weight / weight.sum()
  np.testing.assert_allclose([c.weight for c in children], expected)
  assert np.ptp(expected) > 0.1
  alike = policy.sample(state, 0, 3, None)
  assert [child.weight for child in alike] == [0.2] * 5
  assert [c.arch for c in alike] == [c.arch for c in children]
  assert [c.arch for c in policy.sample(state, 0, 4, None)] != [
    c.arch for c in alike
  ]
  plain = sampling.create(SPACE, 'uniform', random_children=5)
  assert not policies.is_of(plain, children)


def test_logits_follow_the_gradient_of_the_likelihood():
  """Of the architectures, which do not depend on blocks that they lack."""
  policy = policy_of(samples=6, rate=0.3)
  state, missing = policy.init(0), 0
  factors = distributions.of_space(SPACE)
  for step in range(4):
    children = policy.sample(state, 0, step, numbered)
    archs = [child.arch for child in children]
    picks = np.array([distributions.chosen(SPACE, arch) for arch in archs])
    matters = np.array([distributions.matters(SPACE, arch) for arch in archs])
    likelihood = -IMAGES * np.float32(numbered(archs)).astype(float)
    slope = parsec.gradient(state['logits'], picks, likelihood, 5.0, matters)
    after = policy.update(state, children, measured(children))
    expected = state['logits'] + 0.3 * slope
    np.testing.assert_allclose(after['logits'], expected)
    assert after['done'] == step + 1
    missing += (~matters).sum()
    state = after
  assert missing
  best = distributions.most_probable(state['logits'])
  assert policy.learnt is not None
  assert policy.learnt(state) == distributions.arch(SPACE, factors, best)


def test_what_does_not_matter_is_summed_out():
  """By finite differences of the sum over all choices of the other group."""
  logits = np.array([[0.3, -0.2], [0.5, 0.1]])
  slope = distributions.weighted_gradient(
    logits, np.array([[1, 0]]), np.ones(1), np.array([[True, False]])
  )
  chance = np.exp(logits[0]) / np.exp(logits[0]).sum()
  np.testing.assert_allclose(slope, [[-chance[0], 1 - chance[1]], [0, 0]])


def test_a_loss_that_is_not_finite_teaches_nothing():
  policy = policy_of(samples=2)
  state = policy.init(0)
  children = policy.sample(state, 0, 0, lambda archs: [np.nan] * len(archs))
  broken = [{'second_loss': np.float32('nan')}, {'second_loss': 1.0}]
  after = policy.update(state, children, broken)
  assert (after['logits'] == state['logits']).all() and after['done'] == 1


def test_fp_nas_draws_fewer_children_when_it_knows_more():
  policy = policy_of(samples=0, rate=3.0, per_nat=1.5)
  state = policy.init(0)
  most = parsec.samples(state['logits'], 1.5)
  assert policy.varies and len(policy.roles) == most > 3
  numbers = []
  for step in range(60):
    children = policy.sample(state, 0, step, numbered)
    assert policies.is_of(policy, children)
    numbers.append(len(children))
    assert numbers[-1] == parsec.samples(state['logits'], 1.5)
    state = policy.update(state, children, measured(children))
  assert numbers[0] == most > numbers[-1]
  assert policy.learnt is not None
  best = min(arch_lib.every(SPACE), key=lambda a: sum(a.kernel_size))
  learnt = policy.learnt(state)
  assert sum(learnt.kernel_size) == sum(best.kernel_size)


@pytest.mark.parametrize('space', [networks.OFA, networks.ATTENTIVE])
def test_fp_nas_joins_the_decisions_of_a_block(space):
  policy, separate = policy_of(space, joins=2), distributions.of_space(space)
  blocks = distributions.blocks(space)
  joint, _ = distributions.joined(
    separate, distributions.uniform(separate), blocks
  )
  names = [gene.name for gene in distributions.decisions.genes(space)]
  groups = [[names[i] for i in group] for group in blocks]
  assert ['kernel_size[1]', 'expand_ratio[1]'] in [
    [name for name in group if 'width' not in name] for group in groups
  ]
  assert sorted(itertools.chain(*groups)) == sorted(names)
  state = policy.init(0)
  for step in range(2):
    assert not state['joint'][np.isfinite(state['joint'])].any()
    children = policy.sample(state, 0, step, numbered)
    state = policy.update(state, children, measured(children))
  # The joint is the same distribution, and learns alone from now on.
  picks = distributions.draw(
    distributions.probabilities(state['joint']), 50, arch_lib.generator(1)
  )
  apart = np.array([distributions.positions(joint, pick) for pick in picks])
  np.testing.assert_allclose(
    distributions.log_probability(state['joint'], picks),
    distributions.log_probability(state['logits'], apart),
  )
  for pick, one in zip(picks, apart, strict=True):
    assert (distributions.picked(joint, one) == pick).all()
  children = policy.sample(state, 0, 2, numbered)
  after = policy.update(state, children, measured(children))
  assert (after['logits'] == state['logits']).all()
  assert (after['joint'] != state['joint']).any()


def test_fp_nas_joins_the_width_of_a_layer_with_its_other_choices():
  """In the space of its config each layer is a stage; 224 products at most."""
  space = zoo.get('fbnet_v2_layers')
  names = [gene.name for gene in distributions.decisions.genes(space)]
  blocks = distributions.blocks(space)
  groups = [{names[number] for number in group} for group in blocks]
  for layer in range(18):
    of_block = ('kernel_size', 'expand_ratio', 'squeeze_excite')
    own = {f'{field}[{layer}]' for field in of_block}
    assert own | {f'width[{layer + 1}]'} in groups
  separate = distributions.of_space(space)
  joint, logits = distributions.joined(
    separate, distributions.uniform(separate), blocks
  )
  # 14 widths, 2 kernel sizes, 4 expand ratios, with squeeze-excite or without.
  products = [math.prod(joint.shape(i)) for i in range(len(blocks))]
  assert max(products) == logits.shape[1] == 14 * 2 * 4 * 2
  assert len(logits) == 18 + 18 + 3  # depths; resolution, stem and head


def test_costs_lower_the_macs_of_what_is_learnt():
  macs = [counting.cost(SPACE, arch).macs for arch in arch_lib.every(SPACE)]
  target = (min(macs) + max(macs)) / 2
  policy = policy_of(samples=4, rate=1.0, macs=target, cost=1.0)
  state = policy.init(0)
  for step in range(60):
    children = policy.sample(state, 0, step, None)
    equal = [{'second_loss': 1.0}] * 4
    state = policy.update(state, children, equal)
  drawn = policy.sample(state, 0, 99, None)
  costs = [counting.cost(SPACE, child.arch).macs for child in drawn]
  assert np.mean(costs) <= target < np.mean(macs) * 1.5


@pytest.mark.parametrize(
  ('field', 'changes'),
  [
    ('parsec.samples', {'parsec': parsec.Settings(samples=1)}),
    ('parsec.macs', {'parsec': parsec.Settings(cost=0.5)}),
    ('parsec.rate', {'parsec': parsec.Settings(rate=0.0)}),
    ('parsec.temperature', {'parsec': parsec.Settings(temperature=-1.0)}),
    ('data.second', {'second': 0}),
    ('data.second', {'second': -1}),
    ('rule.aggregate', {'rule': dataclasses.replace(RULE, aggregate='mean')}),
  ],
)
def test_wrong_settings_are_refused(field, changes):
  with pytest.raises(errors.UserError) as refused:
    config_lib.check(config(**changes))
  assert refused.value.field == field


# In a run.


def _gradients(setup, compiled, state, batch, children):
  """The sum of gradients of a step, before the update."""
  found, update = [], compiled['update']

  def noting(state, gradients, *flags):
    found.append(jax.device_get(gradients))
    return update(state, gradients, *flags)

  copied = jax.tree.map(lambda a: a.copy(), state)
  noted = compiled | {'update': noting}
  programs.step(setup, noted, copied, batch, children)
  return jax.tree.leaves(found[0])


def test_weights_are_factors_of_gradients():
  """A weight is an argument: one program serves all weights."""
  setup = config_lib.setup(config(), mesh_lib.create(jax.devices()[:1]))
  every = programs.all_programs(setup)
  assert [program.name for program in every] == [
    *('start', 'random@8', 'score@8', 'update')
  ]
  compiled = programs.compile_all(every)
  state, whole = steps.perturbed(setup), steps.make_batch(0, pixels=8)
  mesh = setup.model.mesh
  batch = mesh_lib.put(mesh, whole, mesh_lib.split(mesh))
  archs = list(arch_lib.every(steps.BASE))[:2]

  def of(*weights):
    children = [
      policies.Child('random', arch, weight)
      for arch, weight in zip(archs, weights, strict=True)
    ]
    return _gradients(setup, compiled, state, batch, children)

  first, second, both = of(1.0, 0.0), of(0.0, 1.0), of(0.25, 0.5)
  for a, b, c in zip(first, second, both, strict=True):
    np.testing.assert_allclose(0.25 * a + 0.5 * b, c, rtol=1e-4, atol=1e-6)
  # Weights of 1 are the steps of a policy that has none.
  plain = config(policy='uniform', random_children=2)
  other = config_lib.setup(plain, mesh)
  unweighted = programs.compile_all(programs.all_programs(other))
  children = [policies.Child('random', arch) for arch in archs]
  expected = _gradients(other, unweighted, state, batch, children)
  for a, b in zip(of(1.0, 1.0), expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
  # On two batches, a child has the means of what it has on each.
  loss = programs.scores(setup, compiled, state, batch, archs)
  more = steps.make_batch(1, pixels=8)
  more = mesh_lib.put(mesh, more, mesh_lib.split(mesh))
  other_loss = programs.scores(setup, compiled, state, more, archs)
  means = programs.on_second(setup, compiled, state, [batch, more], children)
  for one, *pair in zip(means, loss, other_loss, strict=True):
    np.testing.assert_allclose(one['second_loss'], np.mean(pair), rtol=1e-6)
    assert 0 <= one['second_top1'] <= 1


@pytest.mark.usefixtures('compiled_once')
def test_a_run_learns_and_is_resumed_and_rolled_back(tmp_path, monkeypatch):
  """Its parameters become NaN in the middle; the same run, stopped or not."""
  step, second, calls, told = programs.step, programs.on_second, [], []

  def poisoned(setup, compiled, state, batch, children, norms):
    calls.append(children)
    if len(calls) == 4:
      nan = jax.tree.map(lambda p: p * float('nan'), state.params)
      state = state._replace(params=nan)
    return step(setup, compiled, state, batch, children, norms)

  def noted(*arguments):
    result = second(*arguments)
    told.append((arguments[4], result, jax.device_get(arguments[3])))
    return result

  monkeypatch.setattr(programs, 'step', poisoned)
  monkeypatch.setattr(programs, 'on_second', noted)
  made = config_lib.check(config(parsec=FP_NAS))
  result = loop.train(made, tmp_path / 'whole')
  (one,) = rollbacks.read(tmp_path / 'whole')
  assert (one.at, one.to) == (4, 2) and len(calls) == len(told) == 8
  assert calls[2] != calls[4]
  assert {len(children) for children in calls} == {2, 3}
  # The state follows from what was measured of the steps that were kept.
  policy = config_lib.policy(made)
  state = policy.init(made.seed)
  for children, numbers, _ in itertools.chain(told[:2], told[4:]):
    state = policy.update(state, children, numbers)
  checkpoints = checkpoints_lib.Checkpoints(tmp_path / 'whole')
  _, learnt = states.restore_or_init(config_lib.setup(made), checkpoints)
  checkpoints.close()
  assert learnt.keys() == state.keys() and state['done'] == 6
  for name, array in state.items():
    np.testing.assert_array_equal(learnt[name], array)
  file = str(tmp_path / 'whole' / 'most_probable.json')
  assert policy.learnt is not None
  assert presets.parse(steps.BASE, file) == policy.learnt(state)
  assert 0 < result['eval/most_probable/top1'] <= 1
  # A batch of the second split belongs to a number of updates.
  again = tmp_path / 'again'
  again.mkdir()
  rollbacks.write(again, [one])
  calls[:], before, told[:] = [None] * 10, told[:], []
  assert loop.train(made, again) == result | {'workdir': str(again)}
  assert tiny.numbers(again) == tiny.numbers(tmp_path / 'whole')
  kept = [*before[:2], *before[4:]]
  for (_, _, batches), (_, _, others) in zip(kept, told, strict=True):
    jax.tree.map(np.testing.assert_array_equal, batches, others)
