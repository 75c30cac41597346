"""One network alone: trained, from random weights or a child's, as it says."""

import contextlib
import dataclasses
import functools
import json
import shutil

import chex
import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
import reference
import tiny
from autograd.scipy import special

from bignas_jax.data import sources
from bignas_jax.deploy import package as package_lib
from bignas_jax.methods import loss_graph, programs, step
from bignas_jax.policies.policies import Child
from bignas_jax.runs import checkpoints as checkpoints_lib
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import config_record, warm_start
from bignas_jax.runs import directory as directory_lib
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning
from bignas_jax.supernet import network
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.system import stopping
from bignas_jax.training import loop, states
from bignas_jax.values import errors, structs

ARCH = arch_lib.biggest(tiny.QUICK)


def _alone(**changes):
  """Of one network, with the tiny config's data and recipe."""
  changes = {'policy': 'alone', 'space': ''} | changes
  return tiny.config(**changes)


@pytest.fixture(scope='module')
def package(tmp_path_factory):
  """The directory of a child whose images are shrunk, from 12 pixels to 8."""
  directory = tmp_path_factory.mktemp('package') / 'child'
  space = pinning.pin(tiny.QUICK, ARCH)
  params = jax.jit(functools.partial(network.init, space))(jax.random.key(5))
  norms = network.stats_shapes(space)
  variables = {
    'params': params,
    'batch_stats': jax.tree.map(jnp.ones_like, norms),
  }
  info = {
    'arch': arch_lib.to_dict(ARCH),
    'input': {
      'resolution': ARCH.resolution,
      'channels': 1,
      'mean': [0.13],
      'std': [0.31],
      'image_size': 12,
    },
    'classes': 10,
    'calibration': {'images': 8, 'seed': 0},
    'data': {},
  }
  package_lib.save(directory, package_lib.Child(ARCH, space, variables, info))
  return directory


@pytest.fixture
def copied(package, tmp_path):
  """One that a test may change."""
  return shutil.copytree(package, tmp_path / 'child')


pytestmark = pytest.mark.usefixtures('compiled_once')


def _resolved(**changes):
  config = warm_start.resolve(_alone(**changes))
  config_lib.check(config)
  return config


# What is trained.


def test_only_the_networks_programs_are_made():
  config = _resolved(space=tiny.QUICK, arch='smallest')
  setup = config_lib.setup(config)
  names = [p.name for p in programs.all_programs(setup)]
  assert names == ['biggest', 'update']
  assert loss_graph.teachers(setup.rule) == set()
  (child,) = setup.policy.sample({}, 0, 3, None)
  assert child == Child('biggest', arch_lib.smallest(tiny.QUICK))
  # Of a sandwich without random children, no programs for random ones either.
  setup = config_lib.setup(tiny.config(random_children=0))
  names = [p.name for p in programs.all_programs(setup)]
  assert names == ['biggest', 'smallest', 'update']


def test_a_step_is_that_of_a_plain_network():
  """Loss, gradient and update written out, of a network without elasticity."""
  rule = loss_graph.Rule(dropout=0.0, weight_decay=1e-2, label_smoothing=0.1)
  arch = arch_lib.to_json(ARCH)
  config = _resolved(space=tiny.QUICK, arch=arch, rule=rule)
  config.schedule.warmup_steps = 0
  mesh = mesh_lib.create(jax.devices()[:1])
  setup = config_lib.setup(config, mesh)
  compiled = programs.compile_all(programs.all_programs(setup))
  state = jax.jit(step.init_state(setup))()
  draw = lambda leaf: 0.2 * jax.random.normal(jax.random.key(3), leaf.shape)  # noqa: E731
  params = jax.device_get(jax.tree.map(lambda p: p + draw(p), state.params))
  state = state._replace(params=params)
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (16, 8, 8, 1), np.uint8)
  labels = rng.integers(0, 10, 16).astype(np.int32)

  def cross_entropy(params):
    pixels = (images / 255.0 - 0.13) / 0.31
    logits, _ = reference.child(setup.model.space, ARCH, params, pixels)
    target = 0.9 * np.eye(10)[labels] + 0.01
    scores = special.logsumexp(logits, 1, keepdims=True) - logits
    return (target * scores).sum(1).mean()

  def defined(params):
    leaves = jax.tree_util.tree_leaves_with_path(params)
    kernels = [leaf for path, leaf in leaves if path[-1].key == 'kernel']
    decay = 1e-2 * sum((k**2).sum() / 2 for k in kernels)
    return cross_entropy(params) + decay

  loss = cross_entropy(params)
  _, gradient = reference.gradient(defined, params)
  rate = 0.02  # the schedule's peak; RMSProp in TensorFlow's form from 1
  wanted = jax.tree.map(
    lambda p, g: p - rate * g / np.sqrt(0.9 + 0.1 * g**2 + 1e-3),
    params,
    gradient,
  )
  batch = {'image': images, 'label': labels}
  batch = mesh_lib.put(mesh, batch, mesh_lib.split(mesh))
  children = setup.policy.sample({}, 0, 0, None)
  state = mesh_lib.put(mesh, state, mesh_lib.REPLICATED)
  after, measured = programs.step(setup, compiled, state, batch, children)
  of_child, of_update = measured
  assert float(of_update['lr']) == pytest.approx(rate)
  assert float(of_child['loss']) == pytest.approx(float(loss), rel=1e-4)
  assert 'agreement' not in of_child
  chex.assert_trees_all_close(
    jax.device_get(after.params), wanted, rtol=1e-4, atol=2e-6
  )


@pytest.mark.parametrize(
  ('changes', 'field'),
  [
    ({'space': tiny.QUICK, 'arch': 'huge'}, 'arch'),
    ({'space': tiny.QUICK, 'arch': 'bignas_s'}, 'arch'),
    ({'arch': 'bignas_l'}, 'arch'),
    ({'arch': arch_lib.to_json(ARCH)}, 'arch'),  # of which space?
    ({'init_from': 'no/such/child'}, 'init_from'),
    ({'space': tiny.QUICK, 'arch': 'biggest', 'policy': 'sandwich'}, 'policy'),
    ({}, 'space'),
  ],
)
def test_what_names_no_network_is_refused(changes, field):
  with pytest.raises(errors.UserError) as refused:
    _resolved(**changes)
  assert refused.value.field == field


def test_a_preset_brings_its_space_along():
  config = warm_start.resolve(_alone(arch='bignas_s', classes=37))
  assert config_lib.space(config).classes == 37
  again = warm_start.resolve(_alone(space='bignas', arch='bignas_s'))
  assert again.space == config.space
  assert config_lib.image_size(config) == 192


# Where it starts.


class _StopsAfter(stopping.StopRequest):
  """As if a signal had come during step `after`."""

  def __init__(self, after: int):
    self._left = after + 1

  def due(self) -> bool:
    self._left -= 1
    return self._left <= 0


def _state(workdir, config):
  setup = config_lib.setup(warm_start.resolve(config, workdir))
  checkpoints = checkpoints_lib.Checkpoints(workdir)
  try:
    return jax.device_get(states.restore_or_init(setup, checkpoints)[0])
  finally:
    checkpoints.close()


def test_a_stopped_run_needs_its_child_no_more(copied, tmp_path, monkeypatch):
  """It ends as an uninterrupted one, bit for bit."""
  config = _alone(init_from=str(copied))
  whole, stopped = tmp_path / 'whole', tmp_path / 'stopped'
  wanted = loop.train(config, whole)
  with monkeypatch.context() as patch:
    patch.setattr(stopping, 'StopRequest', lambda: _StopsAfter(3))
    with pytest.raises(errors.Preempted, match='saved step 3 of 6'):
      loop.train(config, stopped)
  shutil.rmtree(copied)
  result = loop.train(config, stopped)
  chex.assert_trees_all_equal(_state(stopped, config), _state(whole, config))
  assert result | {'workdir': ''} == wanted | {'workdir': ''}
  assert tiny.numbers(stopped) == tiny.numbers(whole)
  assert {'eval/biggest/top1', 'eval/biggest/top5'} < set(result)
  assert not any('smallest' in name for name in result)


@pytest.mark.parametrize('field', ['init_from', 'arch'])
def test_what_a_run_took_stays(copied, tmp_path, field):
  path = copied if field == 'init_from' else copied / 'child.json'
  config = _alone(**{field: str(path)})
  wanted = warm_start.resolve(config, tmp_path / 'run')
  assert config_lib.image_size(wanted) == 12
  directory_lib.claim(tmp_path / 'run', wanted)
  shutil.rmtree(copied)
  assert warm_start.resolve(config, tmp_path / 'run') == wanted
  # What is not the child's is asked for and compared as ever.
  for changes in (
    {'classes': 11},
    {'space': dataclasses.replace(tiny.QUICK, bn_epsilon=1e-5)},
  ):
    again = dataclasses.replace(config, **changes)
    again = warm_start.resolve(again, tmp_path / 'run')
    with pytest.raises(errors.UserError, match=r'differs in space\.'):
      directory_lib.claim(tmp_path / 'run', again)
  with pytest.raises(errors.UserError, match=field):
    warm_start.resolve(config, tmp_path / 'another')


def test_a_run_of_a_space_with_choices_per_block_is_known_again(tmp_path):
  """Blocks of such a network are stages of their own in the run's space."""
  archs = networks.archs_of(networks.ONE_OF, 2)
  texts = [arch_lib.to_json(arch) for arch in archs]
  config = _alone(space=networks.ONE_OF, arch=texts[0], classes=10)
  started = warm_start.resolve(config, tmp_path)
  directory_lib.claim(tmp_path, started)
  resumed = warm_start.resolve(config, tmp_path)
  assert config_record.to_dict(resumed) == config_record.to_dict(started)
  directory_lib.claim(tmp_path, resumed)
  other = warm_start.resolve(
    dataclasses.replace(config, arch=texts[1]), tmp_path
  )
  with pytest.raises(errors.UserError, match='differs'):
    directory_lib.claim(tmp_path, other)


def test_before_its_first_checkpoint_a_run_needs_its_child(copied, tmp_path):
  config = warm_start.resolve(_alone(init_from=str(copied)))
  later = dataclasses.replace(config, init_sha256='0' * 64)
  with pytest.raises(errors.UserError, match='started with'):
    warm_start.weights(later)
  shutil.rmtree(copied)
  with pytest.raises(errors.UserError, match='init_from'):
    warm_start.weights(config)


def test_scratch_differs_from_finetune_in_the_start_alone(package, tmp_path):
  tuned = warm_start.resolve(_alone(init_from=str(package)))
  scratch = warm_start.resolve(_alone(arch=str(package / 'child.json')))
  fields = [config_record.to_dict(config) for config in (tuned, scratch)]
  own = ('arch', 'init_from', 'init_sha256')
  assert structs.without(fields[0], own) == structs.without(fields[1], own)
  assert config_record.sha256(tuned) != config_record.sha256(scratch)
  setup = config_lib.setup(tuned)
  checkpoints = checkpoints_lib.Checkpoints(tmp_path)
  start = jax.device_get(
    states.restore_or_init(
      setup, checkpoints, lambda: warm_start.weights(tuned)
    )[0]
  )
  fresh = jax.device_get(states.restore_or_init(setup, checkpoints)[0])
  checkpoints.close()
  params = package_lib.load(package).variables['params']
  chex.assert_trees_all_equal(start.params, params)
  chex.assert_trees_all_equal(start._replace(params=fresh.params), fresh)
  with pytest.raises(AssertionError):
    chex.assert_trees_all_equal(fresh.params, params)


def test_other_classes_get_a_fresh_classifier(package, capsys):
  config = warm_start.resolve(_alone(init_from=str(package), classes=12))
  config_lib.check(config)
  given = warm_start.weights(config)
  params = package_lib.load(package).variables['params']
  assert given.keys() == params.keys() - {'classifier'}
  assert '12 classes, the child has 10' in capsys.readouterr().err
  start = jax.jit(step.init_state(config_lib.setup(config)))(given)
  assert start.params['classifier']['bias'].shape == (12,)
  chex.assert_trees_all_equal(
    jax.device_get({part: start.params[part] for part in given}), given
  )


def test_a_classifier_for_classes_of_other_names_is_told(copied, capsys):
  info = json.loads((copied / 'child.json').read_text())
  digits = [str(i) for i in range(10)]
  config = warm_start.resolve(_alone(init_from=str(copied)))
  for names, here, words in (
    (digits, digits, ''),
    (digits, [*digits[:9], 'ant'], "'ant' is new, '9' is missing"),
    (['cat', 'dog', *digits[2:]], digits, "2 are new, such as '0', 2 are miss"),
    (digits[::-1], digits, 'they are in another order'),
    (None, digits, ''),  # a package of an older version
  ):
    described = info | ({'class_names': names} if names else {})
    (copied / 'child.json').write_text(json.dumps(described))
    warm_start.weights(config, here)
    told = capsys.readouterr().err
    assert ('classes of other names' in told) == bool(words)
    assert words in told


# Where a supernet starts.


def _supernet(**changes):
  return tiny.config(**({'space': tiny.QUICK} | changes))


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run of a supernet that is as if it had ended after two steps."""
  workdir = tmp_path_factory.mktemp('supernet') / 'run'
  config = warm_start.resolve(_supernet(steps=2))
  directory_lib.claim(workdir, config, sources.load(config.data, channels=1))
  state = jax.jit(step.init_state(config_lib.setup(config)))()
  with contextlib.closing(checkpoints_lib.Checkpoints(workdir)) as saved:
    saved.save(2, state._replace(step=jnp.int32(2)))
  return workdir


@pytest.fixture
def run(trained, tmp_path):
  """One that a test may change."""
  return shutil.copytree(trained, tmp_path / 'run')


def test_a_supernet_starts_with_all_that_another_has(trained, capsys):
  wanted = _state(trained, _supernet(steps=2)).params
  config = warm_start.resolve(_supernet(init_from=str(trained)))
  assert config_lib.check(config).space == tiny.QUICK
  digits = tuple(map(str, range(10)))
  given = warm_start.weights(config, digits)
  chex.assert_trees_all_equal(given, wanted)
  assert 'anew' not in capsys.readouterr().err
  assert warm_start.resolve(_supernet(space='', init_from=str(trained))) == (
    dataclasses.replace(config, init_from=str(trained))
  )
  given = warm_start.weights(config, (*digits[1:], 'ant'))
  assert given.keys() == wanted.keys() - {'classifier'}
  (line,) = [
    line for line in capsys.readouterr().err.split('\n') if 'anew' in line
  ]
  assert "'ant' is new, '0' is missing" in line
  assert 'starting anew: classifier/bias [10], classifier/kernel' in line


def test_a_supernet_of_other_classes_goes_on_without_the_other(
  run, tmp_path, monkeypatch
):
  """A stopped run needs the supernet no more, and ends as a whole one."""
  config = _supernet(init_from=str(run), classes=12)
  whole, stopped = tmp_path / 'whole', tmp_path / 'stopped'
  loop.train(config, whole)
  with monkeypatch.context() as patch:
    patch.setattr(stopping, 'StopRequest', lambda: _StopsAfter(3))
    with pytest.raises(errors.Preempted, match='saved step 3 of 6'):
      loop.train(config, stopped)
  shutil.rmtree(run)
  loop.train(config, stopped)
  state = _state(stopped, config)
  assert state.params['classifier']['bias'].shape == (12,)
  chex.assert_trees_all_equal(state, _state(whole, config))
  scratch = _supernet(classes=12)
  with pytest.raises(errors.UserError, match='init_sha256'):
    directory_lib.claim(whole, warm_start.resolve(scratch))


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'space': 'mnist'}, 'a supernet of space mnist; .* differs in'),
    (
      {'space': dataclasses.replace(tiny.QUICK, channels=3)},
      r'differs in channels \(1 there, 3 here\)',
    ),
    ({'arch': 'smallest'}, 'nothing, where init_from is a supernet'),
  ],
)
def test_another_space_than_the_supernets_is_refused(trained, changes, words):
  with pytest.raises(errors.UserError, match=words):
    warm_start.resolve(_supernet(init_from=str(trained), **changes))


def _cut(path):
  path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
  ('damage', 'words'),
  [
    (lambda run: shutil.rmtree(run / 'checkpoints' / '2'), 'step 0 of 2'),
    (lambda run: shutil.rmtree(run / 'checkpoints'), 'step 0 of 2'),
    (lambda run: (run / 'config.json').write_text('{'), 'valid JSON'),
    (
      lambda run: (run / 'checkpoints' / '2' / 'receipt.json').unlink(),
      'receipt.json is missing',
    ),
    (
      lambda run: _cut(max(run.glob('checkpoints/2/**/d/*'))),
      'has changed',
    ),
  ],
)
def test_a_supernet_that_is_not_whole_is_one_line(run, damage, words):
  damage(run)
  with pytest.raises(errors.UserError, match=words) as refused:
    warm_start.resolve(_supernet(init_from=str(run)))
  assert refused.value.field == 'init_from'
  assert '\n' not in str(refused.value)


def test_before_its_first_checkpoint_a_run_needs_its_supernet(run):
  config = warm_start.resolve(_supernet(init_from=str(run)))
  later = dataclasses.replace(config, init_sha256='0' * 64)
  with pytest.raises(errors.UserError, match='the supernet that the run was'):
    warm_start.weights(later)
  shutil.rmtree(run)
  with pytest.raises(errors.UserError, match='init_from'):
    warm_start.weights(config)


# What is said of the start.


def test_averages_start_with_the_child(package):
  config = warm_start.resolve(_alone(init_from=str(package), ema_decay=0.9))
  init = step.init_state(config_lib.setup(config))
  start = jax.device_get(jax.jit(init)(warm_start.weights(config)))
  chex.assert_trees_all_equal(start.ema, start.params)


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'space': 'mnist'}, 'a child of space mnist'),
    (
      {'space': dataclasses.replace(tiny.QUICK, channels=3)},
      r'channels \(1 there, 3 here\)',
    ),
    (
      {'space': dataclasses.replace(tiny.QUICK, padding='symmetric')},
      'padding',
    ),
    ({'arch': 'smallest', 'space': tiny.QUICK}, 'of the architecture'),
  ],
)
def test_a_child_of_another_network_is_refused(package, changes, words):
  with pytest.raises(errors.UserError, match=words) as refused:
    _resolved(init_from=str(package), **changes)
  assert refused.value.field == 'init_from'


def test_other_pixels_than_the_childs_are_told(package, capsys):
  config = _alone(init_from=str(package))
  config.data = dataclasses.replace(config.data, mean=(0.5,))
  warm_start.weights(warm_start.resolve(config))
  told = capsys.readouterr().err
  assert 'data.mean is [0.5], the child had [0.13]' in told
  assert 'data.std' not in told


def test_a_package_whose_batch_norm_is_gone_is_refused(copied):
  child = package_lib.load(copied)
  params = dict(child.variables['params'])
  stem = {k: v for k, v in params['stem'].items() if k != 'bn'}
  variables = child.variables | {'params': params | {'stem': stem}}
  package_lib.save(copied, dataclasses.replace(child, variables=variables))
  with pytest.raises(errors.UserError, match=r'init_from.*other arrays'):
    _resolved(init_from=str(copied))


def test_a_damaged_description_is_one_line(copied):
  (copied / 'child.json').write_text(json.dumps({'arch': {}}))
  with pytest.raises(errors.UserError, match='arch'):
    _resolved(arch=str(copied / 'child.json'))
