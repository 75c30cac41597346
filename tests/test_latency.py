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

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import counting, latency, latency_tables, zoo
from bignas_jax.values import errors

SPACES = list(zoo.SPACES.values())
ABOUT = {
  'runtime': 'jax',
  'batch': 1,
  'device': 'a device',
  'versions': {'jax': '0.10.2'},
  'estimate': False,
}
FIT = latency.Fit(network_ms=0.25, part_ms=0.125, scale=0.5)


def archs(space):
  values = [st.sampled_from(gene.choices) for gene in arch_lib.genes(space)]
  return st.tuples(*values).map(lambda v: arch_lib.write(space, list(v)))


with_arch = st.sampled_from(SPACES).flatmap(
  lambda space: st.tuples(st.just(space), archs(space))
)


def every_child(space):
  choices = [gene.choices for gene in arch_lib.genes(space)]
  for values in itertools.product(*choices):
    yield arch_lib.write(space, list(values))


def measured(space, resolutions, seed=0):
  rng = np.random.default_rng(seed)
  found = latency.all_parts(space, resolutions)
  return dict(zip(found, rng.uniform(0.1, 9, len(found)).tolist(), strict=True))


def write(path, space=tiny.SPACE, resolutions=None, fit=FIT, seed=0):
  resolutions = resolutions or space.resolution
  ms = measured(space, resolutions, seed)
  latency_tables.save(epath.Path(path), space, resolutions, ABOUT, ms, fit)
  return ms


@hypothesis.given(with_arch)
def test_every_part_of_every_child_is_listed(space_and_arch):
  space, arch = space_and_arch
  listed = latency.all_parts(space, [arch.resolution])
  assert set(latency.parts(space, arch)) <= set(listed)


@hypothesis.given(with_arch)
def test_parts_are_the_rows_that_are_counted(space_and_arch):
  """The same blocks, with the same outputs, as `counting` knows them."""
  space, arch = space_and_arch
  found = latency.parts(space, arch)
  rows = counting.rows(space, arch)
  assert len(found) == len(rows)
  for part, after, row in zip(found[:-1], found[1:], rows[:-1], strict=True):
    stage, _, block = row.name.partition('.')
    assert (after.size, part.width_out) == (row.resolution, row.width)
    assert stage == (f'stage{part.stage}' if part.stage else 'stem')
    assert part.first == (block in ('', 'block1'))


@pytest.mark.parametrize('space', [tiny.SPACE, tiny.QUICK])
def test_no_part_is_listed_that_no_child_has(space):
  used = {
    part for arch in every_child(space) for part in latency.parts(space, arch)
  }
  listed = latency.all_parts(space, space.resolution)
  assert set(listed) == used and len(listed) == len(used)


@pytest.mark.parametrize('space', SPACES, ids=lambda s: s.name)
def test_names_tell_parts_apart(space):
  found = latency.all_parts(space, space.resolution)
  assert len({latency.name(space, part) for part in found}) == len(found)


def test_a_prediction_is_the_sum_of_its_parts(tmp_path):
  space = zoo.MNIST
  ms = write(tmp_path / 'table.json', space)
  table = latency_tables.load(epath.Path(tmp_path / 'table.json'), space)
  rng = np.random.default_rng(1)
  for _ in range(50):
    arch = arch_lib.sample(space, rng)
    parts = latency.parts(space, arch)
    entries = [FIT.part_ms + FIT.scale * ms[part] for part in parts]
    assert table.predict(arch) == FIT.network_ms + math.fsum(entries)


@pytest.mark.parametrize('seed', range(20))
def test_the_ends_of_a_space_are_those_of_all_children(tmp_path, seed):
  stage = tiny.SPACE.stages[0]
  space = dataclasses.replace(
    tiny.SPACE,
    stem_width=(8, 16),
    stages=(
      stage,
      dataclasses.replace(
        stage, stride=1, depth=(1, 2, 3), kernel_size=(3,), expand_ratio=(2, 3)
      ),
    ),
  )
  write(tmp_path / 'table.json', space, seed=seed)
  table = latency_tables.load(epath.Path(tmp_path / 'table.json'), space)
  all_ms = [table.predict(arch) for arch in every_child(space)]
  for ends, pick in ((table.least(), min), (table.most(), max)):
    ms, arch = ends
    assert ms == pytest.approx(pick(all_ms), rel=1e-12)
    assert ms == table.predict(arch) and arch_lib.contains(space, arch)


def test_a_file_gives_back_what_was_written(tmp_path):
  path = epath.Path(tmp_path / 'table.json')
  ms = write(path, resolutions=(8, 12))
  table = latency_tables.load(path, tiny.SPACE)
  assert (table.resolutions, table.about) == ((8, 12), ABOUT)
  assert not table.estimate
  fields, resolutions = latency_tables.read(path, tiny.SPACE)
  assert latency_tables.known(fields, tiny.SPACE, resolutions) == ms


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
