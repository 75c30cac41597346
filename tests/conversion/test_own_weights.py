"""Arrays become a supernet, and its children networks of their own."""

import dataclasses
from typing import Any

import jax
import networks
import numpy as np
import pytest
import tiny

import bignas_jax
from bignas_jax import evaluate
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.supernet import network
from bignas_jax.values import errors

PIXELS = {'mean': [0.2], 'std': [0.4]}
# The last stage alone: members of a sum are folded into one convolution.
PARALLEL = dataclasses.replace(
  networks.PARALLEL,
  stages=networks.PARALLEL.stages[1:],
  channels=1,
  resolution=(8,),
  train_resolution=(8,),
)


def _images(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.fixture(scope='module')
def net():
  params = networks.random_params(tiny.LOOP)
  return bignas_jax.make_supernet(tiny.LOOP, params, **PIXELS)


@pytest.mark.parametrize('which', ['smallest', 'biggest', 'random'])
def test_a_child_computes_what_the_supernet_computes(net, which):
  """By the statistics of one batch, whether it is calibrated or computed."""
  if which == 'random':
    which = arch_lib.sample(net.space, arch_lib.generator(3))
  images = _images(4, 9, 9, 1)
  child = net.child(which, images)
  assert child.arch == net.arch(which)
  expected = net.logits(which, images)
  assert abs(expected).max() > 0.1
  np.testing.assert_allclose(child(images), expected, rtol=1e-4, atol=1e-4)


def test_logits_are_those_of_the_network_in_training(net):
  images = _images(4, 8, 8, 1)
  arch = dataclasses.replace(arch_lib.biggest(net.space), resolution=8)
  pixels = (images / 255 - 0.2) / 0.4
  expected: Any = jax.jit(network.Supernet(net.space).apply)(
    {'params': net.params},
    pixels.astype(np.float32),
    arch_lib.encode(net.space, arch),
  )
  logits = net.logits(arch, images)
  np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_batches_are_pooled(net):
  one, two = (_images(4, 9, 9, 1, seed=i) for i in range(2))
  alone = net.child('smallest', one)
  again = net.child('smallest', [one, one])
  np.testing.assert_allclose(again(two), alone(two), rtol=1e-5, atol=1e-5)
  pooled = net.child('smallest', (one, two))
  assert abs(pooled(two) - alone(two)).max() > 1e-3
  assert pooled.info['calibration'] == {'images': 8, 'seed': None}


def test_a_child_of_parallel_members_is_folded():
  params = networks.random_params(PARALLEL)
  net = bignas_jax.make_supernet(PARALLEL, params, **PIXELS)
  images = _images(3, 8, 8, 1)
  child = net.child('biggest', images)
  assert child.info['batch_norm'] == 'folded'
  expected = net.logits('biggest', images)
  np.testing.assert_allclose(child(images), expected, rtol=1e-3, atol=1e-3)


def test_a_saved_child_is_read_again(net, tmp_path):
  images = _images(4, 9, 9, 1)
  child = net.child('smallest', images)
  child.save(tmp_path / 'child')
  loaded = bignas_jax.load_child(tmp_path / 'child')
  assert loaded.arch == child.arch
  assert loaded.info['input']['image_size'] == 9
  np.testing.assert_array_equal(loaded(images), child(images))
  with pytest.raises(errors.UserError, match=r'child\.json: data: got None'):
    evaluate.main([f'--child={tmp_path / "child"}'])
  with pytest.raises(errors.UserError, match=r'space\.classes'):
    few = dataclasses.replace(child, info=child.info | {'classes': 2})
    few.save(tmp_path / 'other', tiny.config().data)
  (tmp_path / 'child' / 'mine.txt').write_text('')
  with pytest.raises(errors.UserError, match='out: got'):
    child.save(tmp_path / 'child')


def test_shapes_are_the_supernets():
  shapes = bignas_jax.parameter_shapes('mnist')
  assert shapes['classifier']['kernel'].shape == (160, 10)
  assert shapes == network.shapes(bignas_jax.api.zoo.get('mnist'))


def _params(**changes):
  """Parameters of tiny.QUICK whose stem is changed."""
  shapes = bignas_jax.parameter_shapes(tiny.QUICK)
  params = jax.tree.map(lambda s: np.ones(s.shape), shapes)
  norm = params['stem']['bn'] | changes
  params['stem']['bn'] = {k: v for k, v in norm.items() if v is not None}
  return params


def _made(params=None, **changes):
  params = _params() if params is None else params
  return bignas_jax.make_supernet(tiny.QUICK, params, **(PIXELS | changes))


@pytest.mark.parametrize(
  ('mistake', 'words'),
  [
    (lambda: _made(_params(bias=None)), '1 tensors missing.* stem.bn.bias'),
    (lambda: _made(_params(more=1)), '1 tensors foreign.* stem.bn.more'),
    (lambda: _made([1]), 'tensors missing and 1 tensors foreign'),
    (
      lambda: _made(_params(bias=np.ones(7))),
      r'of another shape.* stem.bn.bias \(7,\) for \(8,\)',
    ),
    (
      lambda: _made(_params(bias=np.full(8, np.nan))),
      'not finite.* stem.bn.bias',
    ),
    (lambda: _made(_params(bias='x')), 'params.stem.bn.bias: got'),
    (lambda: _made(mean=[0.1, 0.2]), 'mean: got .*1 numbers'),
    (lambda: _made(std=[0.0]), 'std'),
    (lambda: _made(std='x'), 'std: got'),
    (lambda: bignas_jax.parameter_shapes('bigna'), 'did you mean bignas'),
    (lambda: bignas_jax.parameter_shapes(3), 'space: got 3'),
    (lambda: _made().arch(None), 'arch: got None'),
    (lambda: _made().arch({'resolution': 8}), 'keys'),
    (lambda: _made().child('smallest'), 'images: got .*NoneType'),
    (lambda: _made().child('smallest', []), 'images: got'),
    (lambda: _made().logits('smallest', np.ones((1, 8, 8, 1))), 'images: got'),
    (lambda: _made().child('smallest', _images(0, 8, 8, 1)), 'at least one'),
    (
      lambda: _made().child(
        'smallest', [_images(2, 8, 8, 1), _images(1, 8, 8, 1)]
      ),
      'batches of one shape',
    ),
  ],
)
def test_mistakes_are_one_line(mistake, words):
  with pytest.raises(errors.UserError, match=words) as caught:
    mistake()
  assert '\n' not in str(caught.value)
