"""The spaces of elastic networks before BigNAS, against published numbers."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from test_counting import multiply_adds

from bignas_jax.costs import counting, layers
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions, parallel, pinning, zoo
from bignas_jax.supernet import network


@pytest.mark.parametrize(
  ('name', 'macs', 'params'),
  [
    # MobileNet, table 1; MobileNetV2, table 4; torchvision's ResNets;
    # EfficientNet-Lite0's model card.
    ('mobilenet_v1', 569e6, 4.2e6),
    ('mobilenet_v2', 300e6, 3.5e6),
    ('resnet18', 1.81e9, 11.69e6),
    ('resnet50', 4.09e9, 25.56e6),
    ('efficientnet_lite0', 385e6, 4.65e6),
    ('efficientnet_b0', 386e6, 5.29e6),  # torchvision's
    ('wrn_28_10', 5.24e9, 36.48e6),  # WRN-28-10 on CIFAR-10
    # RepVGG, table 2, as deployed; VGG-16 with a classifier of 512 features.
    ('repvgg_a0', 1.36e9, 8.30e6),
    ('repvgg_a1', 2.36e9, 12.78e6),
    ('repvgg_a2', 5.12e9, 25.49e6),
    ('repvgg_b0', 3.06e9, 14.33e6),
    ('repvgg_b1', 11.82e9, 51.82e6),
    ('repvgg_b2', 18.38e9, 80.31e6),
    ('repvgg_b3', 26.21e9, 110.96e6),
    ('repvgg_b1g4', 7.32e9, 36.13e6),
    ('repvgg_b2g4', 11.34e9, 55.78e6),
    ('repvgg_b3g4', 16.08e9, 75.63e6),
    ('vgg16', 15.35e9, 14.71e6 + 0.51e6),
  ],
)
def test_costs_are_the_published_ones(name, macs, params):
  space = zoo.get(name)
  cost = counting.cost(space, arch_lib.biggest(space))
  assert cost.macs == pytest.approx(macs, rel=0.005)
  assert cost.params == pytest.approx(params, rel=0.01)


_ENDS = {'smallest': arch_lib.smallest, 'biggest': arch_lib.biggest}
_RANDOM = {
  'random': lambda space: arch_lib.sample(space, arch_lib.generator(0))
}


@pytest.mark.parametrize(
  ('name', 'child'),
  [
    # The published networks are the biggest children.
    *((name, 'biggest') for name in ('mobilenet_v1', 'mobilenet_v2')),
    *((name, 'biggest') for name in ('resnet18', 'resnet50')),
    *(
      (name, end)
      for name in ('ofa_mbv3', 'wrn_28_10', 'ofa_resnet50')
      for end in _ENDS
    ),
    ('fbnet_v2_layers', 'random'),
  ],
)
def test_costs_are_those_of_the_program(name, child):
  """An independent count: the products of the traced child."""
  space = zoo.get(name)
  arch = (_ENDS | _RANDOM)[child](space)
  own = pinning.pin(space, arch)
  variables = network.variables_shapes(own)
  images = network.images_like(own, arch.resolution)
  program = jax.make_jaxpr(network.Supernet(own).apply)(variables, images)
  cost = counting.cost(space, arch)
  assert cost.macs == multiply_adds(program.jaxpr)
  leaves = jax.tree.leaves(variables['params'])
  assert cost.params == sum(math.prod(leaf.shape) for leaf in leaves)


@pytest.mark.parametrize('name', ['repvgg_a0', 'repvgg_b1g4'])
def test_costs_of_a_sum_are_those_of_its_one_convolution(name):
  """But for scales of batch norms, which the folded network has not."""
  space = zoo.get(name)
  arch = arch_lib.sample(space, np.random.default_rng(0))
  own = pinning.deployed(pinning.pin(space, arch))
  variables = network.variables_shapes(own)
  images = network.images_like(own, arch.resolution)
  program = jax.make_jaxpr(network.Supernet(own).apply)(variables, images)
  cost = counting.cost(space, arch)
  assert cost.macs == multiply_adds(program.jaxpr)
  scales = sum(layer.width_out for layer in layers.layers(space, arch)[:-1])
  leaves = jax.tree.leaves(variables['params'])
  assert cost.params == scales + sum(math.prod(leaf.shape) for leaf in leaves)


def test_parameters_of_repvggs_own_members():
  """In training, as they are published; its first layer has a member more."""
  space = zoo.get('repvgg_b1g4')
  own = (parallel.mask('square', 'point', 'identity'),)
  stages = tuple(dataclasses.replace(s, parallel=own) for s in space.stages)
  space = dataclasses.replace(space, stages=stages)
  number = sum(
    math.prod(a.shape) for a in jax.tree.leaves(network.shapes(space))
  )
  assert number + 3 * 64 + 2 * 64 == pytest.approx(39.97e6, abs=5e3)


def test_a_width_a_stage_is_one_choice_of_a_width_a_layer():
  """Each child of `fbnet_v2` is one of `fbnet_v2_layers`, at the same cost."""
  space, layers_space = zoo.get('fbnet_v2'), zoo.get('fbnet_v2_layers')
  assert [max(stage.depth) for stage in space.stages] == [1, 3, 3, 3, 4, 4]
  for seed in range(5):
    arch = arch_lib.sample(space, arch_lib.generator(seed))
    stem, *inner, head = arch.width
    pairs = zip(inner, arch.depth, strict=True)
    each = [width for width, depth in pairs for _ in range(depth)]
    own = dataclasses.replace(
      arch, width=(stem, *each, head), depth=(1,) * len(each)
    )
    assert counting.cost(layers_space, own) == counting.cost(space, arch)
  # Widths of layers differ, and a layer adds its input if its own do not.
  arch = arch_lib.sample(layers_space, arch_lib.generator(0))
  adds = []
  for layer in layers.layers(layers_space, arch)[1:-1]:
    same = layer.width_in == layer.width_out and layer.size_in == layer.size_out
    assert layer.has_shortcut(layers_space) == same
    adds.append(same)
  assert {*adds[1:]} == {False, True}


def test_widths_of_one_multiplier_move_together():
  """MobileNet 0.5 has half of each width."""
  space = zoo.get('mobilenet_v1')
  half = next(
    arch for arch in arch_lib.every(space) if arch.width[-1] == 1024 // 2
  )
  assert half.width == (16, 32, 64, 128, 256, 512)
  assert arch_lib.count(space) == 31 * 4


def test_choices_of_absent_blocks_are_the_smallest():
  space = zoo.get('ofa_mbv3')
  small = arch_lib.smallest(space)
  values = arch_lib.read(space, arch_lib.biggest(space))
  names = [gene.name for gene in decisions.genes(space)]
  for number in range(1, 6):  # all but two blocks of each stage are absent
    values[names.index(f'depth[{number}]')] = 2
  arch = arch_lib.write(space, values)
  assert arch.depth == (1, 2, 2, 2, 2, 2)
  assert arch.kernel_size[1:5] == (7, 7, 3, 3)
  assert small.kernel_size == (3,) * 21
  # 10^19 networks, as the paper says.
  assert arch_lib.count(space) // len(space.resolution) > 1e19
