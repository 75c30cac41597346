"""Published networks: of their space, of their cost, and read by name."""

import dataclasses
import json

import pytest

import bignas_jax
from bignas_jax import cli, cost
from bignas_jax import list as list_command
from bignas_jax.costs import counting
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning, presets, zoo
from bignas_jax.values import errors

MNIST = zoo.MNIST
named = pytest.mark.parametrize('name', presets.PRESETS)


@named
def test_a_preset_costs_what_was_printed(name):
  """To half of the last digit that was: a million MACs, 100,000 parameters."""
  preset = presets.PRESETS[name]
  cost = counting.cost(zoo.get(preset.space), preset.arch)
  off = 1_300_000 if name == 'alphanet_a5_base' else 500_000
  if preset.source.startswith('torchvision'):  # prints two digits of a billion
    off = 5_000_000
  assert abs(cost.macs - preset.macs) <= off
  if preset.params is not None:
    assert abs(cost.params - preset.params) <= 50_000
  families = preset.space, 'alphanet'
  sources = 'arXiv:', 'torchvision'
  assert name.startswith(families) and preset.source.startswith(sources)
  assert 0.5 < preset.top1 < 0.9


@named
def test_a_preset_is_read_by_name_in_its_space_alone(name):
  preset = presets.PRESETS[name]
  space = zoo.get(preset.space)
  assert presets.parse(space, name) == preset.arch
  assert presets.space_of(name) == space
  # Other classes make no other architecture; nor does being alone.
  few = dataclasses.replace(space, classes=10)
  assert presets.parse(few, name) == preset.arch
  assert presets.parse(pinning.pin(space, preset.arch), name) == preset.arch
  for other in zoo.SPACES.values():
    if other is not space:
      with pytest.raises(errors.UserError, match=f'of space {space.name}'):
        presets.parse(other, name)
  ends = arch_lib.biggest(space), arch_lib.smallest(space)
  alone = pinning.pin(space, next(arch for arch in ends if arch != preset.arch))
  with pytest.raises(errors.UserError, match=r'arch\.'):
    presets.parse(alone, name)


def test_better_networks_cost_more():
  for space in 'bignas', 'attentive_nas', 'mobilenet_v1':
    found = presets.of_space(space).values()
    order = sorted(found, key=lambda preset: preset.macs)
    assert order == sorted(found, key=lambda preset: preset.top1)


@pytest.mark.parametrize(
  'text',
  [
    'huge',
    'no/such/file.json',
    '{"resolution": 24',
    '{}',
    '{"network": 3}',
    '{"network": {"name": "x"}}',
    '[24]',
    '',
    'x' * 300,  # no file name may be that long
  ],
  ids=lambda text: repr(text[:20]),
)
def test_parse_refuses(text):
  with pytest.raises(errors.UserError) as caught:
    presets.parse(MNIST, text)
  assert caught.value.field.startswith('arch')
  assert len(str(caught.value)) < 500
  with pytest.raises(errors.UserError, match='arch'):
    presets.space_of(text)


@pytest.mark.parametrize(
  ('content', 'reason'),
  [
    (b'\xff\xfe\x00', 'no UTF-8'),
    (b'\x08\x00\x00', 'valid JSON'),
    (b'[24]', 'a JSON object'),
    (b'{"resolution": 24', 'valid JSON'),
    (b'{"network": 3, "arch": 3}', 'got 3'),
    (b'{"network": {"name": "x"}, "arch": {}}', 'got'),
    (b'{"arch": {"resolution": 1' + b'0' * 5000 + b'}}', 'valid JSON'),
    (b'[' * 10**5, 'valid JSON'),
    (b' ' * (2**24 + 1), 'more than 16,777,216 bytes'),
  ],
  ids=lambda value: repr(value[:20]),
)
def test_a_file_that_holds_no_architecture_is_named(
  tmp_path, capsys, content, reason
):
  path = tmp_path / 'model.safetensors'
  path.write_bytes(content)
  arguments = ['--space=mnist', f'--arch={path}']
  assert cli.status(cost.main, arguments) == 2
  told = capsys.readouterr().err
  assert told.startswith(f'error: {path}') and told.count('\n') == 1
  assert reason in told
  with pytest.raises(errors.UserError, match=str(path)):
    presets.space_of(str(path))


def test_a_directory_and_other_things_that_are_no_file(tmp_path, capsys):
  for text in (tmp_path, '/dev/zero', 'a\x00b', 'a\nb'):
    assert cli.status(cost.main, ['--space=mnist', f'--arch={text}']) == 2
    told = capsys.readouterr().err
    assert 'or a file that holds JSON' in told and told.count('\n') == 1


def test_parse_reads_names_and_files(tmp_path):
  low, high = arch_lib.smallest(MNIST), arch_lib.biggest(MNIST)
  assert presets.parse(MNIST, 'smallest') == low
  assert presets.parse(MNIST, 'biggest') == high
  path = tmp_path / 'best.json'
  path.write_text(json.dumps({'arch': arch_lib.to_dict(high), 'top1': 1.0}))
  assert presets.parse(MNIST, str(path)) == high
  path.write_text('  ' + arch_lib.to_json(low) + '\n')
  assert presets.parse(MNIST, str(path)) == low


def test_a_child_brings_its_space_along(tmp_path):
  alone = pinning.pin(MNIST, arch_lib.smallest(MNIST))
  path = tmp_path / 'child.json'
  path.write_text(json.dumps({'network': dataclasses.asdict(alone)}))
  assert presets.space_of(str(path)) == alone


def test_list_tells_people_and_programs_the_same(capsys):
  assert cli.status(list_command.main, []) == 0
  captured = capsys.readouterr()
  (line,) = captured.out.splitlines()
  found = json.loads(line)
  assert [s['name'] for s in found['spaces']] == list(zoo.SPACES)
  assert {p['name'] for p in found['presets']} == set(presets.PRESETS)
  for space in found['spaces']:
    assert f'space {space["name"]}: {space["children"]:,} ' in captured.err
    assert space['smallest']['macs'] <= space['biggest']['macs']
  for one in found['presets']:
    (told,) = [t for t in captured.err.splitlines() if one['name'] in t]
    assert f'{one["macs"] / 1e6:.2f} M MACs' in told
    assert f'{100 * one["published"]["top1"]:.1f} % top-1' in told
    assert one['published']['source'] in told
    arch = json.dumps(one['arch'])
    assert (
      presets.parse(zoo.get(one['space']), arch).resolution
      == (one['resolution'])
    )


def test_list_of_one_space(capsys):
  assert cli.status(list_command.main, ['--space=bignas']) == 0
  found = json.loads(capsys.readouterr().out)
  assert [s['name'] for s in found['spaces']] == ['bignas']
  assert [p['name'] for p in found['presets']] == ['bignas_s', 'bignas_m']


def test_models_are_listed_by_pattern():
  every = bignas_jax.list_models()
  assert every == sorted({*every}) and {*presets.PRESETS} < {*every}
  assert bignas_jax.list_models('bignas_?') == [
    name for name in every if name.startswith('bignas_') and len(name) == 8
  ]
  found = bignas_jax.list_models(['mnist:*', 'alphanet_a5_small'])
  assert found == ['alphanet_a5_small', 'mnist:biggest', 'mnist:smallest']
  assert bignas_jax.list_models('nothing*') == []
