"""Files in Once-for-All's layouts become parameters of its spaces."""

import dataclasses
import hashlib
import json

import jax
import layout_files
import networks
import numpy as np
import pytest
import torch_writer

from bignas_jax import convert, extract
from bignas_jax.conversion import layouts, once_for_all, published_files
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import zoo, zoo_elastic
from bignas_jax.supernet import network
from bignas_jax.values import errors

# ProxylessNAS has a head of one convolution.
PROXYLESS = dataclasses.replace(
  networks.OFA, name='little_proxyless', head_expand=None, activation='relu6'
)
LITTLE = {'ofa_mbv3': networks.OFA, 'ofa_proxyless': PROXYLESS}
NEWER = {'plain': lambda name: name, 'module': lambda name: f'module.{name}'}
NAMINGS = NEWER | {
  'published': layout_files.once_for_all,
  'wrapped': layout_files.wrapped,
}
RESIDUAL_NAMINGS = {
  'plain': layout_files.once_for_all_residual_newer,
  'published': layout_files.once_for_all_residual,
}


@pytest.fixture(params=LITTLE)
def file(request):
  return _file(request.param, LITTLE[request.param])


def _file(name, space):
  """A layout, its space, random parameters, and these as its tensors."""
  layout = published_files.LAYOUTS[name]
  params = jax.device_get(
    networks.cast(networks.random_params(space), 'float32')
  )
  named = layout_files.tensors(layout, space, {'params': params})
  return layout, space, params, layout_files.with_averages(named)


@pytest.mark.parametrize('naming', NAMINGS)
def test_parameters_are_the_files_however_layers_are_wrapped(file, naming):
  _check_parameters(file, NAMINGS[naming])


@pytest.mark.parametrize('naming', RESIDUAL_NAMINGS)
def test_parameters_of_residual_networks_are_the_files(naming):
  stages = networks.RESIDUAL.stages[1:-1]  # the others are not of this family
  space = dataclasses.replace(networks.RESIDUAL, stages=stages)
  file = _file('ofa_resnet50', space)
  _check_parameters(file, RESIDUAL_NAMINGS[naming])


def _check_parameters(file, rename):
  layout, space, params, named = file
  tensors = {rename(name): array for name, array in named.items()}
  converted = layouts.convert(layout, space, tensors, 'FILE')
  assert list(converted.variables) == ['params']
  jax.tree.map(
    np.testing.assert_array_equal, converted.variables['params'], params
  )
  assert {name.split('.')[-1] for name in converted.unused} == {
    *('running_mean', 'running_var', 'num_batches_tracked')
  }


def test_kernels_of_a_child_are_those_of_the_public_formula(file):
  """Each filter, row by row, times the transposed matrix, as PyTorch has it."""
  layout, space, _, named = file
  params = layouts.convert(layout, space, named, 'FILE').variables
  child = network.slice_child(space, params, arch_lib.smallest(space))
  kernel = child['params']['stage3']['first']['depthwise']['kernel']
  root = 'blocks.4.conv.depth_conv.conv'
  filters = named[f'{root}.weight']
  for bigger, size in (7, 5), (5, 3):
    centre = filters[:, :, 1:-1, 1:-1].reshape(-1, size**2)
    filters = centre @ named[f'{root}.{bigger}to{size}_matrix'].T
    filters = filters.reshape(-1, 1, size, size)
  expected = filters.transpose(2, 3, 1, 0)[..., : kernel.shape[-1]]
  np.testing.assert_allclose(kernel, expected, rtol=1e-4, atol=1e-5)


def test_a_missing_matrix_is_named(file):
  layout, space, _, named = file
  del named['blocks.1.conv.depth_conv.conv.5to3_matrix']
  with pytest.raises(errors.UserError, match=r'1 tensors missing.*5to3_matrix'):
    layouts.convert(layout, space, named, 'FILE')


# How the digests of the sorted lines `NAME<tab>SHAPE` of the published files
# begin. Another one means that published files are no longer read.
PUBLISHED = {
  'ofa_mbv3': '3935b34e593b56fb1450d5aab75dfd17',
  'ofa_proxyless': '180f39ff004305b7493147eb3cd9c3fe',
  'ofa_resnet50': '94d71eaadebc979eaa40b09284c448cb',
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_names_and_shapes_are_those_of_the_published_file(name):
  layout, space = published_files.LAYOUTS[name], zoo.get(name)
  params = layout_files.empty(network.shapes(space))
  tensors = layout_files.with_averages(
    layout_files.tensors(layout, space, {'params': params})
  )
  rename = layout_files.once_for_all
  if name == 'ofa_resnet50':
    rename = layout_files.once_for_all_residual
  tensors = {rename(k): v for k, v in tensors.items()}
  lines = sorted(
    f'{k}\t{",".join(map(str, array.shape))}\n' for k, array in tensors.items()
  )
  digest = hashlib.sha256(''.join(lines).encode()).hexdigest()
  assert digest.startswith(PUBLISHED[name])
  layouts.convert(layout, space, tensors, 'FILE')


def test_wider_files_are_of_the_wider_space():
  wide = zoo_elastic.OFA_MBV3_W12
  params = layout_files.empty(network.shapes(wide))
  tensors = layout_files.tensors(once_for_all.MBV3, wide, {'params': params})
  layouts.convert(once_for_all.MBV3, wide, tensors, 'FILE')
  with pytest.raises(errors.UserError, match='tensors of ofa_mbv3:'):
    layouts.convert(once_for_all.MBV3, zoo.get('ofa_mbv3'), tensors, 'FILE')


@pytest.mark.slow
def test_children_of_a_converted_run_are_named_as_there(tmp_path):
  space = dataclasses.replace(networks.OFA, classes=10, channels=1)
  params = networks.cast(networks.random_params(space), 'float32')
  named = layout_files.tensors(once_for_all.MBV3, space, {'params': params})
  value = {
    'state_dict': {
      layout_files.once_for_all(name): torch_writer.view(array)
      for name, array in layout_files.with_averages(named).items()
    }
  }
  (tmp_path / 'weights.pth').write_bytes(torch_writer.archive(value))
  config = tmp_path / 'config.py'
  config.write_text(
    'import dataclasses, networks, tiny\n'
    'def get_config():\n'
    '  space = dataclasses.replace(networks.OFA, classes=10, channels=1)\n'
    '  return tiny.config(space=space)\n'
  )
  run = f'--workdir={tmp_path / "run"}'
  file = f'--checkpoint={tmp_path / "weights.pth"}'
  convert.main([f'--config={config}', '--layout=ofa_mbv3', file, run])
  arch = {'ks': [5, 3, 0, 7, 3], 'e': [1, 2, 0, 3, 2], 'd': [2, 2], 'r': 18}
  info = extract.main(
    [run, f'--arch={json.dumps(arch)}', f'--out={tmp_path / "child"}']
  )
  assert info['arch']['kernel_size'] == [3, 5, 3, 3, 7, 3]
  assert info['arch']['expand_ratio'] == [1, 1, 2, 1, 3, 2]
