"""The layouts of Once-for-All's code base, and of those that began as it.

Source: the names and shapes of the published supernets' files. Batch norms'
running averages mean nothing in them: no child was calibrated. Layers with
choices have a wrapper, `conv.conv` and `bn.bn`, which a network of newer code
may lack; names are read without wrappers.
"""

import functools
import itertools

from bignas_jax.conversion import layouts
from bignas_jax.conversion.layouts import Layout, Tensor, Tree
from bignas_jax.spaces.space import Space
from bignas_jax.supernet.blocks import Block

_CONVS = {
  'expand': ('inverted_bottleneck.conv', 'inverted_bottleneck.bn'),
  'depthwise': ('depth_conv.conv', 'depth_conv.bn'),
  'project': ('point_linear.conv', 'point_linear.bn'),
}
_RESIDUAL_CONVS = {
  f'conv{i}': (f'conv{i}.conv', f'conv{i}.bn') for i in (1, 2, 3)
} | {'conv': ('conv', 'bn')}
RENAMED = (
  (r'^module\.', ''),
  (r'\.mobile_inverted_conv\.', '.conv.'),
  (r'\.conv\.conv\.weight$', '.conv.weight'),
  (r'\.bn\.bn\.', '.bn.'),
  (r'\.linear\.linear\.', '.linear.'),
)
AVERAGES = r'.*\.(running_mean|running_var|num_batches_tracked)'


def tensors(space: Space, *, head: str, last_conv: str = '') -> Tree:
  """Returns the tensors of a supernet's parameters, nested as they are.

  Args:
    space: space of the supernet.
    head: name of the head's first convolution and its batch norm.
    last_conv: name of the head's second convolution, if it has one.
  """
  last = {}
  if space.head_expand is not None:
    kernel = layouts.weight(f'{last_conv}.conv', layouts.POINTWISE)
    last = {'last_conv': kernel}
  return layouts.by_block(space, _block) | {
    'stem': {
      'conv': layouts.weight('first_conv.conv', layouts.CONVOLUTION),
      'bn': layouts.norm('first_conv.bn'),
    },
    'head': last
    | {
      'conv': layouts.weight(f'{head}.conv', layouts.POINTWISE),
      'bn': layouts.norm(f'{head}.bn'),
    },
    'classifier': layouts.with_bias('classifier.linear', layouts.DENSE),
  }


def _block(block: Block, number: int) -> Tree:
  root, stage = f'blocks.{number}.conv', block.stage
  own = layouts.convs(block, root, _CONVS)
  if stage.se is not None:
    dense = f'{root}.depth_conv.se.fc'
    own['se'] = {
      name: layouts.with_bias(f'{dense}.{name}', layouts.POINTWISE)
      for name in ('reduce', 'expand')
    }
  if stage.kernel_transform:
    own['transform'] = {
      str(size): Tensor(
        f'{root}.depth_conv.conv.{bigger}to{size}_matrix', layouts.MATRIX
      )
      for size, bigger in itertools.pairwise(stage.kernel_size)
    }
  if block.has_shortcut_conv:
    shortcut = f'blocks.{number}.shortcut.conv'
    own['shortcut'] = layouts.weight(shortcut, layouts.POINTWISE)
  return own


def residual_tensors(space: Space) -> Tree:
  """Returns the tensors of a supernet of residual blocks, as `tensors` does."""
  return layouts.by_block(space, _residual_block) | {
    'stem': {
      'conv': layouts.weight('input_stem.0.conv', layouts.CONVOLUTION),
      'bn': layouts.norm('input_stem.0.bn'),
    },
    'classifier': layouts.with_bias('classifier.linear', layouts.DENSE),
  }


def _residual_block(block: Block, number: int) -> Tree:
  """Returns the tensors of a block; the first two are parts of the stem."""
  in_stem = block.stage.block == 'conv'
  root = f'input_stem.{number + 1}' if in_stem else f'blocks.{number - 2}'
  own = layouts.convs(block, root, _RESIDUAL_CONVS)
  if block.has_shortcut_conv:
    shortcut = f'{root}.downsample'
    own['shortcut'] = layouts.weight(f'{shortcut}.conv', layouts.POINTWISE)
    own['shortcut_bn'] = layouts.norm(f'{shortcut}.bn')
  return own


MBV3 = Layout(
  tensors=functools.partial(
    tensors, head='final_expand_layer', last_conv='feature_mix_layer'
  ),
  renamed=RENAMED,
  unused=AVERAGES,
)
PROXYLESS = Layout(
  tensors=functools.partial(tensors, head='feature_mix_layer'),
  renamed=RENAMED,
  unused=AVERAGES,
)
RESNET50 = Layout(
  tensors=residual_tensors,
  # The residual convolution of the stem has a wrapper more than the others.
  renamed=(
    *RENAMED[:1],
    (r'^input_stem\.1\.conv\.', 'input_stem.1.'),
    *RENAMED[2:],
  ),
  unused=AVERAGES,
)
