"""Squeeze-excite as a choice of a stage, or of each block."""

import dataclasses
import json

import networks
import numpy as np
import pytest
import tiny

from bignas_jax.costs import counting, latency, layers
from bignas_jax.policies import distributions
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions, pinning
from bignas_jax.values import errors, schema

# Two blocks at most, each with or without; then a stage that has none.
OF_BLOCKS = dataclasses.replace(
  tiny.SPACE,
  stages=(
    dataclasses.replace(tiny.SPACE.stages[0], se_choice=True),
    dataclasses.replace(tiny.SPACE.stages[0], depth=(1,), se=None),
  ),
  per_block=True,
)
OF_STAGES = dataclasses.replace(OF_BLOCKS, per_block=False)


@pytest.mark.parametrize(
  ('space', 'choices', 'options'),
  [
    (OF_BLOCKS, [(0, 1), (0, 1), (0,)], 4 + 4**2),
    (OF_STAGES, [(0, 1), (0,)], 2 * 4),
  ],
)
def test_it_is_one_more_decision(space, choices, options):
  genes = [g for g in decisions.genes(space) if g.field == 'squeeze_excite']
  assert [gene.choices for gene in genes] == choices
  archs = {*arch_lib.every(space)}
  others = 3 * (2 * 2) * 2 * 2  # resolution, widths, head, last kernel
  assert len(archs) == arch_lib.count(space) == others * options
  ends = arch_lib.smallest(space), arch_lib.biggest(space)
  assert [end.squeeze_excite for end in ends] == [
    tuple(some[0] for some in choices),
    tuple(some[-1] for some in choices),
  ]


@pytest.mark.parametrize('space', [OF_BLOCKS, OF_STAGES])
def test_a_child_goes_through_all_its_forms(space):
  rng = np.random.default_rng(0)
  for _ in range(20):
    arch = arch_lib.sample(space, rng)
    indices = arch_lib.encode(space, arch)
    assert arch_lib.decode(space, indices, arch.resolution) == arch
    fields = json.loads(arch_lib.to_json(arch))
    assert arch_lib.from_dict(space, fields) == arch
    pinned = pinning.pin(space, arch)
    assert pinning.described(pinned, fields) == arch
    assert schema.convert(type(pinned), schema.plain(pinned)) == pinned
    own = [s.se is not None for s in pinned.stages for _ in range(*s.depth)]
    places = [(0, block) for block in range(arch.depth[0])] + [(1, 0)]
    bits = [
      arch_lib.of_block(space, arch, *place)['squeeze_excite'] == 1
      for place in places
    ]
    assert own == bits
    # The child is counted as its own network, which has no choice, is.
    alone = counting.cost(pinned, arch_lib.biggest(pinned))
    assert counting.cost(space, arch) == alone


def test_blocks_that_are_not_there_have_none():
  arch = dataclasses.replace(
    arch_lib.biggest(OF_BLOCKS), depth=(1, 1), squeeze_excite=(1, 1, 0)
  )
  assert arch_lib.canonical(OF_BLOCKS, arch).squeeze_excite == (1, 0, 0)
  with pytest.raises(errors.UserError, match=r'squeeze_excite\[1\].*smallest'):
    arch_lib.check(OF_BLOCKS, dataclasses.replace(arch, kernel_size=(5, 3, 5)))


def test_other_spaces_have_no_such_entry():
  arch = arch_lib.biggest(tiny.SPACE)
  assert arch.squeeze_excite == ()
  assert 'squeeze_excite' not in arch_lib.to_dict(arch)
  assert arch_lib.encode(tiny.SPACE, arch).squeeze_excite is None
  fields = arch_lib.to_dict(arch_lib.biggest(OF_BLOCKS))
  del fields['squeeze_excite']
  with pytest.raises(errors.UserError, match=r'arch\.squeeze_excite'):
    arch_lib.from_dict(OF_BLOCKS, fields)
  old = schema.plain(networks.OFA)
  for stage in old['stages']:
    del stage['se_choice']
  assert schema.convert(type(networks.OFA), old) == networks.OFA


def test_layers_and_their_latencies_tell_them_apart():
  most = arch_lib.biggest(OF_BLOCKS)
  arch = dataclasses.replace(most, squeeze_excite=(1, 0, 0))
  walk = layers.layers(OF_BLOCKS, arch)
  assert [layer.leaves_out_se for layer in walk[1:4]] == [False, True, False]
  assert walk[2].of(OF_BLOCKS).se is None
  names = [latency.name(layer) for layer in walk[1:4]]
  assert [name.endswith(' no se') for name in names] == [False, True, False]
  table = latency.all_layers(OF_BLOCKS, OF_BLOCKS.resolution)
  assert len({latency.name(layer) for layer in table}) == len(table)
  every = [
    layer
    for arch in arch_lib.every(OF_BLOCKS)
    for layer in latency.measured(OF_BLOCKS, arch)
  ]
  assert {*every} == {*table}
  # Two dense layers with biases, of 4 and 32 channels.
  more = counting.cost(OF_BLOCKS, most).params
  assert more - counting.cost(OF_BLOCKS, arch).params == 2 * 4 * 32 + 4 + 32


def test_a_block_has_one_joint_distribution():
  names = [gene.name for gene in decisions.genes(OF_BLOCKS)]
  groups = [
    {names[number] for number in group}
    for group in distributions.blocks(OF_BLOCKS)
  ]
  own = {f'{n}[1]' for n in ('kernel_size', 'expand_ratio', 'squeeze_excite')}
  assert own in groups


@pytest.mark.parametrize(
  ('changes', 'field'),
  [
    ({'se': None}, 'se_choice'),
    ({'separate_weights': True}, 'se_choice'),
    ({'depth': (0, 1), 'stride': 1, 'width': (8,)}, 'se_choice'),
  ],
)
def test_malformed_stages(changes, field):
  stage = dataclasses.replace(OF_STAGES.stages[0], kernel_size=(3,), **changes)
  with pytest.raises(errors.UserError) as caught:
    dataclasses.replace(OF_STAGES, stages=(stage,))
  assert caught.value.field == f'space.stages[0].{field}'


def test_a_single_network_has_no_choice():
  stage = dataclasses.replace(
    OF_STAGES.stages[0], kernel_size=(3,), width=(8,), depth=(1,)
  )
  one = {'resolution': (8,), 'train_resolution': (8,), 'head_width': (16,)}
  space = dataclasses.replace(OF_STAGES, stages=(stage,), **one)
  assert not arch_lib.is_one(space)
  with pytest.raises(errors.UserError, match='single network'):
    dataclasses.replace(space, bn_epsilon=None)
