"""What a step reports, against its definition."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import steps
import tiny

from bignas_jax.methods import (
  loss_graph,
  programs,
  step,
  step_metrics,
)
from bignas_jax.runs import config as config_lib
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.supernet import network
from bignas_jax.system import mesh as mesh_lib

SPACE = tiny.LOOP


@pytest.fixture(
  scope='module', params=[pytest.param(1, marks=pytest.mark.slow), 4]
)
def ran(request):
  """The children of one step one after the other, and the update."""
  devices = request.param
  config, setup, compiled = steps.compiled(devices, space=SPACE)
  mesh = setup.model.mesh
  state = steps.perturbed(setup)
  params = jax.device_get(state.params)
  state = mesh_lib.put(mesh, state, mesh_lib.REPLICATED)
  batch = mesh_lib.put(mesh, steps.make_batch(0), mesh_lib.split(mesh))
  children = config_lib.policy(config).sample({}, 0, 0, None)  # they all differ
  gradients, outputs, sums, of_children = None, {}, [], []
  for child in children:
    indices = None
    if child.role not in setup.policy.static:
      indices = arch_lib.encode(SPACE, child.arch)
      indices = mesh_lib.put(mesh, indices, mesh_lib.REPLICATED)
    gradients, logits, measured = compiled[programs.key(setup, child)](
      state.params, state.step, batch, indices, gradients, dict(outputs)
    )
    if logits is not None:
      outputs[child.role] = logits
    sums.append(_by_device(jax.device_get(gradients), params))
    of_children.append(jax.device_get(measured))
  norms = mesh_lib.put(mesh, np.bool_(True), mesh_lib.REPLICATED)
  state, of_update = compiled['update'](state, gradients, norms)
  found = jax.device_get((state.params, of_update, outputs))
  return devices, children, params, sums, of_children, *found


def _by_device(gradients, params):
  """Gradients one after the other -> [devices, *shape of a parameter]."""
  return jax.tree.map(lambda g, p: g.reshape(-1, *p.shape), gradients, params)


def _norm(tree) -> float:
  return float(np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(tree))))


def test_gradient_norm_is_that_of_the_childs_own_gradient(ran):
  devices, _, _, sums, of_children, *_ = ran
  before = jax.tree.map(np.zeros_like, sums[0])
  norms = []
  for total, measured in zip(sums, of_children, strict=True):
    own = jax.tree.map(np.subtract, total, before)
    shares = [
      _norm(jax.tree.map(lambda g, i=i: g[i], own)) for i in range(devices)
    ]
    wanted = np.sqrt(np.mean([(devices * share) ** 2 for share in shares]))
    np.testing.assert_allclose(measured['grad_norm'], wanted, rtol=1e-3)
    norms.append(float(wanted))
    before = total
    if devices == 1:
      np.testing.assert_allclose(wanted, _norm(own), rtol=1e-3)
  assert len({round(norm, 4) for norm in norms}) == len(norms)


def _own_gradient(role: str, **changes):
  """Gradients of a step's only child, and what is measured of it."""
  config = tiny.config(space=tiny.QUICK, **changes)
  mesh = mesh_lib.create(jax.devices()[:1])
  setup = config_lib.setup(config, mesh)
  setup = dataclasses.replace(
    setup, rule=dataclasses.replace(setup.rule, edges=_BY_THE_LABEL)
  )
  arch = setup.policy.static.get(role)
  run = step.child(setup, role, 8, arch)
  batch = steps.make_batch(0)
  batch['image'] = batch['image'][:, 2:-2, 2:-2]
  indices = arch_lib.encode(tiny.QUICK, arch_lib.biggest(tiny.QUICK))
  gradients, _, measured = jax.jit(run)(
    _params(), np.int32(0), batch, None if arch else indices, None, {}
  )
  return jax.device_get(gradients), jax.device_get(measured)


@functools.cache
def _params():
  setup = config_lib.setup(tiny.config(space=tiny.QUICK))
  return jax.device_get(steps.perturbed(setup).params)


_BY_THE_LABEL = tuple(
  loss_graph.Edge(student=role, teacher='label')
  for role in ('biggest', 'random', 'smallest')
)


@pytest.mark.parametrize(
  ('role', 'weight_decay'),
  [('biggest', 0.0), ('biggest', 1e-2), ('smallest', 0.0)],
)
def test_gradient_norm_counts_each_parameter_once(role, weight_decay):
  """However blocks hand out their gradients: both ways agree."""
  rule = loss_graph.Rule(regularised=role, weight_decay=weight_decay)
  gradients = []
  for recompute in False, True:
    found, measured = _own_gradient(role, rule=rule, recompute=recompute)
    np.testing.assert_allclose(measured['grad_norm'], _norm(found), rtol=1e-3)
    gradients.append(found)
  chex.assert_trees_all_close(*gradients, rtol=1e-3, atol=1e-5)


def test_gradient_norm_of_random_children_that_are_regularised():
  rule = loss_graph.Rule(regularised='random', weight_decay=1e-2)
  found, measured = _own_gradient('random', rule=rule)
  np.testing.assert_allclose(measured['grad_norm'], _norm(found), rtol=1e-3)


@pytest.mark.parametrize('role', ['smallest', 'random'])
def test_all_are_regularised_as_one_is(role):
  """Dropout, weight decay and smoothing are those of a rule of this role."""
  pair = [
    _own_gradient(role, rule=loss_graph.Rule(regularised=name))
    for name in (role, 'all', 'biggest')
  ]
  for one, other in zip(*(jax.tree.leaves(p) for p in pair[:2]), strict=True):
    np.testing.assert_array_equal(one, other)
  assert pair[0][1]['loss'] != pair[2][1]['loss']


def test_agreement_is_with_the_teacher(ran):
  _, children, params, _, of_children, _, _, outputs = ran
  logits = jax.jit(network.Supernet(SPACE).apply)
  pixels = (steps.make_batch(0)['image'] / 255.0 - 0.13) / 0.31
  teacher = outputs['biggest'].argmax(-1)
  assert 'agreement' not in of_children[0]
  for child, measured in list(zip(children, of_children, strict=True))[1:]:
    size = child.arch.resolution
    images = jax.image.resize(pixels, (16, size, size, 1), 'bicubic')
    indices = arch_lib.encode(SPACE, child.arch)
    choice = logits({'params': params}, images, indices).argmax(-1)
    assert measured['agreement'] == np.mean(choice == teacher)
    wanted = np.mean(choice == steps.make_batch(0)['label'])
    assert measured['top1'] == wanted
  shown = [float(m['agreement']) for m in of_children[1:]]
  assert any(0 < share < 1 for share in shown), 'a constant would pass'


def test_update_reports_the_norms_of_what_it_leaves(ran):
  _, _, _, sums, _, after, of_update, _ = ran
  gradient = jax.tree.map(lambda g: g.sum(0), sums[-1])
  parts = {f'weight_norm_{part}': _norm(tree) for part, tree in after.items()}
  wanted = {'grad_norm': _norm(gradient), 'weight_norm': _norm(after), **parts}
  assert {'weight_norm_stem', 'weight_norm_stage1'} < set(wanted)
  found = {name: float(value) for name, value in of_update.items()}
  assert found.pop('lr') == 0
  chex.assert_trees_all_close(found, wanted, rtol=1e-4)


def test_a_mean_of_gradients_leaves_each_childs_norm_alone(ran):
  """The norm is the child's, whatever becomes of its gradient."""
  devices, _, params, sums, (biggest, *_), *_ = ran
  if devices > 1:
    pytest.skip('one device says it')
  config = tiny.config(space=SPACE)
  config.rule.aggregate = 'mean'
  mesh = mesh_lib.create(jax.devices()[:1])
  setup = config_lib.setup(config, mesh)
  first = programs.all_programs(setup)[0]
  batch = mesh_lib.put(mesh, steps.make_batch(0), mesh_lib.split(mesh))
  gradient, _, measured = first.function(
    params, np.int32(0), batch, None, None, {}
  )
  chex.assert_trees_all_close(measured, biggest, rtol=1e-5)
  assert _norm(sums[0]) == pytest.approx(4 * _norm(gradient), rel=1e-5)


def test_several_teachers_share_the_agreement():
  edges = (
    loss_graph.Edge(student='biggest', teacher='label'),
    loss_graph.Edge(student='smallest', teacher='biggest'),
    loss_graph.Edge(student='smallest', teacher='label'),
    loss_graph.Edge(student='random', teacher='biggest'),
    loss_graph.Edge(student='random', teacher='smallest'),
  )
  rule = loss_graph.Rule(edges=edges)
  eye = np.eye(3, dtype=np.float32)
  outputs = {'biggest': eye[[0, 1]], 'smallest': eye[[0, 0]]}
  mesh = mesh_lib.create(jax.devices()[:2])

  def measured(role):
    def run(logits, labels, outputs):
      return step_metrics.of_child(
        rule,
        role,
        2,
        loss=jnp.float32(0),
        square=jnp.float32(0.25),
        logits=logits,
        labels=labels,
        teachers=outputs,
        axes=mesh.axis_names,
      )

    split = mesh_lib.split(mesh)
    on_two = mesh_lib.per_device(mesh, (split,) * 3, mesh_lib.REPLICATED)(run)
    return jax.jit(on_two)(eye[[0, 1]], np.array([2, 1]), outputs)

  assert measured('smallest')['agreement'] == 1
  assert measured('random')['agreement'] == 0.75
  assert measured('random')['top1'] == 0.5
  assert measured('random')['grad_norm'] == 1  # 2 devices of 0.5 each
