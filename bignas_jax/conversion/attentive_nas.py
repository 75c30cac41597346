"""The layout of the AttentiveNAS code base, which AlphaNet's is as well.

Source: the names and shapes of the published supernets' files. Batch norms'
running averages mean nothing in them: no child was calibrated.
"""

from typing import Any

from bignas_jax.conversion.layouts import (
  CONVOLUTION,
  DENSE,
  POINTWISE,
  VECTOR,
  Layout,
  Tensor,
)
from bignas_jax.spaces.space import Space, Stage
from bignas_jax.supernet import batch_norm, network
from bignas_jax.supernet.blocks import Block


def tensors(space: Space) -> dict[str, Any]:
  """Returns the tensors of a supernet's parameters, nested as they are."""
  stages, number = {}, 0
  for i, stage in enumerate(space.stages):
    described = network.stage_blocks(space, i, batch_norm.Pooling())
    own = {'first': _block(described['first'], number)}
    if 'rest' in described:
      numbers = range(number + 1, number + max(stage.depth))
      rest = [_block(described['rest'], n) for n in numbers]
      own['rest'] = _stacked(rest)
    stages[f'stage{i + 1}'] = own
    number += max(stage.depth)
  mixed = Tensor('last_conv.feature_mix_layer.conv.conv.weight', POINTWISE)
  return stages | {
    'stem': {
      'conv': {'kernel': Tensor('first_conv.conv.conv.weight', CONVOLUTION)},
      'bn': _norm('first_conv'),
    },
    'head': {
      'conv': _pointwise('last_conv.final_expand_layer'),
      'bn': _norm('last_conv.final_expand_layer'),
      'last_conv': {'kernel': mixed},
    },
    'classifier': {
      'kernel': Tensor('classifier.linear.linear.weight', DENSE),
      'bias': Tensor('classifier.linear.linear.bias', VECTOR),
    },
  }


def _block(block: Block, number: int) -> dict[str, Any]:
  root = f'blocks.{number}.conv'
  depthwise = Tensor(f'{root}.depth_conv.conv.conv.weight', CONVOLUTION)
  own = {
    'depthwise': {'kernel': depthwise},
    'depthwise_bn': _norm(f'{root}.depth_conv'),
    'project': _pointwise(f'{root}.point_linear'),
    'project_bn': _norm(f'{root}.point_linear'),
  }
  if block.stage.has_expand:
    own['expand'] = _pointwise(f'{root}.inverted_bottleneck')
    own['expand_bn'] = _norm(f'{root}.inverted_bottleneck')
  own |= _squeeze_excite(block.stage, f'{root}.depth_conv.se.fc')
  if block.has_shortcut_conv:
    own['shortcut'] = _pointwise(f'blocks.{number}.shortcut')
  return own


def _squeeze_excite(stage: Stage, root: str) -> dict[str, Any]:
  if stage.se is None:
    return {}
  return {
    'se': {
      name: {
        'kernel': Tensor(f'{root}.{name}.weight', POINTWISE),
        'bias': Tensor(f'{root}.{name}.bias', VECTOR),
      }
      for name in ('reduce', 'expand')
    }
  }


def _pointwise(root: str) -> dict[str, Tensor]:
  return {'kernel': Tensor(f'{root}.conv.conv.weight', POINTWISE)}


def _norm(root: str) -> dict[str, Tensor]:
  return {
    'scale': Tensor(f'{root}.bn.bn.weight', VECTOR),
    'bias': Tensor(f'{root}.bn.bn.bias', VECTOR),
  }


def _stacked(blocks: list[Any]) -> Any:
  """Returns equal trees of tensors as one tree of lists."""
  if isinstance(blocks[0], Tensor):
    return blocks
  return {key: _stacked([one[key] for one in blocks]) for key in blocks[0]}


LAYOUT = Layout(
  tensors=tensors,
  renamed=((r'^module\.', ''), (r'\.mobile_inverted_conv\.', '.conv.')),
  # Every block has a shortcut there, and uses it where the width changes.
  unused=r'.*\.(running_mean|running_var|num_batches_tracked)'
  r'|blocks\.\d+\.shortcut\.conv\.conv\.weight',
)
