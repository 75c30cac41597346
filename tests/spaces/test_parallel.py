"""Architectures whose layers keep some of several parallel members."""

import dataclasses
import json

import networks
import numpy as np
import pytest

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions, pinning
from bignas_jax.strategies import variation
from bignas_jax.values import errors, schema

SPACE = networks.PARALLEL
MASKS = SPACE.stages[0].parallel
# A layer that changes the shape has no identity, 64.
FIRST = (1, 2, 16, 32, 44, 63)


def test_choices_of_each_layer():
  assert [
    decisions.of_block(SPACE, *place, 'parallel')
    for place in ((0, 0), (0, 1), (0, 2), (1, 0))
  ] == [FIRST, MASKS, MASKS, (3, 67)]
  assert arch_lib.smallest(SPACE).parallel == (1, 1, 1, 3)
  assert arch_lib.biggest(SPACE).parallel == (63, 127, 127, 67)
  two, three = len(FIRST) * len(MASKS), len(FIRST) * len(MASKS) ** 2
  assert arch_lib.count(SPACE) == (two + three) * 2
  assert len({*arch_lib.every(SPACE)}) == arch_lib.count(SPACE)


def test_a_child_goes_through_all_its_forms():
  rng = np.random.default_rng(0)
  for _ in range(20):
    arch = arch_lib.sample(SPACE, rng)
    indices = arch_lib.encode(SPACE, arch)
    assert arch_lib.decode(SPACE, indices, arch.resolution) == arch
    fields = json.loads(arch_lib.to_json(arch))
    assert arch_lib.from_dict(SPACE, fields) == arch
    pinned = pinning.pin(SPACE, arch)
    assert arch_lib.is_one(pinned)
    assert pinning.described(pinned, fields) == arch
    again = schema.convert(type(pinned), schema.plain(pinned))
    assert again == pinned
    own = arch_lib.biggest(pinned).parallel
    assert own == (*arch.parallel[: arch.depth[0]], arch.parallel[-1])


def test_a_mask_is_one_decision():
  """Of layers that a child has not, masks are the smallest."""
  genes = [g for g in decisions.genes(SPACE) if g.field == 'parallel']
  assert [gene.choices for gene in genes] == [FIRST, MASKS, MASKS, (3, 67)]
  rng = np.random.default_rng(1)
  parent = arch_lib.sample(SPACE, rng)
  children = {variation.mutate(SPACE, parent, rng, 0.5) for _ in range(20)}
  assert len({child.parallel for child in children}) > 5
  for child in children:
    assert arch_lib.contains(SPACE, child)


def test_other_spaces_have_no_masks():
  arch = arch_lib.biggest(networks.OFA)
  assert arch.parallel == ()
  assert 'parallel' not in arch_lib.to_dict(arch)
  assert arch_lib.encode(networks.OFA, arch).parallel is None
  with pytest.raises(errors.UserError, match=r'arch\.parallel.*0 numbers'):
    arch_lib.check(networks.OFA, dataclasses.replace(arch, parallel=(1,)))
  fields = arch_lib.to_dict(arch_lib.biggest(SPACE))
  del fields['parallel']
  with pytest.raises(errors.UserError, match=r'arch\.parallel'):
    arch_lib.from_dict(SPACE, fields)


@pytest.mark.parametrize(
  ('changes', 'field', 'allowed'),
  [
    ({'parallel': (0, 1)}, 'stages[0].parallel', 'numbers >= 1'),
    ({'parallel': (128,)}, 'stages[0].parallel', 'up to 127'),
    ({'parallel': [1]}, 'stages[0].parallel', 'a tuple'),
    ({'parallel': (64,)}, 'stages[0].parallel', 'more than the identity'),
    ({'block': 'basic'}, 'stages[0].parallel', '(), for block basic'),
    ({'shortcut': 'identity'}, 'stages[0].shortcut', 'none'),
    ({'width': (8, 16)}, 'stages[0].width', 'one width'),
    ({'depth': (0, 1)}, 'stages[0]', 'where the depth may be 0'),
    ({'parallel': (2,), 'shared_kernel': True}, 'stages[0].shared', 'square'),
    ({'parallel': (2,), 'zero_start': True}, 'stages[0].zero', 'square'),
    ({'groups': 0}, 'stages[0].groups', 'a whole number >= 1'),
    ({'groups': 3}, 'stages[0].groups', 'a divisor'),
    ({'groups': 2.0}, 'stages[0].groups', 'a whole number'),
    ({'block': 'basic', 'parallel': ()}, 'stages[0].groups', 'for block basic'),
    ({'width': (8, 16), 'parallel': ()}, 'stages[0].width', 'one width'),
  ],
)
def test_malformed_stages(changes, field, allowed):
  stage = dataclasses.replace(SPACE.stages[0], **changes)
  with pytest.raises(errors.UserError) as caught:
    dataclasses.replace(SPACE, stages=(stage, SPACE.stages[1]))
  assert caught.value.field.startswith(f'space.{field}')
  assert allowed in str(caught.value)


@pytest.mark.parametrize(
  ('changes', 'field'),
  [
    ({'per_block': False}, 'per_block'),
    ({'multipliers': (0.5, 1.0)}, 'multipliers'),
    ({'stem_width': (8, 16)}, 'widths[0]'),
    ({'bn_epsilon': None}, 'bn_epsilon'),
  ],
)
def test_malformed_spaces(changes, field):
  with pytest.raises(errors.UserError) as caught:
    dataclasses.replace(SPACE, **changes)
  assert caught.value.field == f'space.{field}'
