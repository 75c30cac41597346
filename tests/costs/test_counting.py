"""Costs against the published numbers, and against the network as built."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from bignas_jax.costs import counting
from bignas_jax.costs import layers as layers_lib
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import (
  block_kinds,
  decisions,
  pinning,
  presets,
  zoo,
  zoo_parallel,
)
from bignas_jax.supernet import derived, network

BIGNAS, ATTENTIVE = zoo.BIGNAS, zoo.ATTENTIVE_NAS
NETWORKS = {
  'bignas smallest': (BIGNAS, arch_lib.smallest(BIGNAS)),
  'bignas biggest': (BIGNAS, arch_lib.biggest(BIGNAS)),
} | {
  name: (zoo.get(preset.space), preset.arch)
  for name, preset in presets.PRESETS.items()
}

# A change means that the networks are not the papers' any more, or that they
# are not counted as the papers count. MACs of BigNAS-S and M and of A0 to A6
# are those that the papers print; bignas has no other squeeze-excite rule and
# no other counting of shortcuts that gives the published sizes of S and M.
GOLDEN = {
  # millions of multiply-adds, millions of parameters
  'bignas_s': ('241.9', '4.486'),
  'bignas_m': ('417.6', '5.491'),
  'bignas smallest': ('217.6', '3.844'),
  'bignas biggest': ('1891.5', '11.015'),
  'attentive_nas_a0': ('203.4', '8.954'),
  'attentive_nas_a1': ('279.2', '9.453'),
  'attentive_nas_a2': ('316.7', '11.150'),
  'attentive_nas_a3': ('356.5', '12.785'),
  'attentive_nas_a4': ('443.5', '11.810'),
  'attentive_nas_a5': ('490.5', '12.597'),
  'attentive_nas_a6': ('709.0', '15.155'),
  'alphanet_a5_small': ('491.5', '12.971'),
  'alphanet_a5_base': ('594.8', '12.404'),
}


@pytest.mark.parametrize('name', GOLDEN)
def test_published_costs(name):
  space, arch = NETWORKS[name]
  cost = counting.cost(space, arch)
  found = f'{cost.macs / 1e6:.1f}', f'{cost.params / 1e6:.3f}'
  assert found == GOLDEN[name]


@pytest.mark.parametrize('name', GOLDEN)
def test_rows_add_up(name):
  space, arch = NETWORKS[name]
  table = counting.rows(space, arch)
  assert len(table) == sum(arch.depth) + 2
  assert counting.total(table) == counting.cost(space, arch)
  assert len({row.name for row in table}) == len(table)
  # The last block of each stage has the stage's width.
  last = {row.name.split('.')[0]: row.width for row in table}
  assert tuple(last.values())[:-1] == arch.width[:-1]
  assert all(row.cost.macs > 0 and row.cost.params > 0 for row in table)


def drawn(space, n, seed=0):
  rng = np.random.default_rng(seed)
  return [arch_lib.sample(space, rng) for _ in range(n)]


BUILT = [
  *((zoo.MNIST, arch) for arch in drawn(zoo.MNIST, 3)),
  *((BIGNAS, arch) for arch in drawn(BIGNAS, 1)),
  *((ATTENTIVE, arch) for arch in drawn(ATTENTIVE, 2)),
  NETWORKS['bignas_s'],
]


@pytest.mark.parametrize(
  ('space', 'arch'),
  BUILT,
  ids=[f'{s.name}{i}' for i, (s, _) in enumerate(BUILT)],
)
def test_the_built_child_has_these_costs(space, arch):
  """Its arrays' sizes, and the products in the program that runs it."""
  pinned = pinning.pin(space, arch)
  params = network.shapes(pinned)
  sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(params)]
  cost = counting.cost(space, arch)
  assert cost.params == sum(sizes)
  assert counting.cost(pinned, arch) == cost

  variables = network.variables_shapes(pinned)
  images = network.images_like(pinned, arch.resolution)
  program = jax.make_jaxpr(network.Supernet(pinned).apply)(variables, images)
  assert cost.macs == multiply_adds(program.jaxpr)


def multiply_adds(jaxpr) -> int:
  """Of all convolutions and matrix products, whatever they are nested in."""
  total = 0
  for eqn in jaxpr.eqns:
    name, params = eqn.primitive.name, eqn.params
    if name == 'dot_general':
      (contracted, _), _ = params['dimension_numbers']
      shape = eqn.invars[0].aval.shape
      inside = math.prod(shape[axis] for axis in contracted)
      total += math.prod(eqn.outvars[0].aval.shape) * inside
    elif name == 'conv_general_dilated':
      # Of the kernel [height, width, in / groups, out]: all but the outputs.
      # Pixels of the padding count.
      inside = math.prod(eqn.invars[1].aval.shape[:-1])
      total += math.prod(eqn.outvars[0].aval.shape) * inside
    elif name == 'cond':
      chosen = next(e for e in jaxpr.eqns if eqn.invars[0] in e.outvars)
      assert chosen.primitive.name == 'platform_index', 'a switch is left'
      total += multiply_adds(params['branches'][-1].jaxpr)
    else:
      assert name != 'while'
      times = params['length'] if name == 'scan' else 1
      total += times * sum(map(multiply_adds, inside_of(params)))
  return total


def inside_of(params):
  """The programs among an equation's parameters."""
  found = [getattr(value, 'jaxpr', value) for value in params.values()]
  return [value for value in found if hasattr(value, 'eqns')]


def test_the_witness_counts():
  """`multiply_adds` itself, on programs whose counts are known by hand."""

  def body(x, w):
    return jax.jit(lambda x: x @ w)(x), None

  def program(x, ws, image, kernel):
    x, _ = jax.lax.scan(body, x, ws)
    y = jax.lax.conv_general_dilated(
      image,
      kernel,
      (2, 2),
      'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=4,
    )
    return x, y

  shapes = (3, 5), (7, 5, 5), (1, 9, 9, 8), (3, 3, 2, 12)
  jaxpr = jax.make_jaxpr(program)(*map(np.zeros, shapes)).jaxpr
  assert multiply_adds(jaxpr) == 7 * 3 * 5 * 5 + 5 * 5 * 12 * 3 * 3 * 2


# Of the plain networks, which differ in widths and depths only, one does.
ONES = [s for s in zoo.SPACES.values() if s not in zoo_parallel.SPACES[1:]]


@pytest.mark.parametrize('space', ONES, ids=lambda s: s.name)
def test_the_supernet_is_its_biggest_child_and_no_more(space):
  """But for shortcuts that only narrower children use."""
  space = derived.plain(space)
  params = dict(network.shapes(space))
  child = dict(network.shapes(pinning.pin(space, arch_lib.biggest(space))))
  if space in zoo_parallel.SPACES:  # the child has more stages
    assert entries(params) == entries(child)
    return
  for i, stage in enumerate(space.stages):
    if stage.optional:  # has one stack of blocks, the child a first block
      whole, own = (tree.pop(f'stage{i + 1}') for tree in (params, child))
      assert entries(whole) == entries(own)
    if stage.separate_weights:
      whole, _ = (tree.pop(f'stage{i + 1}') for tree in (params, child))
      assert entries(whole) == sum(map(entries, operations_alone(space, i)))
  sizes = {path: leaf.shape for path, leaf in flat(params)}
  largest = {path: leaf.shape for path, leaf in flat(child)}
  assert largest.items() <= sizes.items()
  assert all('shortcut' in path for path in sizes.keys() - largest.keys())
  for i, stage in enumerate(space.stages):
    before = space.stem_width if i == 0 else space.stages[i - 1].width
    if stage.shortcut != 'pooled':
      continue
    own = params[f'stage{i + 1}']
    needed = len({*before, *stage.width}) > 1
    assert ('shortcut' in own['first']) == needed
    assert 'shortcut' not in own.get('rest', {})


def operations_alone(space, number):
  """A stage's parameters in children all of whose blocks have one operation."""
  biggest, stage = arch_lib.biggest(space), space.stages[number]
  places = decisions.of_stage(space, number)
  for sizes in block_kinds.operations(stage, first=True):
    values = [[*getattr(biggest, field)] for field in decisions.PER_BLOCK]
    for of_field, value in zip(values, sizes, strict=True):
      of_field[places] = [value] * (places.stop - places.start)
    fields = dict(zip(decisions.PER_BLOCK, map(tuple, values), strict=True))
    own = pinning.pin(space, dataclasses.replace(biggest, **fields))
    yield network.shapes(own)[f'stage{number + 1}']


def entries(tree):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def flat(tree):
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return [(tuple(key.key for key in path), leaf) for path, leaf in leaves]


def test_odd_sizes_round_up():
  space = dataclasses.replace(
    zoo.MNIST, resolution=(28,), train_resolution=(28,)
  )
  arch = arch_lib.biggest(space)
  rows = counting.rows(space, arch)
  found = [row.resolution for row in rows if row.name.endswith('block1')]
  size, expected = math.ceil(28 / space.stem_stride), []
  assert rows[0].resolution == size
  for stage in space.stages:
    size = math.ceil(size / stage.stride)
    expected.append(size)
  assert found == expected
  assert any(n % 2 for n in found), 'no odd size was seen'
  assert rows[-1].resolution == 1


def test_costs_of_a_foreign_architecture_are_refused():
  with pytest.raises(ValueError, match=r'arch\.'):
    counting.cost(BIGNAS, arch_lib.biggest(ATTENTIVE))


@pytest.mark.parametrize('name', ['ofa_mbv3', 'attentive_nas'])
def test_a_remembered_layer_costs_what_it_is_counted_to(name):
  """Children that share layers with others, and each by itself."""
  space = zoo.get(name)
  for arch in drawn(space, 40):
    layers = layers_lib.layers(space, arch)
    rows = [counting._row(space, layer) for layer in layers]
    cost = rows[0].cost
    for row in rows[1:]:
      cost += row.cost
    assert counting.cost(space, arch) == cost
    alive = [entry for a in layers for entry in counting._alive(space, a)]
    assert counting.peak_activations(space, arch) == max(alive)
