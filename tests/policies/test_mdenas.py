"""MDENAS as a policy of a run: one child an epoch, and what it learns."""

import dataclasses

import networks
import numpy as np
import pytest
import tiny

from bignas_jax.methods.loss_graph import LABEL, Edge, Rule
from bignas_jax.policies import distributions, mdenas, policies, sampling
from bignas_jax.runs import checkpoints as checkpoints_lib
from bignas_jax.runs import config as config_lib
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import presets
from bignas_jax.training import loop, states
from bignas_jax.values import errors

SPACE = networks.ONE_OF
RULE = Rule(
  edges=(Edge(student='random', teacher=LABEL),),
  regularised='random',
  dropout=0.0,
)


def settings(**changes):
  return mdenas.Settings(**{'epoch_steps': 3, 'rate': 0.05} | changes)


def test_an_epoch_trains_one_child_and_ends_with_an_update():
  policy = sampling.create(SPACE, 'mdenas', of_mdenas=settings())
  state, archs = policy.init(0), []
  factors = distributions.of_space(SPACE)
  start = distributions.probabilities(distributions.uniform(factors))
  for epoch in range(4):
    (child,) = policy.sample(state, 0, 3 * epoch, None)
    archs.append(arch_lib.check(SPACE, child.arch))
    before = state
    top1 = 0.3 + 0.2 * epoch
    for step in range(3):
      # Other draws, as after a rollback, do not change the child.
      assert policy.sample(state, 0, 99 + step, None) == [child]
      assert (state['probability'] == before['probability']).all()
      last = {'second_top1': np.float32(top1)} if step == 2 else {}
      state = policy.update(state, [child], [{'top1': 0.9} | last])
    chosen = distributions.chosen(SPACE, child.arch)
    matters = distributions.matters(SPACE, child.arch)
    place = np.arange(len(chosen))[matters], chosen[matters]
    np.testing.assert_allclose(state['accuracy'][place], top1, rtol=1e-6)
    trained = np.zeros_like(state['epochs'])
    trained[place] = 1
    assert (state['epochs'] - before['epochs'] == trained).all()
    expected = mdenas.updated(
      before['probability'], state['epochs'], state['accuracy'], 0.05
    )
    assert (state['probability'] == expected).all()
  assert len(set(archs)) > 1
  assert (policy.init(0)['probability'] == start).all()
  assert (state['probability'] != start).any()
  best = distributions.most_probable(state['probability'])
  assert policy.learnt is not None
  assert policy.learnt(state) == distributions.arch(SPACE, factors, best)


def test_without_replacement_each_choice_is_drawn_once_in_a_pass():
  """Also one that has no probability left; the same after a restart."""
  own = settings(epoch_steps=1, replacement=False, rate=0.5)
  policy = mdenas.mdenas(SPACE, own)
  state, drawn = policy.init(3), []
  sizes = distributions.of_space(SPACE).sizes
  assert {*sizes} >= {2, 3}
  vanished = False
  for step in range(25):
    (child,) = policy.sample(state, 3, step, None)
    again = mdenas.mdenas(SPACE, own)
    assert again.sample(state, 3, 99, None) == [child]
    matters = distributions.matters(SPACE, child.arch)
    chosen = distributions.chosen(SPACE, child.arch)
    drawn.append(np.where(matters, chosen, -1))
    top1 = 0.5 + 0.1 * np.sin(step)
    state = policy.update(state, [child], [{'second_top1': top1}])
    vanished |= bool((state['probability'] <= 0)[state['epochs'] > 0].any())
  assert vanished
  for size, picks in zip(sizes, np.array(drawn).T, strict=True):
    present = picks[picks >= 0]
    passes = present[: len(present) // size * size].reshape(-1, size)
    assert len(passes) >= 3
    assert (np.sort(passes) == np.arange(size)).all()
  assert state['used'].any() and 'used' not in mdenas.mdenas(
    SPACE, settings()
  ).init(0)


def test_the_best_operation_becomes_the_most_probable():
  """Where the accuracy depends on one decision alone."""
  policy = mdenas.mdenas(SPACE, settings(epoch_steps=1, accuracy='mean'))
  state = policy.init(0)
  for step in range(100):
    children = policy.sample(state, 0, step, None)
    wide = children[0].arch.width[2] == 16
    state = policy.update(state, children, [{'second_top1': 0.4 + 0.2 * wide}])
  assert policy.learnt is not None
  assert policy.learnt(state).width[2] == 16
  assert state['probability'].max() == pytest.approx(1)


def test_what_is_learnt_is_evaluated_beside_the_usual_children():
  policy = mdenas.mdenas(SPACE, settings())
  usual = policies.ends(SPACE)
  assert policies.evaluated(policy, SPACE) == usual
  state = policy.init(0)
  learnt = policies.evaluated(policy, SPACE, state)
  assert learnt == usual | {'most_probable': policy.learnt(state)}
  plain = sampling.create(SPACE, 'uniform')
  assert policies.evaluated(plain, SPACE, {}) == usual


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('epoch_steps', 0),
    ('validation_batches', 0),
    ('rate', 0.0),
    ('rule', 'cod'),
    ('accuracy', 'best'),
  ],
)
def test_wrong_settings_are_refused(field, value):
  config = tiny.config(
    policy='mdenas', rule=RULE, mdenas=mdenas.Settings(**{field: value})
  )
  with pytest.raises(errors.UserError, match=f'mdenas.{field}'):
    config_lib.check(config)


def test_a_run_learns_from_what_it_measures(tmp_path):
  """Its state follows from the logged accuracies, and is in the checkpoint."""
  config = tiny.config(
    space=tiny.QUICK,
    policy='mdenas',
    rule=RULE,
    mdenas=settings(
      epoch_steps=2, rate=0.25, validation_batches=2, replacement=False
    ),
  )
  with pytest.raises(errors.UserError, match=r'data\.second.*mdenas'):
    config_lib.check(config)
  config.data = dataclasses.replace(config.data, second=100)
  config = config_lib.check(config)
  result = loop.train(config, tmp_path)
  policy = config_lib.policy(config)
  state = policy.init(config.seed)
  lines = tiny.numbers(tmp_path)
  accuracies = [line.get('train/second_top1_random') for line in lines]
  assert [top1 is None for top1 in accuracies[:6]] == [True, False] * 3
  for step, top1 in enumerate(accuracies[:6]):
    children = policy.sample(state, config.seed, step, None)
    state = policy.update(state, children, [{'second_top1': top1}])
  checkpoints = checkpoints_lib.Checkpoints(tmp_path)
  _, learnt = states.restore_or_init(config_lib.setup(config), checkpoints)
  checkpoints.close()
  assert learnt.keys() == state.keys() and learnt['done'].tolist() == [3, 0]
  assert 'used' in learnt
  for name, array in state.items():
    np.testing.assert_allclose(learnt[name], array, atol=1e-7)
  best = presets.parse(tiny.QUICK, str(tmp_path / 'most_probable.json'))
  assert policy.learnt is not None and best == policy.learnt(state)
  assert 0 < result['eval/most_probable/top1'] <= 1
