"""A file in AttentiveNAS's layout becomes a run that can be searched."""

import collections
import dataclasses
import json

import jax
import layout_files
import networks
import numpy as np
import pytest
import tiny
import torch_writer

from bignas_jax import convert, evaluate, extract
from bignas_jax.conversion import attentive_nas, converted_run, layouts
from bignas_jax.spaces import zoo
from bignas_jax.supernet import network
from bignas_jax.values import errors

SPACE = dataclasses.replace(networks.ATTENTIVE, classes=10, channels=1)


def published(space, params):
  """Tensors as the published files have them: with more than is of use."""
  named = layout_files.tensors(
    attentive_nas.LAYOUT, space, {'params': params}
  ) | {
    'first_conv.bn.running_mean': np.ones(16),
    'blocks.1.shortcut.conv.weight': np.ones((16, 16, 1, 1)),
  }
  tensors = collections.OrderedDict(
    (layout_files.attentive_nas(name), np.asarray(array, np.float32))
    for name, array in named.items()
  )
  count = 'module.first_conv.bn.bn_tracking.0.num_batches_tracked'
  tensors[count] = np.asarray(3, np.float32)
  return tensors


@pytest.fixture(scope='module')
def params():
  return networks.cast(networks.random_params(SPACE), 'float32')


@pytest.fixture
def tensors(params):
  return published(SPACE, jax.device_get(params))


def test_parameters_are_the_files(params, tensors):
  converted = layouts.convert(attentive_nas.LAYOUT, SPACE, tensors, 'FILE')
  jax.tree.map(
    np.testing.assert_array_equal, converted.variables['params'], params
  )
  assert len(converted.unused) == 3


def test_the_names_are_those_of_the_published_file():
  """Names and shapes of a few tensors; `docs/convert.md` compares all."""
  space = zoo.ATTENTIVE_NAS
  params = layout_files.empty(network.shapes(space))
  tensors = layout_files.tensors(
    attentive_nas.LAYOUT, space, {'params': params}
  )
  named = {layout_files.attentive_nas(k): v.shape for k, v in tensors.items()}
  assert len(named) == 1468 - 1029
  root = 'module.blocks.7.mobile_inverted_conv.depth_conv'
  assert named[f'{root}.se.fc.reduce.weight'] == (48, 192, 1, 1)
  root = 'module.blocks.36.mobile_inverted_conv.point_linear'
  assert named[f'{root}.conv.conv.weight'] == (224, 1344, 1, 1)
  root = 'module.last_conv.feature_mix_layer'
  assert named[f'{root}.conv.conv.weight'] == (1984, 1344, 1, 1)


@pytest.mark.parametrize(
  ('change', 'text'),
  [
    (lambda t: t.popitem(last=False), '1 tensors missing'),
    (lambda t: t.update(extra=np.ones(1)), '1 tensors foreign.* extra'),
    (
      lambda t: t.update({k: v[:-1] for k, v in [*t.items()][:1]}),
      '1 tensors of another shape',
    ),
  ],
  ids=['missing', 'foreign', 'shape'],
)
def test_what_does_not_fit_is_listed(tensors, change, text):
  change(tensors)
  with pytest.raises(errors.UserError, match=text):
    layouts.convert(attentive_nas.LAYOUT, SPACE, tensors, 'FILE')


def test_many_that_do_not_fit_are_all_listed_before_the_error(tensors, capsys):
  names = [name for name in tensors if name.startswith('module.blocks.0')]
  for name in names:
    tensors[f'other.{name}'] = tensors.pop(name)
  with pytest.raises(errors.UserError) as caught:
    layouts.convert(attentive_nas.LAYOUT, SPACE, tensors, 'FILE')
  n = len(names)
  assert n > 5 and f'{n} tensors missing and {n} tensors foreign' in str(
    caught.value
  )
  lines = capsys.readouterr().err.splitlines()
  assert 'missing: blocks.0.conv.depth_conv.bn.bias' in lines
  # Wrappers are no part of a name.
  foreign = 'foreign: other.module.blocks.0.conv.depth_conv.bn.bias'
  assert foreign in lines and len(lines) == 2 * n


def test_an_alias_must_be_equal(tensors):
  name = 'module.classifier.linear.linear.bias'
  tensors[name.removeprefix('module.')] = tensors[name]
  layouts.convert(attentive_nas.LAYOUT, SPACE, tensors, 'FILE')
  tensors[name] = tensors[name] + 1
  with pytest.raises(errors.UserError, match='two tensors classifier'):
    layouts.convert(attentive_nas.LAYOUT, SPACE, tensors, 'FILE')


# The command.


def _fails(*_):
  raise OSError('the disk is gone')


@pytest.fixture
def arguments(tensors, tmp_path):
  value = {
    'state_dict': collections.OrderedDict(
      (name, torch_writer.view(array)) for name, array in tensors.items()
    ),
    'epoch': 360,
  }
  (tmp_path / 'weights.pth').write_bytes(torch_writer.stream(value))
  config = tmp_path / 'config.py'
  config.write_text(
    'import dataclasses, networks, tiny\n'
    'def get_config():\n'
    '  space = dataclasses.replace(\n'
    '    networks.ATTENTIVE, classes=10, channels=1)\n'
    '  return tiny.config(space=space)\n'
  )
  return [
    f'--config={config}',
    f'--checkpoint={tmp_path / "weights.pth"}',
    f'--workdir={tmp_path / "run"}',
    '--license=CC-BY-NC 4.0',
  ]


def test_children_of_a_converted_run_are_extracted_and_evaluated(
  arguments, params, tmp_path
):
  arguments = [*arguments, '--config.image_size=18']
  with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError):
    patch.setattr(converted_run, '_save', _fails)
    convert.main(arguments)
  result = convert.main(arguments)
  assert result['step'] == tiny.config().steps
  config = json.loads((tmp_path / 'run' / 'config.json').read_text())
  assert config['config']['image_size'] == 18
  origin = json.loads((tmp_path / 'run' / 'origin.json').read_text())
  assert origin['license'] == 'CC-BY-NC 4.0' and origin['not_called'] == []
  child = tmp_path / 'child'
  info = extract.main(
    [f'--workdir={tmp_path / "run"}', '--arch=smallest', f'--out={child}']
  )
  assert info['origin'] == origin
  score = evaluate.main([f'--child={child}', '--split=test'])
  assert score['top1'] == info['accuracy']['top1']
  with pytest.raises(errors.UserError, match='an empty directory'):
    convert.main(arguments)


def test_images_have_the_size_and_the_resizing_of_the_code_base(
  arguments, tmp_path, monkeypatch
):
  monkeypatch.setattr(converted_run, '_save', lambda *_: None)
  convert.main(arguments)
  text = (tmp_path / 'run' / 'config.json').read_text()
  config = json.loads(text)['config']
  assert config['image_size'] == 224 and max(SPACE.train_resolution) == 18
  assert config['space']['resize'] == 'pytorch'


def test_weights_that_are_not_finite_are_refused(tensors):
  name = 'module.classifier.linear.linear.bias'
  tensors[name] = np.full_like(tensors[name], np.nan)
  with pytest.raises(errors.UserError, match='1 tensors not finite'):
    layouts.convert(attentive_nas.LAYOUT, SPACE, tensors, 'FILE')


def test_nothing_is_written_if_the_file_does_not_fit(arguments, tmp_path):
  with pytest.raises(errors.UserError, match='tensors of another shape'):
    convert.main([*arguments, '--config.classes=9'])
  assert not (tmp_path / 'run').exists()
