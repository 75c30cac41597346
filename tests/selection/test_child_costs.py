"""What a child costs, against the child itself."""

import jax
import networks
import numpy as np
import pytest
import tiny

from bignas_jax.costs import counting
from bignas_jax.deploy import folding, package
from bignas_jax.selection import child_costs
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions, pinning, zoo
from bignas_jax.supernet import network

_NAMES = ('bignas', 'attentive_nas', 'mnist', 'ofa_resnet50', 'resnet18')
SPACES = (tiny.SPACE, *map(zoo.get, _NAMES))


def ends_and_some(space, n=1):
  rng = np.random.default_rng(0)
  return [
    arch_lib.smallest(space),
    arch_lib.biggest(space),
    *(arch_lib.sample(space, rng) for _ in range(n)),
  ]


@pytest.mark.parametrize('space', SPACES, ids=lambda space: space.name)
def test_file_is_no_bigger_than_promised(space, tmp_path):
  costs = child_costs.of(space)
  for arch in ends_and_some(space):
    pinned = pinning.pin(space, arch)
    shapes = network.variables_shapes(pinned)
    zeros = jax.tree.map(lambda s: np.zeros(s.shape, np.float32), shapes)
    package.save(tmp_path / 'child', package.Child(arch, pinned, zeros, {}))
    size = (tmp_path / 'child' / 'model.safetensors').stat().st_size
    total = counting.cost(space, arch)
    arrays = 4 * (total.params + total.statistics)
    assert size == arrays + package.header_bytes(shapes)
    assert size <= costs(arch)['file_bytes']


def test_how_members_are_learnt_costs_nothing():
  arch = arch_lib.biggest(networks.SHARED)
  shared, own = map(child_costs.of, (networks.SHARED, networks.PARALLEL))
  assert shared(arch) == own(arch)


def test_peak_activations_of_a_network_counted_by_hand():
  # stem 12 -> 6 pixels, 8 channels; a block 8 -> 16 -> 16 of stride 2.
  arch = arch_lib.write(tiny.SPACE, [12, 8, 16, 24, 1, 5, 2])
  image, stem, wide, narrow = 12 * 12, 8 * 36, 16 * 36, 16 * 9
  out, head = 16 * 9, 24 * 9
  alive = (
    image + stem,
    stem + wide,
    stem + wide + narrow,
    stem + narrow + out,
    out + head,
  )
  assert counting.peak_activations(tiny.SPACE, arch) == max(alive)


def test_memory_is_that_of_the_folded_child():
  """In float32 its arrays, and for each image of a batch the activations."""
  space = tiny.SPACE
  arch = arch_lib.biggest(space)
  pinned = pinning.pin(space, arch)
  zeros = jax.tree.map(
    lambda s: np.zeros(s.shape, np.float32), network.variables_shapes(pinned)
  )
  _, folded = folding.fold(pinned, zeros)
  weights = sum(leaf.size for leaf in jax.tree.leaves(folded))
  peak = counting.peak_activations(space, arch)
  biases = counting.cost(space, arch).statistics // 2

  def memory(*served):
    served = child_costs.Memory(*served)
    return child_costs.of(space, memory=served)(arch)['memory_bytes']

  assert memory() == 4 * (weights + peak)
  assert memory(8) == 4 * (weights + 8 * peak)
  half = 2 * (weights - biases + 8 * peak) + 4 * biases
  assert memory(8, 'bfloat16') == memory(8, 'float16') == half
  assert memory(1, 'int8') == weights - biases + peak + 4 * biases


@pytest.mark.parametrize('space', SPACES, ids=lambda space: space.name)
def test_costs_grow_with_every_decision(space):
  costs = child_costs.of(space)
  for arch in ends_and_some(space):
    here, values = costs(arch), arch_lib.read(space, arch)
    for i, gene in enumerate(decisions.genes(space)):
      at = gene.choices.index(values[i])
      if at + 1 < len(gene.choices):
        more = [*values[:i], gene.choices[at + 1], *values[i + 1 :]]
        there = costs(arch_lib.write(space, more))
        assert all(there[name] >= here[name] for name in here), gene.name


def test_latency_is_a_cost_where_it_is_known():
  costs = child_costs.of(tiny.SPACE, lambda arch: float(arch.resolution))
  found = costs(arch_lib.smallest(tiny.SPACE))
  assert found['latency_ms'] == 8 and set(found) == set(child_costs.NAMES)
