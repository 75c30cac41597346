"""Laws of latency tables: a prediction is a sum over a child's parts."""

import dataclasses
import itertools
import json
import math

import hypothesis
import numpy as np
import pytest
import tiny
from etils import epath
from hypothesis import strategies as st

from bignas_jax.costs import counting, latency, latency_tables
from bignas_jax.costs.layers import layers
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions, zoo
from bignas_jax.values import errors

_NAMES = (
  *('bignas', 'attentive_nas', 'mnist', 'ofa_mbv3', 'mobilenet_v2'),
  'ofa_resnet50',
)
SPACES = [zoo.get(name) for name in _NAMES]
ABOUT = {
  'runtime': 'jax',
  'batch': 1,
  'device': 'a device',
  'versions': {'jax': '0.10.2'},
  'estimate': False,
}
FIT = latency.Fit(network_ms=0.25, part_ms=0.125, scale=0.5)


def archs(space):
  values = [st.sampled_from(gene.choices) for gene in decisions.genes(space)]
  return st.tuples(*values).map(lambda v: arch_lib.write(space, list(v)))


with_arch = st.sampled_from(SPACES).flatmap(
  lambda space: st.tuples(st.just(space), archs(space))
)


def every_child(space):
  choices = [gene.choices for gene in decisions.genes(space)]
  for values in itertools.product(*choices):
    yield arch_lib.write(space, list(values))


def measured(space, resolutions, seed=0):
  rng = np.random.default_rng(seed)
  found = latency.all_layers(space, resolutions)
  return dict(zip(found, rng.uniform(0.1, 9, len(found)).tolist(), strict=True))


def write(path, space=tiny.SPACE, resolutions=None, fit=FIT, seed=0):
  resolutions = resolutions or space.resolution
  ms = measured(space, resolutions, seed)
  latency_tables.save(epath.Path(path), space, resolutions, ABOUT, ms, fit)
  return ms


@hypothesis.given(with_arch)
def test_every_layer_of_every_child_is_listed(space_and_arch):
  space, arch = space_and_arch
  listed = latency.all_layers(space, [arch.resolution])
  assert set(latency.measured(space, arch)) <= set(listed)


@hypothesis.given(with_arch)
def test_layers_follow_each_other(space_and_arch):
  """Each takes what the one before it makes; costs and pictures agree."""
  space, arch = space_and_arch
  walk = layers(space, arch)
  assert [layer.name for layer in walk] == [
    row.name for row in counting.rows(space, arch)
  ]
  for before, after in itertools.pairwise(walk):
    assert (after.size_in, after.width_in) == (
      before.size_out,
      before.width_out,
    )
  blocks = [layer for layer in walk if layer.is_block]
  assert len(blocks) == len(walk) - 2 == sum(arch.depth)
  for layer in blocks:
    stride = layer.of(space).stride if layer.block == 0 else 1
    assert layer.size_out == math.ceil(layer.size_in / stride)
    i = layer.stage - 1
    assert layer.width_out == arch.width[i + 1]
    place = decisions.place(space, i, layer.block)
    choices = layer.kernel_size, layer.expand_ratio
    assert choices == (arch.kernel_size[place], arch.expand_ratio[place])
  assert walk[0].size_in == arch.resolution
  assert (walk[0].width_in, walk[-1].width_out) == (
    space.channels,
    arch.width[-1],
  )


@pytest.mark.parametrize('space', [tiny.SPACE, tiny.QUICK])
def test_no_layer_is_listed_that_no_child_has(space):
  used = {
    layer
    for arch in every_child(space)
    for layer in latency.measured(space, arch)
  }
  listed = latency.all_layers(space, space.resolution)
  assert set(listed) == used and len(listed) == len(used)


@pytest.mark.parametrize('space', SPACES, ids=lambda s: s.name)
def test_names_tell_layers_apart(space):
  found = latency.all_layers(space, space.resolution)
  assert len({latency.name(layer) for layer in found}) == len(found)


def test_a_prediction_is_the_sum_of_its_layers(tmp_path):
  space = zoo.MNIST
  ms = write(tmp_path / 'table.json', space)
  table = latency_tables.load(epath.Path(tmp_path / 'table.json'), space)
  rng = np.random.default_rng(1)
  for _ in range(50):
    arch = arch_lib.sample(space, rng)
    walk = latency.measured(space, arch)
    entries = [FIT.part_ms + FIT.scale * ms[layer] for layer in walk]
    assert table.predict(arch) == FIT.network_ms + math.fsum(entries)


def test_a_file_gives_back_what_was_written(tmp_path):
  path = epath.Path(tmp_path / 'table.json')
  ms = write(path, resolutions=(8, 12))
  table = latency_tables.load(path, tiny.SPACE)
  assert (table.resolutions, table.about) == ((8, 12), ABOUT)
  assert not table.estimate
  fields, resolutions = latency_tables.read(path, tiny.SPACE)
  assert latency_tables.milliseconds(fields, tiny.SPACE, resolutions) == ms


def refused(path, space=tiny.SPACE) -> str:
  with pytest.raises(errors.UserError) as caught:
    latency_tables.load(epath.Path(path), space)
  assert '\n' not in str(caught.value)
  return str(caught.value)


def damaged(path, **changes):
  write(path)
  fields = json.loads(path.read_text())
  for field, value in changes.items():
    fields[field] = value
  path.write_text(json.dumps(fields))
  return refused(path)


def test_what_is_no_table_of_the_space_is_refused(tmp_path):
  path = tmp_path / 'table.json'
  assert 'a file' in refused(path)
  path.write_text('{"format": 1')
  assert 'valid JSON' in refused(path)
  path.write_text('{}')
  assert 'format: got None' in refused(path)
  write(path, zoo.MNIST)
  assert "space: got 'mnist'; allowed: tiny" in refused(path)
  write(path, fit=None)
  assert 'fit: got None; allowed: a finished table' in refused(path)


@pytest.mark.parametrize(
  ('changes', 'text'),
  [
    ({'resolutions': [9]}, r'resolutions: got [9]'),
    ({'resolutions': []}, r'resolutions: got []'),
    ({'resolutions': [[8]]}, r'resolutions: got [[8]]'),
    ({'fit': {'network_ms': 1}}, 'a finished table'),
    ({'fit': {'network_ms': 1, 'part_ms': 'x', 'scale': 1}}, 'finished'),
    ({'parts_ms': [1]}, 'parts_ms: got [1]'),
    ({'parts_ms': {'stem 8px 1>8': 'x'}}, 'stem 8px 1>8: got'),
    ({'parts_ms': {'stem 8px 1>8': math.nan}}, 'stem 8px 1>8: got nan'),
    ({'parts_ms': {'stem 8px 1>8': math.inf}}, 'stem 8px 1>8: got inf'),
    ({'parts_ms': {'stem 8px 1>8': -1}}, 'stem 8px 1>8: got -1'),
    ({'parts_ms': {'stem 8px 1>8': True}}, 'stem 8px 1>8: got True'),
    ({'parts_ms': {'stem 8px 1>8': 10**400}}, 'stem 8px 1>8: got 1000'),
    ({'parts_ms': None}, 'parts_ms: got None'),
    ({'fit': {'network_ms': 1, 'part_ms': math.nan, 'scale': 1}}, 'finished'),
    ({'fit': {'network_ms': 1, 'part_ms': 10**400, 'scale': 1}}, 'finished'),
    ({'fit': [1, 1, 1]}, 'finished'),
    ({'resolutions': [8.0]}, 'resolutions: got [8.0]'),
    ({'resolutions': {'8': 1}}, 'resolutions: got'),
    ({'runtime': 3}, 'runtime: got 3; allowed: text'),
    ({'batch': '1'}, "batch: got '1'; allowed: a whole number >= 1"),
    ({'batch': 0}, 'batch: got 0'),
    ({'device': None}, 'device: got None'),
    ({'versions': []}, 'versions: got []'),
    ({'estimate': 'no'}, "estimate: got 'no'; allowed: True or False"),
    ({'statistic': 'mean'}, "statistic: got 'mean'; allowed: one of least"),
    ({'threads': -2}, 'threads: got -2'),
    ({'format': 2}, 'format: got 2'),
    ({'space_sha256': None}, "space: got 'tiny'"),
    ({'parts_ms': {'stem 8px 1>8': 1}}, "'stage1.first 4px 8>8 k3 e2'"),
  ],
)
def test_a_damaged_field_is_named(tmp_path, changes, text):
  assert text in damaged(tmp_path / 'table.json', **changes)


def test_foreign_children_are_refused(tmp_path):
  path = epath.Path(tmp_path / 'table.json')
  write(path, resolutions=(8, 12))
  table = latency_tables.load(path, tiny.SPACE)
  arch = arch_lib.smallest(tiny.SPACE)
  with pytest.raises(errors.UserError, match=r'resolution: got 10; .* 8, 12'):
    table.predict(dataclasses.replace(arch, resolution=10))
  with pytest.raises(errors.UserError, match=r'width\[0\]: got 9'):
    table.predict(dataclasses.replace(arch, width=(9, 8, 16)))


def test_what_trains_a_space_makes_no_other_table(tmp_path):
  path = epath.Path(tmp_path / 'table.json')
  write(path)
  same = dataclasses.replace(
    tiny.SPACE, name='other', train_resolution=tiny.SPACE.resolution
  )
  latency_tables.load(path, same)
  other = dataclasses.replace(tiny.SPACE, classes=11)
  assert 'space: got' in refused(path, other)
