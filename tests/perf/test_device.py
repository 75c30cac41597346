"""`benchmark device`: what it measures, and what it keeps when time is over."""

import dataclasses
import itertools
import json
import math
import pathlib
import time

import jax
import networks
import pytest

from bignas_jax import benchmark
from bignas_jax.costs import counting
from bignas_jax.perf import (
  depthwise_time,
  device,
  device_sections,
  step_time,
  torch_cases,
)
from bignas_jax.policies import sandwich
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning, zoo
from bignas_jax.supernet import network
from bignas_jax.values import errors


@pytest.fixture
def small(monkeypatch):
  """One small depthwise convolution."""
  shape = depthwise_time.Shape('late', 3, 4, 3, 2)
  monkeypatch.setattr(depthwise_time, 'SHAPES', (shape,))


def test_depthwise_formulations_are_timed_and_compared(small, monkeypatch):
  doubled = lambda case, x, kernel, cotangent: 2 * case.native(x, kernel)  # noqa: E731
  monkeypatch.setitem(depthwise_time._FORWARD, 'taps', doubled)
  forward, image, kernel = depthwise_time.measure(2, 'float32', 1e9, rounds=1)
  assert forward['wrong'] == ['taps']
  assert image['wrong'] == kernel['wrong'] == []
  assert set(kernel['us']) == {'package', 'native', 'taps', 'folded'}
  assert min(kernel['us'].values()) > 0
  # Two images of 3x3 pixels are read, two of 2x2 are written.
  assert forward['floor_us'] == pytest.approx(2 * (9 + 4) * 4 * 4 * 1e-3)


def test_pointwise_convolutions_and_batch_norms_are_measured(monkeypatch):
  monkeypatch.setattr(device_sections, '_bandwidth', lambda sizes: 1e9)
  rows = [*itertools.islice(device_sections.run('pointwise'), 4)]
  kinds = ('pointwise', 'batch norm')
  names = {f'{kind}{of}' for kind in kinds for of in ('', ' gradients')}
  assert {row['what'] for row in rows} == names
  assert min(row['us'] for row in rows) > 0


def test_what_was_measured_before_the_time_was_over_is_kept(tmp_path):
  path = tmp_path / 'device.json'
  result = device.measure(['machine', 'b0'], 0.0, path)
  assert result['unfinished'] == ['machine', 'b0']
  assert result['machine'] == []
  assert json.loads(path.read_text()) == result
  assert result['markdown'].splitlines()[2].count('not measured') == 15


@pytest.mark.parametrize('platform', ['cpu', 'gpu'])
def test_what_takes_minutes_on_cpus_comes_last_there(platform):
  names = [name for name in device_sections.SECTIONS if name != 'machine']
  found = device.ordered(names, platform)
  assert sorted(found) == sorted(names)
  assert (found == names) == (platform == 'gpu')
  late = {'bignas', 'attentive_nas', 'torch', 'batches'}
  assert {*found[-len(late) :]} == late or platform == 'gpu'


def test_a_section_writes_each_row_at_once(tmp_path, monkeypatch):
  def rows(sizes):
    yield {'first': 1}
    raise ZeroDivisionError

  monkeypatch.setitem(device_sections._SECTIONS, 'machine', rows)
  path = tmp_path / 'rows.jsonl'
  with pytest.raises(ZeroDivisionError):
    device.measure_here(['machine'], path)
  assert json.loads(path.read_text()) == {'first': 1}


def test_markdown_shows_the_first_row_of_each_section():
  machine = {'device': 'GPU', 'bandwidth': 3e12, 'flops': 5e14}
  table = device.markdown({'machine': [machine], 'b0': []})
  names, ruler, cells = table.splitlines()
  assert cells.startswith('| GPU | 3,000 GB/s | 500 Tflop/s | not measured |')
  assert set(ruler.split()) == {'|', '---'}
  assert names.count('|') == ruler.count('|') == cells.count('|')


def test_markdown_compares_with_pytorchs_fastest_measurement():
  row = {'name': 'efficientnet_b0', 'batch': 8, 'compiled': False}
  compiled = row | {'compiled': True, 'step_s': 0.04, 'images_per_s': 200}
  torch = [
    row | {'step_s': 0.05, 'images_per_s': 160},
    compiled,
    compiled | {'batch': 16, 'step_s': 0.01},
    {'name': 'bignas', 'batch': 8, 'problem': 'RuntimeError: memory'},
  ]
  b0 = [{'batch': 8, 'step_s': 0.03, 'images_per_s': 267}]
  step = [{'batch': 8, 'elastic_s': 0.1, 'ratio': 1.1}]
  table = device.markdown({'b0': b0, 'torch': torch, 'bignas': step})
  names, _, cells = (line.split(' | ') for line in table.splitlines())
  cell = dict(zip(names, cells, strict=True))
  assert cell['B0 in PyTorch'] == '200 images/s, 40 ms, ratio 0.75'
  assert cell['in PyTorch'] == 'not measured'


def test_a_step_has_a_floor_by_the_compiler_and_the_machine():
  programs = {
    'biggest': {'flops': 2e9, 'bytes': 1e6},  # bound by arithmetic: 2 ms
    'update': {'flops': 1e6, 'bytes': 3e9},  # bound by memory: 30 ms
  }
  machine = {'device': 'GPU', 'bandwidth': 1e11, 'flops': 1e12}
  b0 = {'batch': 8, 'step_s': 0.064, 'images_per_s': 125, 'compiler': programs}
  result = {'b0': [b0]}
  device._add_floors(result)
  assert 'floor_s' not in b0  # the machine's rates are missing
  result['machine'] = [machine]
  device._add_floors(result)
  assert programs['biggest']['floor_s'] == pytest.approx(2e-3)
  assert b0['floor_s'] == pytest.approx(32e-3)
  assert b0['floor_share'] == pytest.approx(0.5)
  assert '| 32 ms, 50% |' in device.markdown(result)


def children_of(space):
  """The biggest child, the smallest one and two random ones."""
  ends = arch_lib.biggest(space), arch_lib.smallest(space)
  return *ends, *networks.archs_of(space, 2)


def alone(space, arch, batch=2):
  """Setup of training steps of one child, which is not compiled."""
  own = pinning.pin(space, arch)
  setup = step_time.describe(own, batch, 'float32', jax.devices()[:1])
  return dataclasses.replace(setup, policy=sandwich.alone(own))


@pytest.mark.parametrize('name', ['bignas', 'attentive_nas', 'mnist'])
def test_pytorch_is_given_children_of_the_same_size(name):
  space = zoo.get(name)
  for arch in children_of(space):
    case = torch_cases.case(alone(space, arch), 1)
    params = sum(map(math.prod, case['shapes'].values()))
    assert params == counting.cost(space, arch).params


def test_pytorch_is_given_efficientnet_b0():
  sizes = device_sections._CPU
  case = torch_cases.case(device_sections._b0(8, sizes), 1)
  # torchvision's efficientnet_b0.
  assert sum(map(math.prod, case['shapes'].values())) == 5_288_548
  assert (case['batch'], len(case['children'])) == (8, 1)


def test_pytorch_is_given_all_parameters_of_a_sandwich_step():
  setup = device_sections._sandwich('bignas', 8, device_sections._CPU)
  case = torch_cases.case(setup, 1)
  shapes = network.shapes(setup.model.space)
  sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)]
  assert sum(map(math.prod, case['shapes'].values())) == sum(sizes)
  assert len(case['children']) == 4


def test_unknown_sections_are_refused(tmp_path):
  with pytest.raises(errors.UserError, match='depthwise'):
    benchmark.main(
      ['device', '--sections=depthwize', f'--out={tmp_path / "a.json"}']
    )


def test_a_file_of_someone_else_is_not_replaced(tmp_path):
  path = tmp_path / 'notes.json'
  path.write_text('{"mine": 1}')
  for out in (path, tmp_path, tmp_path / 'missing' / 'a.json'):
    for more in ([], ['--here']):
      with pytest.raises(errors.UserError, match='--out'):
        benchmark.main(['device', '--sections=b0', f'--out={out}', *more])
  assert path.read_text() == '{"mine": 1}'
  ours = tmp_path / 'device.json'
  for _ in range(2):
    device.measure(['b0'], 0.0, ours)


def test_what_a_section_started_ends_with_it(tmp_path):
  path = tmp_path / 'pid'
  script = f'sleep 60 & echo $! > {path}; wait'
  assert device._status(['sh', '-c', script], 1.0) is None
  # A zombie, of which nobody has asked yet, has ended too.
  stat = pathlib.Path(f'/proc/{path.read_text().strip()}/stat')
  deadline = time.monotonic() + 10
  while stat.exists() and stat.read_text().split()[2] != 'Z':
    assert time.monotonic() < deadline
    time.sleep(0.01)
  assert device._status(['sh', '-c', 'exit 3'], 10.0) == 3
