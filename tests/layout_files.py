"""Tensors of networks as the files of other code bases name them."""

import re

import jax
import numpy as np

from bignas_jax.conversion import layouts

_DYNAMIC = re.compile(r'blocks\.[1-9]')


def tensors(layout, space, variables):
  """Arrays by the layout's names, from `params` and, if any, `batch_stats`."""
  _, named = layouts.variables_of(layout, space)
  out = {}

  def write(one, array):
    if not isinstance(one, list):
      one, array = [one], [array]
    for each, own in zip(one, array, strict=True):
      if each.order == layouts.POINTWISE:
        own = own.T[:, :, None, None]
      else:
        own = own.transpose(np.argsort(each.order))
      out[each.name] = np.array(own, order='C')

  leaf = lambda node: isinstance(node, list | layouts.Tensor)  # noqa: E731
  jax.tree.map(write, named, variables, is_leaf=leaf)
  return out


def empty(shapes):
  """Arrays of zeros."""
  return jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)


def with_averages(tensors):
  """With the running averages that PyTorch keeps of each batch norm."""
  out = {}
  for name, array in tensors.items():
    out[name] = array
    if name.endswith('.bn.weight'):
      root = name.removesuffix('weight')
      out[f'{root}running_mean'] = np.zeros_like(array)
      out[f'{root}running_var'] = np.ones_like(array)
      out[f'{root}num_batches_tracked'] = np.zeros((), np.int64)
  return out


def wrapped(name):
  """A name with the wrappers of a layer that has choices."""
  name = re.sub(r'\.conv\.weight$', '.conv.conv.weight', name)
  name = name.replace('.linear.', '.linear.linear.')
  return name.replace('.bn.', '.bn.bn.')


def once_for_all(name):
  """A name as in Once-for-All's published files."""
  if _DYNAMIC.match(name):
    name = wrapped(name)
  return re.sub(r'^(blocks\.\d+)\.conv\.', r'\1.mobile_inverted_conv.', name)


def once_for_all_residual(name):
  """A name as in Once-for-All's published file of residual networks."""
  return wrapped(once_for_all_residual_newer(name))


def once_for_all_residual_newer(name):
  """The same without wrappers: one convolution is inside a residual block."""
  return name.replace('input_stem.1.', 'input_stem.1.conv.')


def attentive_nas(name):
  """A name as in AttentiveNAS's published files."""
  name = re.sub(
    r'^(blocks\.\d+)\.conv\.', r'\1.mobile_inverted_conv.', wrapped(name)
  )
  return f'module.{name}'
