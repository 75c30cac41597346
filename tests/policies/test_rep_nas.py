"""RepNAS: logits of members, whose gradients come out of a step."""

import dataclasses

import autograd.numpy as anp
import jax
import networks
import numpy as np
import pytest
import reference
import steps
import tiny

from bignas_jax.deploy import package
from bignas_jax.methods.loss_graph import LABEL, Edge, Rule
from bignas_jax.policies import rep_nas, sampling
from bignas_jax.runs import checkpoints as checkpoints_lib
from bignas_jax.runs import config as config_lib
from bignas_jax.selection import extraction
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import parallel, presets, zoo
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.training import loop, states
from bignas_jax.values import errors

STAGE = dataclasses.replace(
  zoo.get('repvgg_a0').stages[0],
  width=(8,),
  stride=1,
  parallel=parallel.subsets('square', 'point', 'identity'),
  shared_kernel=True,
)
SPACE = dataclasses.replace(
  tiny.QUICK, stages=(STAGE,), head_width=(), per_block=True
)
RULE = Rule(
  edges=(Edge(student='random', teacher=LABEL),),
  regularised='random',
  dropout=0.0,
  weight_decay=0.0,
  label_smoothing=0.0,
)
# 2 layers of 3 members, of which a child has 3.
SETTINGS = rep_nas.Settings(share=0.5, rate=0.1, warmup_steps=2, joint_steps=3)


def run_config(space=SPACE, **changes):
  return tiny.config(
    space=space, policy='rep_nas', rep_nas=SETTINGS, rule=RULE, **changes
  )


def test_the_greatest_of_all_layers():
  """The global top k, unless a layer would lose all its members."""
  allowed = np.ones((3, 7), bool)
  allowed[0, 6] = allowed[2, 3] = False
  rng, plain = np.random.default_rng(0), 0
  for _ in range(200):
    scores = rng.normal(size=allowed.shape)
    chosen = rep_nas.greatest(scores, allowed, 8)
    assert chosen.sum() == 8 and not (chosen & ~allowed).any()
    least = np.sort(scores[allowed])[-8]
    top = allowed & (scores >= least)
    if top.any(axis=1).all():
      plain += 1
      assert (chosen == top).all()
    else:
      assert chosen.any(axis=1).all()
      assert (chosen & ~top).sum() == (~top.any(axis=1)).sum()
  assert 100 < plain < 200


def test_phases():
  policy = sampling.create(SPACE, 'rep_nas', of_rep_nas=SETTINGS)
  state, archs = policy.init(5), []
  gates = np.random.default_rng(0).normal(size=(2, 7))
  for step in range(12):
    (child,) = policy.sample(state, 5, step, None)
    assert policy.sample(state, 9, step + 7, None) == [child]
    archs.append(arch_lib.check(SPACE, child.arch))
    members = [len(parallel.members(mask)) for mask in child.arch.parallel]
    assert sum(members) == 3 and min(members) >= 1
    before, state = state, policy.update(state, [child], [{'gates': gates}])
    moved = state['logits'] - before['logits']
    assert moved.any() == (2 <= step < 5)
    if step == 2:  # Adam's first step is as long as its rate
      own = np.isin([*parallel.MEMBERS], parallel.members(max(STAGE.parallel)))
      expected = np.where(own, -0.1 * np.sign(gates), 0)
      np.testing.assert_allclose(moved, expected, rtol=1e-4)
  assert len({*archs[:5]}) > 1
  assert policy.learnt is not None
  assert {*archs[5:]} == {policy.learnt(state)}


def test_logits_that_never_learn_choose_at_random():
  policy = rep_nas.rep_nas(SPACE, dataclasses.replace(SETTINGS, rate=0.0))
  assert policy.learnt is not None
  learnt = [policy.learnt(policy.init(seed)) for seed in range(20)]
  assert len({*learnt}) > 2
  assert learnt[3] == policy.learnt(policy.init(3))


def test_what_moves_a_logit_is_the_slope_of_its_sigmoid():
  policy = rep_nas.rep_nas(SPACE, dataclasses.replace(SETTINGS, warmup_steps=0))
  state, ones = policy.init(3), np.ones((2, 7))
  after = policy.update(state, [], [{'gates': ones}])
  one, other = arch_lib.generator(3, 0).gumbel(size=(2, 2, 7))
  sigmoid = 1 / (1 + np.exp(other - one))
  own = after['first'] != 0
  assert own.sum() == 6
  expected = 0.5 * sigmoid * (1 - sigmoid)
  np.testing.assert_allclose(after['first'][own], expected[own], rtol=1e-7)


def test_gradients_of_gates_come_out_of_a_step():
  """Of members that are on and off, on two devices; the rest as without."""
  config = config_lib.check(run_config())
  setup = config_lib.setup(config, mesh_lib.create(jax.devices()[:2]))
  (child,) = setup.policy.sample(setup.policy.init(0), 0, 0, None)
  assert 0 < sum(child.arch.parallel) < sum(arch_lib.biggest(SPACE).parallel)
  params, batch, gradient, measured = steps.ran(setup, [child])
  gradient = jax.tree.map(
    lambda g, p: g.reshape(-1, *p.shape).sum(0), gradient, params
  )
  images = np.asarray(setup.model.images(batch['image'], 8), np.float64)
  both = {'first': np.zeros(7), 'rest': np.zeros((1, 7))}
  stage = {n: own | {'gates': both[n]} for n, own in params['stage1'].items()}

  def loss(params):
    logits, _ = reference.child(SPACE, child.arch, params, images)
    logits = logits - logits.max(-1, keepdims=True)
    chosen = logits[anp.arange(16), batch['label']]
    return (anp.log(anp.exp(logits).sum(-1)) - chosen).mean()

  value, expected = reference.gradient(loss, params | {'stage1': stage})
  own = [expected['stage1'][n].pop('gates') for n in ('first', 'rest')]
  assert measured[0]['loss'] == pytest.approx(value, rel=1e-4)
  found = np.asarray(measured[0]['gates'])
  networks.assert_close(found, np.vstack(own), 1e-3)
  assert np.count_nonzero(found) == 6
  networks.assert_close(gradient, expected, 1e-3, least=1e-2)


def test_a_run_learns_and_its_child_is_folded(tmp_path):
  stage = dataclasses.replace(STAGE, zero_start=True)
  space = dataclasses.replace(SPACE, stages=(stage,))
  config = config_lib.check(run_config(space=space))
  loop.train(config, tmp_path)
  checkpoints = checkpoints_lib.Checkpoints(tmp_path)
  _, state = states.restore_or_init(config_lib.setup(config), checkpoints)
  checkpoints.close()
  assert state['done'] == config.steps
  assert np.count_nonzero(state['logits']) == 6
  policy = config_lib.policy(config)
  best = presets.parse(SPACE, str(tmp_path / 'most_probable.json'))
  assert policy.learnt is not None and best == policy.learnt(state)

  text, out = str(tmp_path / 'most_probable.json'), tmp_path / 'child'
  child = extraction.extract(tmp_path, text, out)
  assert child.info['batch_norm'] == 'folded'
  again = package.load(out)
  assert (again.arch, again.space) == (best, child.space)
  shapes = jax.tree.map(np.shape, again.variables['params'])
  for name in [name for name in shapes if name.startswith('stage')]:
    for layer in shapes[name].values():
      assert layer.keys() == {'conv', 'conv_bn'}
      assert layer['conv']['kernel'][-4:] == (3, 3, 8, 8)
      assert layer['conv_bn'].keys() == {'bias'}


@pytest.mark.parametrize(
  ('space', 'share', 'allowed'),
  [
    (networks.ONE_OF, 0.5, 'parallel members|one depth'),
    (networks.PARALLEL, 0.5, 'one depth'),
    (SPACE, 0.3, '2 of 6 members'),
  ],
)
def test_what_cannot_be_learnt_is_refused(space, share, allowed):
  with pytest.raises(errors.UserError, match=allowed):
    rep_nas.rep_nas(space, rep_nas.Settings(share=share))
