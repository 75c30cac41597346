"""The peer in PyTorch computes and learns what the package does."""

import dataclasses

import jax
import networks
import numpy as np
import optax
import pytest
import tiny

pytest.importorskip('torch', reason='needs PyTorch, which no extra brings')

import torch  # pyright: ignore[reportMissingImports]
from torch._subclasses import fake_tensor  # pyright: ignore[reportMissingImports]
from torch.utils import flop_counter  # pyright: ignore[reportMissingImports]

from bignas_jax.costs import counting
from bignas_jax.methods import loss_graph, optim, programs
from bignas_jax.perf import step_time, torch_cases, torch_peer
from bignas_jax.policies import sandwich
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning, zoo
from bignas_jax.spaces.stage import SqueezeExcite
from bignas_jax.supernet import network

# Kernels of two sizes, shortcuts with and without a convolution, an odd side
# that is pooled; padded as the peer pads.
SPACE = dataclasses.replace(
  tiny.SPACE,
  resolution=(10,),
  train_resolution=(10,),
  padding='symmetric',
)
# The ends of AttentiveNAS's networks.
OTHER = dataclasses.replace(
  SPACE,
  stages=(
    dataclasses.replace(
      SPACE.stages[0],
      se=SqueezeExcite(
        of='hidden',
        rounding='round_to_8',
        activation='relu',
        gate='hard_sigmoid',
      ),
      activation='hard_swish',
    ),
  ),
  head_expand=2,
)


def described(space, batch=4, rule=None):
  return step_time.describe(
    space, batch, 'float32', jax.devices()[:1], rule=rule
  )


def arrays(params, shapes):
  """A supernet's parameters in the names and layouts of the peer's."""
  out = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    *names, kind = [entry.key for entry in path]
    stacked = names[1:2] == ['rest']
    for i, own in enumerate(leaf if stacked else leaf[None]):
      block = {'first': 1, 'rest': i + 2}.get(names[1] if names[1:] else '')
      parts = [f'block{block}' if n in ('first', 'rest') else n for n in names]
      name = '_'.join([*parts, kind])
      for norm in ('_bn_', '_shortcut_conv_'):
        name = name.replace(norm, '_')
      out[name] = own
  ends = {'stem': 'stem_conv', 'head': 'head_conv'}
  for end, conv in ends.items():
    for kind in ('scale', 'bias'):
      out[f'{conv}_{kind}'] = out.pop(f'{end}_{kind}')
  return {
    name: _in_layout(np.asarray(out[name], np.float32), len(shape))
    for name, shape in shapes.items()
  }


def _in_layout(array, axes):
  if axes == 4 and array.ndim == 2:
    array = array[None, None]
  return array.transpose(*range(array.ndim)[::-1][:2], *range(array.ndim - 2))


def load(net, params, case):
  with torch.no_grad():
    for name, array in arrays(params, case['shapes']).items():
      net.tensors[name].copy_(torch.tensor(array))


def channels_first(images):
  return torch.tensor(np.asarray(images).transpose(0, 3, 1, 2))


@pytest.mark.parametrize('space', [SPACE, OTHER], ids=['bignas', 'attentive'])
def test_children_have_the_same_logits(space):
  setup = described(space)
  case = torch_cases.case(setup, 1)
  net = torch_peer.Network(case)
  params = networks.cast(networks.random_params(space), 'float32')
  load(net, params, case)
  images, _ = networks.random_images(space, 10, batch=4)
  images = images.astype(np.float32)
  ours = jax.jit(network.Supernet(space).apply)
  ends = arch_lib.biggest(space), arch_lib.smallest(space)
  for arch in (*ends, *networks.archs_of(space, 3)):
    indices = arch_lib.encode(space, arch)
    expected = ours({'params': params}, images, indices)
    child = torch_cases._child(space, arch)
    logits = net(channels_first(images), child, 0.0).detach().numpy()
    scale = abs(np.asarray(expected)).max()
    assert abs(logits - expected).max() <= 1e-4 * scale


def test_a_step_changes_parameters_alike():
  space = dataclasses.replace(SPACE, stem_width=(8, 16))
  rule = loss_graph.Rule(dropout=0.0, weight_decay=1e-2)
  setup = described(space, 8, rule)
  case = torch_cases.case(setup, 1)
  step = torch_peer.Step(case, 'cpu')
  compiled = programs.compile_all(programs.all_programs(setup))
  params = networks.cast(networks.random_params(space), 'float32')
  state = step_time.first_state(setup)._replace(params=params)
  load(step.net, params, case)
  before = {n: t.detach().numpy().copy() for n, t in step.net.tensors.items()}
  batch = step_time.random_batch(setup)
  children = setup.policy.sample(setup.policy.init(0), 0, 0, None)
  pixels = channels_first(batch['image'])
  labels = torch.tensor(np.asarray(batch['label']), dtype=torch.int64)
  for _ in range(3):
    state, _ = programs.step(setup, compiled, state, batch, children)
    step(pixels, labels)
  # A batch norm after it makes the gradient of a bias next to nothing.
  expected = arrays(state.params, case['shapes'])
  moved = {name: expected[name] - before[name] for name in expected}
  actual = {
    name: tensor.detach().numpy() - before[name]
    for name, tensor in step.net.tensors.items()
  }
  networks.assert_close(actual, moved, 2e-3, least=1e-2)


def test_the_update_is_rmsprop_in_tensorflows_form():
  rng = np.random.default_rng(0)
  config = optim.Optimizer()
  optimizer = optim.create(config, lambda step: 0.1)
  params = {'kernel': rng.normal(size=(3, 4)).astype(np.float32)}
  own = torch.nn.Parameter(torch.tensor(params['kernel']))
  peer = torch_peer.RMSProp([own], 0.1, dataclasses.asdict(config))
  state = optimizer.init(params)
  for _ in range(4):
    gradient = rng.normal(size=(3, 4)).astype(np.float32)
    updates, state = optimizer.update({'kernel': gradient}, state, params)
    params = optax.apply_updates(params, updates)
    own.grad = torch.tensor(gradient)
    peer.step()
  np.testing.assert_allclose(own.detach(), params['kernel'], rtol=1e-5)


@pytest.mark.parametrize('name', ['bignas', 'attentive_nas'])
def test_children_have_the_same_multiply_adds(name):
  space = zoo.get(name)
  ends = arch_lib.biggest(space), arch_lib.smallest(space)
  for arch in (*ends, *networks.archs_of(space, 1)):
    own = pinning.pin(space, arch)
    setup = dataclasses.replace(described(own, 1), policy=sandwich.alone(own))
    case = torch_cases.case(setup, 1)
    measured = flop_counter.FlopCounterMode(display=False)
    with fake_tensor.FakeTensorMode(), measured:  # nothing is computed
      net, size = torch_peer.Network(case), case['resolution']
      net(torch.empty(1, 3, size, size), *case['children'], 0.0)
    macs = counting.cost(space, arch).macs
    assert measured.get_total_flops() == 2 * macs


def test_each_case_is_measured_and_a_failure_is_a_row():
  setup = described(tiny.QUICK)
  good = torch_cases.case(setup, 1)
  bad = good | {'shapes': good['shapes'] | {'classifier_kernel': [3, 1]}}
  first, second = torch_cases.run([bad, good])
  assert 'Error' in first['problem']
  assert second['step_s'] > 0
  assert second['images_per_s'] == pytest.approx(4 / second['step_s'])
