"""One step of the sandwich rule against its definition, and on any mesh."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import steps
import tiny
from jax.sharding import PartitionSpec

from bignas_jax.methods import loss_graph, optim, programs
from bignas_jax.methods import step as step_lib
from bignas_jax.runs import config as config_lib
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning
from bignas_jax.supernet import network
from bignas_jax.supernet.drop_connect import DropRates
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.system import xla

SPACE = tiny.LOOP


def _train(devices, number, group=0, layout='row', space=SPACE):
  config, setup, compiled = steps.compiled(devices, group, layout, space)
  mesh, policy = setup.model.mesh, config_lib.policy(config)
  like = step_lib.described_state(setup)
  state = jax.device_put(steps.perturbed(setup), mesh_lib.places(like))
  for step in range(number):
    batch = steps.make_batch(step, pixels=max(space.train_resolution))
    batch = mesh_lib.put(mesh, batch, mesh_lib.split(mesh))
    children = policy.sample({}, config.seed, step, None)
    state, _ = programs.step(setup, compiled, state, batch, children)
  assert mesh_lib.places(state) == mesh_lib.places(like)
  return jax.device_get(state)


def _defined_gradient(config, params, batch, children, keys):
  """The gradient written out: one sum of losses of sliced children."""
  pixels = (batch['image'] / 255.0 - 0.13) / 0.31

  def logits(params, arch, **dropout):
    images = jax.image.resize(
      pixels, (16, arch.resolution, arch.resolution, 1), 'bicubic'
    )
    net = network.Supernet(pinning.pin(SPACE, arch))
    own = network.slice_child(SPACE, {'params': params}, arch)
    return net.apply(own, images, **dropout)

  def total(params):
    biggest, *others = children
    assert biggest.role == 'biggest'
    dropped = {'dropout_rate': 0.2, 'drop_rates': DropRates(0.8)}
    big = logits(params, biggest.arch, dropout_keys=keys, **dropped)
    target = 0.9 * jax.nn.one_hot(batch['label'], 10) + 0.01
    loss = optax.softmax_cross_entropy(big, target).mean()
    kernels = [
      leaf
      for path, leaf in jax.tree_util.tree_leaves_with_path(params)
      if path[-1].key == 'kernel'
    ]
    loss += 1e-3 * sum((k**2).sum() / 2 for k in kernels)
    teacher = jax.lax.stop_gradient(jax.nn.softmax(big))
    for child in others:
      small = logits(params, child.arch)
      loss += optax.softmax_cross_entropy(small, teacher).mean()
    return loss

  return jax.jit(jax.grad(total))(params)


def test_step_is_one_update_from_the_defined_gradient():
  config, setup, compiled = steps.compiled(1)
  state = steps.perturbed(setup)
  before = jax.device_get(state)
  children = config_lib.policy(config).sample({}, 0, 0, None)
  key = jax.random.fold_in(jax.random.key(0), 0)
  keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(16))
  wanted = _defined_gradient(
    config, before.params, steps.make_batch(0), children, keys
  )

  gradients, outputs = None, {}
  mesh = setup.model.mesh
  batch = mesh_lib.put(mesh, steps.make_batch(0), mesh_lib.split(mesh))
  for child in children:
    static = child.role in setup.policy.static
    indices = None if static else arch_lib.encode(SPACE, child.arch)
    gradients, logits, _ = compiled[programs.key(setup, child)](
      state.params, state.step, batch, indices, gradients, dict(outputs)
    )
    if logits is not None:
      outputs[child.role] = logits
  chex.assert_trees_all_close(gradients, wanted, rtol=1e-3, atol=2e-5)

  # Warm-up makes the first rate 0: take the second step's.
  state = state._replace(step=jnp.int32(0))
  norms = mesh_lib.put(mesh, np.bool_(True), mesh_lib.REPLICATED)
  after, metrics = compiled['update'](state, gradients, norms)
  assert float(metrics['lr']) == 0
  assert int(after.step) == 1


@pytest.mark.parametrize('layout', steps.LAYOUTS)
def test_a_step_without_norms_leaves_the_same_state(layout):
  config, setup, compiled = steps.compiled(4, layout=layout)
  mesh = setup.model.mesh
  batch = mesh_lib.put(mesh, steps.make_batch(0), mesh_lib.split(mesh))
  children = config_lib.policy(config).sample({}, config.seed, 0, None)
  like = step_lib.described_state(setup)
  states, last = [], []
  for norms in True, False:
    state = jax.device_put(steps.perturbed(setup), mesh_lib.places(like))
    state, (*_, of_update) = programs.step(
      setup, compiled, state, batch, children, norms
    )
    states.append(jax.device_get(state))
    last.append(of_update)
  chex.assert_trees_all_equal(*states)
  assert last[0]['grad_norm'] > 0 and last[0]['weight_norm'] > 0
  assert {*last[1]} == {'lr'} and last[1]['lr'] == last[0]['lr']


def test_children_with_the_same_arch_share_a_program():
  _, setup, compiled = steps.compiled(1)
  used = {
    programs.key(setup, child)
    for step in range(200)
    for child in setup.policy.sample({}, 0, step, None)
  }
  assert used | {'update'} == set(compiled)
  assert len(compiled) <= len(SPACE.train_resolution) + 3


def test_random_children_compile_nothing_and_move_nothing():
  """200 of them, under a guard against transfers that no one asked for."""
  config, setup, compiled = steps.compiled(1)
  state = steps.perturbed(setup)
  mesh = setup.model.mesh
  batch = mesh_lib.put(mesh, steps.make_batch(0), mesh_lib.split(mesh))
  policy = config_lib.policy(config)

  def step(number, state):
    children = policy.sample({}, 7, number, None)
    return programs.step(setup, compiled, state, batch, children)[0], children

  state, _ = step(0, state)
  random = []
  with xla.traces() as traces, jax.transfer_guard('disallow'):
    for number in range(1, 101):
      state, children = step(number, state)
      random += [one.arch for one in children if one.role == 'random']
    jax.block_until_ready(state)
  assert traces == []
  assert len(random) == 200 and len(set(random)) == 16
  # Both watch: something new is seen, and a hidden transfer is refused.
  with xla.traces() as traces:
    jax.jit(lambda x: x + len(random))(state.step)
  assert traces
  refused = pytest.raises(Exception, match='Disallowed host-to-device')
  with refused, jax.transfer_guard('disallow'):
    jnp.sin(np.ones(3))


def test_roles_are_kept_when_a_random_child_is_the_biggest():
  child = programs.Child('random', arch_lib.biggest(SPACE))
  _, setup, _ = steps.compiled(1)
  assert programs.key(setup, child) == 'random@12'


@pytest.mark.parametrize(
  ('group', 'layout', 'space'),
  [
    (0, 'row', tiny.LOOP),
    (8, 'row', tiny.QUICK),
    (0, 'sharded', tiny.QUICK),
  ],
  ids=['whole', 'groups', 'sharded'],
)
def test_four_devices_train_as_one(group, layout, space):
  one = _train(1, 4, group, space=space)
  four = _train(4, 4, group, layout, space)
  # Summation order differs, nothing else.
  chex.assert_trees_all_close(one.params, four.params, rtol=1e-4, atol=1e-5)


def test_the_first_rule_that_matches_places_an_array():
  _, setup, _ = steps.compiled(4, layout='sharded', space=tiny.QUICK)
  state = step_lib.described_state(setup)
  spec = jax.tree.map(lambda leaf: leaf.sharding.spec, state)
  stem, whole = spec.params['stem'], mesh_lib.REPLICATED
  assert stem['conv']['kernel'] == PartitionSpec(None, None, None, 'shard')
  assert stem['bn']['scale'] == stem['bn']['bias'] == whole
  slots = jax.tree_util.tree_leaves_with_path(spec.opt_state)
  names = {jax.tree_util.keystr(p, simple=True): s for p, s in slots}
  assert {s for n, s in names.items() if 'bias' in n} == {whole}
  assert all('shard' in s for n, s in names.items() if 'scale' in n)
  assert spec.step == whole


def test_batch_norm_groups_change_the_result():
  quick = tiny.QUICK
  whole, groups = _train(1, 3, space=quick), _train(1, 3, 8, space=quick)
  with pytest.raises(AssertionError):
    chex.assert_trees_all_close(whole.params, groups.params, rtol=1e-3)


def test_rule_without_a_teacher_before_its_student_is_refused():
  edges = (loss_graph.Edge(student='biggest', teacher='smallest'),)
  with pytest.raises(ValueError, match=r'rule\.edges'):
    loss_graph.check(loss_graph.Rule(edges=edges), ['biggest', 'smallest'])
  edges = (
    *loss_graph.Rule().edges,
    loss_graph.Edge(student='ranodm', teacher='label'),
  )
  with pytest.raises(ValueError, match='did you mean random'):
    loss_graph.check(
      loss_graph.Rule(edges=edges), ['biggest', 'smallest', 'random']
    )


def test_weight_decay_takes_kernels_only():
  params = {
    'a': {'kernel': jnp.full((2, 2), 2.0), 'bias': jnp.full(2, 9.0)},
    'bn': {'scale': jnp.full(2, 9.0), 'bias': jnp.full(2, 9.0)},
  }
  assert float(optim.half_square_norm(params)) == 8.0


def test_scales_may_all_start_at_one():
  """`zero_scales` changes the zeros alone."""
  states = []
  for zero in True, False:
    config = tiny.config(space=tiny.QUICK, zero_scales=zero)
    state = jax.jit(step_lib.init_state(config_lib.setup(config)))()
    states.append(jax.tree_util.tree_leaves_with_path(state.params))
  changed = 0
  for (path, usual), (_, ones) in zip(*states, strict=True):
    if path[-1].key == 'scale' and not usual.any():
      assert (ones == 1).all(), path
      changed += 1
    else:
      assert (ones == usual).all(), path
  assert changed == len(tiny.QUICK.stages)
