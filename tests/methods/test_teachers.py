"""Teachers that are no children: RS-Net's ensemble, the average, packages."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
import steps
import tiny
from etils import epath

from bignas_jax.deploy import package
from bignas_jax.methods import losses, programs, teachers, teaching
from bignas_jax.methods import step as step_lib
from bignas_jax.methods.loss_graph import EMA, LABEL, Edge, Mean, Package, Rule
from bignas_jax.policies.fixed import NamedArch
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import metrics, restore, warm_start
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning
from bignas_jax.supernet import network
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.training import loop
from bignas_jax.values import errors

SPACE = steps.space_of((8, 12))
PLAIN = {'dropout': 0.0, 'weight_decay': 0.0, 'label_smoothing': 0.0}


def children(*resolutions):
  """The biggest child at each of these resolutions."""
  biggest = arch_lib.biggest(SPACE)
  return tuple(
    NamedArch(
      role=f'r{size}',
      arch=arch_lib.to_json(dataclasses.replace(biggest, resolution=size)),
    )
    for size in resolutions
  )


def rs_net(*resolutions):
  """RS-Net's rule for resolutions from the largest to the smallest."""
  roles = [f'r{size}' for size in resolutions]
  weight = 2 / (len(roles) + 1)
  edges = [Edge(student='ensemble', teacher=LABEL)]
  for i, role in enumerate(roles):
    edges += [Edge(student=role, teacher=LABEL)]
    edges += [
      Edge(student=role, teacher=teacher, weight=weight, loss='kl')
      for teacher in ('ensemble', *roles[:i])
    ]
  ensemble = Mean(name='ensemble', of=tuple(roles), learnt=True)
  return Rule(
    edges=tuple(edges), means=(ensemble,), regularised=roles[0], **PLAIN
  )


def config(**changes):
  fields = {
    'space': SPACE,
    'policy': 'fixed',
    'children': children(12, 8),
    'rule': rs_net(12, 8),
  }
  return tiny.config(**fields | changes)


def setup_of(config_, devices=1):
  mesh = mesh_lib.create(jax.devices()[:devices])
  return teaching.placed(config_lib.setup(config_, mesh))


def ran(setup, alpha=None, ema=None):
  """A step: (parameters before, batch, gradient, what is measured)."""
  compiled = programs.compile_all(programs.all_programs(setup))
  update, found = compiled['update'], []

  def noting(state, gradients, *flags):
    found.append(jax.device_get(gradients))
    return update(state, gradients, *flags)

  compiled['update'] = noting
  state = steps.perturbed(setup)
  if alpha is not None:
    weights = {'ensemble': jnp.asarray(alpha, jnp.float32)}
    state = state._replace(params=state.params | {teachers.WEIGHTS: weights})
  if ema is not None:
    state = state._replace(ema=jax.tree.map(ema, state.params))
  before = jax.device_get((state.params, state.ema))
  like = step_lib.described_state(setup)
  state = jax.device_put(state, mesh_lib.places(like))
  mesh, batch = setup.model.mesh, steps.make_batch(0)
  there = mesh_lib.put(mesh, batch, mesh_lib.split(mesh))
  some = setup.policy.sample({}, 0, 0, None)
  _, measured = programs.step(setup, compiled, state, there, some)
  gradient = jax.tree.map(
    lambda g, p: g.reshape(-1, *p.shape).sum(0), found[0], before[0]
  )
  return before, batch, gradient, jax.device_get(measured)


def logits_of(setup, params, arch, batch):
  own = network.slice_child(SPACE, {'params': params}, arch)
  images = setup.model.images(batch['image'], arch.resolution)
  return network.Supernet(pinning.pin(SPACE, arch)).apply(own, images)


def test_rs_nets_ensemble_learns_its_weights_and_teaches():
  """Of four devices, against the definition.

  The network's gradient is that of all terms but the ensemble's own, and the
  weights' is that of the ensemble's own alone.
  """
  setup = setup_of(config(), devices=4)
  (params, _), batch, gradient, measured = ran(setup, alpha=[0.7, -0.4])
  labels = jnp.asarray(batch['label'])
  alpha = params[teachers.WEIGHTS]['ensemble']
  params = teachers.of_network(params)
  archs = setup.policy.static

  def all_logits(params):
    return [logits_of(setup, params, archs[r], batch) for r in ('r12', 'r8')]

  def of_ensemble(alpha):
    weights = jnp.exp(alpha) / jnp.exp(alpha).sum()
    large, small = all_logits(params)
    return weights[0] * large + weights[1] * small

  def own(alpha):
    return losses.cross_entropy(of_ensemble(alpha), labels).mean()

  def others(params):
    large, small = all_logits(params)
    kl = losses.kl_divergence
    terms = losses.cross_entropy(large, labels)
    terms += losses.cross_entropy(small, labels)
    ensemble = of_ensemble(alpha)
    taught = kl(large, ensemble) + kl(small, ensemble) + kl(small, large)
    return (terms + 2 / 3 * taught).mean()

  value, wanted = jax.jit(jax.value_and_grad(own))(alpha)
  found = gradient.pop(teachers.WEIGHTS)['ensemble']
  np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-6)
  assert abs(wanted).max() > 1e-3
  np.testing.assert_allclose(measured[-1]['loss_ensemble'], value, rtol=1e-4)
  wanted = jax.jit(jax.grad(others))(params)
  chex.assert_trees_all_close(gradient, wanted, rtol=1e-3, atol=2e-5)


def test_rs_net_of_one_resolution_is_plain_cross_entropy():
  setup = setup_of(config(children=children(12), rule=rs_net(12)))
  (params, _), batch, gradient, _ = ran(setup)
  assert gradient.pop(teachers.WEIGHTS) == {'ensemble': 0}
  arch = setup.policy.static['r12']

  def plain(params):
    logits = logits_of(setup, params, arch, batch)
    return losses.cross_entropy(logits, jnp.asarray(batch['label'])).mean()

  wanted = jax.jit(jax.grad(plain))(teachers.of_network(params))
  chex.assert_trees_all_close(gradient, wanted, rtol=1e-3, atol=2e-5)


def saved(directory, **changes):
  """A package of another space, with the normalisation of tiny runs."""
  child = networks.random_child(dataclasses.replace(tiny.QUICK, **changes))
  package.save(epath.Path(directory), child)
  return child


def taught_by_others(directory):
  """A small child that learns from the average and from a package alone."""
  edges = (
    Edge(student='r8', teacher=EMA, weight=0.5),
    Edge(student='r8', teacher='large', loss='kl', temperature=2.0),
  )
  packages = (Package(name='large', path=str(directory)),)
  rule = Rule(edges=edges, packages=packages, regularised='r8', **PLAIN)
  return config(children=children(8), rule=rule, ema_decay=0.9)


def test_a_child_learns_from_the_average_and_from_a_package(tmp_path):
  child = saved(tmp_path / 'child')
  setup = setup_of(taught_by_others(tmp_path / 'child'))
  (params, ema), batch, gradient, _ = ran(setup, ema=lambda leaf: 0.5 * leaf)
  biggest, arch = arch_lib.biggest(SPACE), setup.policy.static['r8']
  average = logits_of(setup, ema, biggest, batch)
  images = setup.model.images(batch['image'], child.arch.resolution)
  fixed = network.Supernet(child.space).apply(child.variables, images)

  def total(params):
    logits = logits_of(setup, params, arch, batch)
    half = 0.5 * losses.soft_cross_entropy(logits, average)
    return (half + 4 * losses.kl_divergence(logits / 2, fixed / 2)).mean()

  wanted = jax.jit(jax.grad(total))(params)
  chex.assert_trees_all_close(gradient, wanted, rtol=1e-3, atol=2e-5)


def test_a_package_of_other_classes_or_normalisation_is_refused(tmp_path):
  saved(tmp_path / 'classes', classes=12)
  for name, allowed in ('classes', 'classes 10'), ('none', 'a child package'):
    with pytest.raises(errors.UserError) as refused:
      config_lib.setup(taught_by_others(tmp_path / name))
    assert refused.value.field == 'rule.packages of large'
    assert allowed in str(refused.value)
  saved(tmp_path / 'right')
  right = taught_by_others(tmp_path / 'right')
  data = dataclasses.replace(right.data, mean=(0.2,))
  with pytest.raises(errors.UserError, match=r'input\.mean \(0\.2,\)'):
    config_lib.setup(dataclasses.replace(right, data=data))
  resolved = warm_start.resolve(right)
  saved(tmp_path / 'right', head_width=(40,))
  with pytest.raises(errors.UserError, match='sha256'):
    config_lib.setup(resolved)


def test_edges_from_the_average_need_one():
  edges = (Edge(student='r8', teacher=EMA),)
  rule = Rule(edges=edges, regularised='r8')
  with pytest.raises(errors.UserError, match=r'ema_decay.*edges from ema'):
    config_lib.check(config(children=children(8), rule=rule))


def test_weights_of_a_mean_are_trained_and_stay_in_the_run(tmp_path):
  """They are resumed, and no network that is taken from the run has them."""
  short = config(
    steps=2, eval_every=2, recovery=config_lib.Recovery(window=1), ema_decay=0.5
  )
  result = loop.train(short, tmp_path)
  assert {'eval/r12/top1', 'eval/r8/top1'} <= set(result)
  line = metrics.read(tmp_path)[0]
  assert {'train/loss_ensemble', 'train/top1_ensemble'} <= set(line)
  assert 'train/weight_norm_teachers' in line
  assert loop.train(short, tmp_path) == result
  run = restore.load(epath.Path(tmp_path))
  assert set(run.params) == set(network.shapes(SPACE))
