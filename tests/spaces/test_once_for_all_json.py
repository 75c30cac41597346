"""Architectures as Once-for-All's own code writes them."""

import json

import hypothesis
import hypothesis.strategies as st
import pytest

from bignas_jax import cost
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import presets, zoo, zoo_elastic, zoo_residual
from bignas_jax.values import errors

SPACE = zoo_elastic.OFA_MBV3
SPACES = [SPACE, zoo_elastic.OFA_MBV3_W12, zoo_elastic.OFA_PROXYLESS]
BIGGEST = {'ks': [7] * 20, 'e': [6] * 20, 'd': [4] * 5, 'r': 224}


def written(arch, absent=None):
  """An architecture in this form, with a value for blocks that are not there.

  None is the architecture's own, which is the smallest.
  """
  fields = {
    'ks': [*arch.kernel_size[1:]],
    'e': [*arch.expand_ratio[1:]],
    'd': [*arch.depth[1:]],
    'r': arch.resolution,
  }
  blocks = len(fields['ks'])
  for i in range(blocks if absent is not None else 0):
    stage, block = divmod(i, 4)  # all stages but ProxylessNAS's last have 4
    if block >= fields['d'][stage]:
      fields['ks'][i] = fields['e'][i] = absent
  return fields


@pytest.mark.parametrize('space', SPACES, ids=lambda space: space.name)
@hypothesis.given(
  seed=st.integers(0, 2**32), absent=st.sampled_from([None, 0, 7])
)
def test_it_names_the_same_child_as_ours(space, seed, absent):
  arch = arch_lib.sample(space, arch_lib.generator(seed))
  assert presets.parse(space, json.dumps(written(arch, absent))) == arch


RESIDUAL = zoo_residual.OFA_RESNET50
BIGGEST_RESIDUAL = {
  'd': [2] * 5,
  'e': [0.35] * 18,
  'w': [2] * 6,
  'image_size': 224,
}


@hypothesis.given(seed=st.integers(0, 2**32), absent=st.sampled_from([None, 0]))
def test_residual_networks_have_positions_of_widths(seed, absent):
  arch = arch_lib.sample(RESIDUAL, arch_lib.generator(seed))
  ratios = [percent / 100 for percent in arch.expand_ratio[2:]]
  fewest, first = (2, 2, 4, 2), (0, 4, 8, 14)
  if absent is not None:
    for start, depth, n in zip(
      first, arch.depth[2:], (4, 4, 6, 4), strict=True
    ):
      ratios[start + depth : start + n] = [absent] * (n - depth)
  widths = (arch.width[0], *arch.width[2:])
  whole = (32, 64, 256, 512, 1024, 2048)
  # 24 channels are those of either multiplier, 0.65 or 0.8.
  multipliers = [
    min((0.65, 0.8, 1), key=lambda m, w=width, n=most: abs(w - m * n))
    for width, most in zip(widths, whole, strict=True)
  ]
  fields = {
    'd': [2 * arch.depth[0]]
    + [d - n for d, n in zip(arch.depth[2:], fewest, strict=True)],
    'e': ratios,
    'w': [(0.65, 0.8, 1).index(m) for m in multipliers],
    'image_size': arch.resolution,
  }
  assert presets.parse(RESIDUAL, json.dumps(fields)) == arch


RESIDUAL_WRONG = {
  'arch.d[0]': {'d': [3, 2, 2, 2, 2]},
  'arch.d[4]': {'d': [2, 2, 2, 2, -1]},
  'arch.e[17]': {'e': [0.35] * 17 + [35]},
  'arch.w[1]': {'w': [2, 0.65, 2, 2, 2, 2]},
  'arch.w': {'w': [2] * 5},
  'arch.image_size': {'image_size': 225},
  'arch': {'r': 224},
}


@pytest.mark.parametrize('field', RESIDUAL_WRONG)
def test_a_wrong_entry_of_a_residual_network_is_named(field):
  biggest = presets.parse(RESIDUAL, json.dumps(BIGGEST_RESIDUAL))
  assert biggest == arch_lib.biggest(RESIDUAL)
  fields = BIGGEST_RESIDUAL | RESIDUAL_WRONG[field]
  with pytest.raises(errors.UserError) as caught:
    presets.parse(RESIDUAL, json.dumps(fields))
  assert caught.value.field == field


def test_proxyless_nas_has_21_blocks_in_6_stages():
  fields = {'ks': [3] * 21, 'e': [3] * 21, 'd': [2] * 5 + [1], 'r': 128}
  smallest = arch_lib.smallest(zoo_elastic.OFA_PROXYLESS)
  assert presets.parse(zoo.get('ofa_proxyless'), json.dumps(fields)) == smallest


def test_it_is_read_as_searches_write_it_and_inside_files(tmp_path):
  path = tmp_path / 'net.json'
  path.write_text(json.dumps({'arch': BIGGEST | {'r': [224], 'wid': None}}))
  assert presets.parse(SPACE, str(path)) == arch_lib.biggest(SPACE)
  arguments = ['--space=ofa_mbv3', f'--arch={path}']
  expected = cost.main(['--space=ofa_mbv3', '--arch=biggest'])
  assert cost.main(arguments) == expected


WRONG = {
  'arch.ks[2]': {'ks': [7, 7, 4] + [7] * 17},
  'arch.e[19]': {'e': [6] * 19 + ['6']},
  'arch.d[0]': {'d': [1, 4, 4, 4, 4]},
  'arch.d': {'d': [4] * 6},
  'arch.ks': {'ks': [7] * 21},
  'arch.e': {'e': 6},
  'arch.r': {'r': 225},
  'arch': {'width': 1},
}


@pytest.mark.parametrize('field', WRONG)
def test_a_wrong_entry_is_named(field):
  with pytest.raises(errors.UserError) as caught:
    presets.parse(SPACE, json.dumps(BIGGEST | WRONG[field]))
  assert caught.value.field == field


def test_a_missing_entry_is_named_and_other_spaces_have_no_such_form():
  fields = {k: v for k, v in BIGGEST.items() if k != 'r'}
  with pytest.raises(errors.UserError, match='keys ks, e, d, r'):
    presets.parse(SPACE, json.dumps(fields))
  with pytest.raises(errors.UserError, match='resolution, width, depth'):
    presets.parse(zoo.BIGNAS, json.dumps(BIGGEST))
