"""Little networks that have all the features of the big spaces, and numbers."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import tiny

from bignas_jax.costs import counting
from bignas_jax.deploy import package
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning, zoo, zoo_elastic, zoo_residual
from bignas_jax.spaces.stage import Stage
from bignas_jax.supernet import network

# One feature of each real space that the other lacks: expand ratio 1, squeeze
# of the input, here as a choice, one head convolution, TensorFlow's padding ...
BIGNAS = dataclasses.replace(
  zoo.BIGNAS,
  name='little_bignas',
  resolution=(18,),
  train_resolution=(18,),
  stem_width=(8,),
  stages=(
    dataclasses.replace(zoo.BIGNAS.stages[0], width=(16, 24), depth=(1,)),
    dataclasses.replace(
      zoo.BIGNAS.stages[3], width=(16, 32), depth=(1, 2), se_choice=True
    ),
  ),
  head_width=(24, 40),
  classes=7,
)
# ... and three expand ratios, squeeze of the hidden width or none, two head
# convolutions, symmetric padding.
ATTENTIVE = dataclasses.replace(
  zoo.ATTENTIVE_NAS,
  name='little_attentive_nas',
  resolution=(18,),
  train_resolution=(18,),
  stem_width=(8, 16),
  stages=(
    dataclasses.replace(
      zoo.ATTENTIVE_NAS.stages[4],
      width=(16, 24),
      depth=(1, 2, 3),
      kernel_size=(3,),
    ),
    dataclasses.replace(
      zoo.ATTENTIVE_NAS.stages[1],
      width=(16, 24),
      depth=(1,),
      expand_ratio=(6,),
    ),
  ),
  head_width=(24, 40),
  classes=7,
)
LITTLE = {space.name: space for space in (BIGNAS, ATTENTIVE)}
for _space in LITTLE.values():
  assert {stage.stride for stage in _space.stages} == {1, 2}

# Once-for-All: choices per block, kernels made of bigger ones, identity
# shortcuts, two activations.
OFA = dataclasses.replace(
  zoo_elastic.OFA_MBV3,
  name='little_ofa',
  resolution=(18,),
  train_resolution=(18,),
  stem_width=(8,),
  stages=(
    dataclasses.replace(zoo_elastic.OFA_MBV3.stages[0], width=(8,)),
    dataclasses.replace(
      zoo_elastic.OFA_MBV3.stages[4],
      width=(16,),
      depth=(1, 2, 3),
      kernel_size=(3, 5),
      expand_ratio=(1, 3),
    ),
    dataclasses.replace(
      zoo_elastic.OFA_MBV3.stages[1],
      width=(16,),
      depth=(1,),
      kernel_size=(3, 5, 7),
      expand_ratio=(2, 3),
    ),
  ),
  head_width=(24,),
  classes=7,
)
# One width multiplier for all layers, private batch norms, no head.
MOBILE = dataclasses.replace(
  zoo_elastic.MOBILENET_V1,
  name='little_mobilenet_v1',
  resolution=(18,),
  train_resolution=(18,),
  stem_width=(16,),
  stages=(
    dataclasses.replace(zoo_elastic.MOBILENET_V1.stages[0], width=(24,)),
    dataclasses.replace(zoo_elastic.MOBILENET_V1.stages[1], width=(32,)),
  ),
  multipliers=(0.25, 0.5, 1.0),
  private_norms='width',
  classes=7,
)
# Residual blocks of all kinds and projections, with choices per block; a big
# stem with pooling and more convolutions, of which some may be left out.
# Preactivated blocks come first and last, where they change stem and head.
RESIDUAL = dataclasses.replace(
  zoo_residual.RESNET50,
  name='little_resnet',
  resolution=(18,),
  train_resolution=(18,),
  stem_width=(8, 16),
  stem_stride=1,
  stages=(
    dataclasses.replace(
      zoo_residual.WRN_28_10.stages[0], width=(8, 16), depth=(1,)
    ),
    dataclasses.replace(
      zoo_residual.OFA_RESNET50.stages[0], width=(8, 16), depth=(0, 1, 2)
    ),
    dataclasses.replace(zoo_residual.OFA_RESNET50.stages[1], width=(16,)),
    dataclasses.replace(
      zoo_residual.OFA_RESNET50.stages[3],
      width=(16, 32),
      depth=(1, 2),
      expand_ratio=(25, 50, 100),
    ),
    dataclasses.replace(
      zoo_residual.RESNET18.stages[1], width=(32, 48), depth=(1, 2)
    ),
    dataclasses.replace(
      zoo_residual.WRN_28_10.stages[0], width=(32, 48), depth=(1, 2)
    ),
  ),
  per_block=True,
  multipliers=(),
  classes=7,
)
LITTLE |= {s.name: s for s in (OFA, MOBILE, RESIDUAL)}
# Operations with parameters of their own, one of which does nothing.
ONE_OF = dataclasses.replace(
  zoo.ATTENTIVE_NAS,
  name='little_one_of',
  resolution=(18,),
  train_resolution=(18,),
  stem_width=(8,),
  per_block=True,
  stages=(
    dataclasses.replace(
      zoo.ATTENTIVE_NAS.stages[4],
      width=(16,),
      depth=(2, 3),
      kernel_size=(3, 5),
      expand_ratio=(0, 3),
      stride=2,
      separate_weights=True,
    ),
    dataclasses.replace(
      zoo.ATTENTIVE_NAS.stages[1],
      width=(16, 24),
      depth=(1, 2),
      kernel_size=(3,),
      expand_ratio=(0, 1),
      stride=1,
      shortcut='identity',
      separate_weights=True,
    ),
  ),
  head_width=(24,),
  classes=7,
)
# Layers that are sums of parallel members: of all, where the shape stays, a
# stride in the convolution or by pooling, a width that changes, groups.
PARALLEL = dataclasses.replace(
  zoo.ATTENTIVE_NAS,
  name='little_parallel',
  resolution=(18,),
  train_resolution=(18,),
  stem_width=(8,),
  stages=(
    Stage(
      width=(16,),
      depth=(2, 3),
      kernel_size=(3,),
      expand_ratio=(1,),
      stride=2,
      block='strided_conv',
      activation='relu',
      shortcut='none',
      parallel=(1, 2, 16, 32, 44, 65, 127),
      groups=2,
    ),
    Stage(
      width=(16,),
      depth=(1,),
      kernel_size=(3,),
      expand_ratio=(1,),
      stride=2,
      block='conv',
      activation='relu',
      shortcut='none',
      parallel=(3, 67),
    ),
  ),
  activation='relu',
  head_width=(),
  head_expand=None,
  per_block=True,
  classes=7,
)
# The same, with one kernel for all members of a layer.
SHARED = dataclasses.replace(
  PARALLEL,
  name='little_shared',
  stages=tuple(
    dataclasses.replace(stage, shared_kernel=True, zero_start=True)
    for stage in PARALLEL.stages
  ),
)
# A single network, for `convert` only.
LITE = dataclasses.replace(
  zoo_elastic.EFFICIENTNET_LITE0,
  name='little_lite',
  resolution=(18,),
  train_resolution=(18,),
  stem_width=(8,),
  stages=tuple(
    dataclasses.replace(stage, width=(8 * (i + 1),), depth=(i + 1,))
    for i, stage in enumerate(zoo_elastic.EFFICIENTNET_LITE0.stages[:3])
  ),
  head_width=(24,),
  classes=2,
)
BATCH = 2


# Random numbers, in float64: the programs take them in their own type.


def random_params(space, seed=0):
  """Every path matters: no scale is 0, no bias is 0."""
  rng = np.random.default_rng(seed)

  def draw(path, shape):
    x = rng.normal(size=shape.shape)
    kind = path[-1].key
    if kind in ('3', '5'):  # matrices that make kernels
      return x / np.sqrt(shape.shape[-1])
    if kind == 'kernel':
      return x / np.sqrt(shape.shape[-2])
    return 0.3 * x + (kind == 'scale')

  return jax.tree_util.tree_map_with_path(draw, network.shapes(space))


def random_stats(space, seed=1):
  rng = np.random.default_rng(seed)
  shapes = network.stats_shapes(space)
  draw = {
    'mean': lambda s: rng.normal(size=s.shape) / 3,
    'var': lambda s: rng.uniform(0.3, 2, s.shape),
  }
  return jax.tree_util.tree_map_with_path(
    lambda path, s: draw[path[-1].key](s), shapes
  )


def random_images(space, resolution, batch=BATCH, seed=2):
  """Images that differ in brightness, and what to weight the logits by."""
  rng = np.random.default_rng(seed)
  images = rng.normal(size=(batch, resolution, resolution, space.channels))
  images = images * (1 + np.arange(batch))[:, None, None, None]
  return images, rng.normal(size=(batch, space.classes))


def cast(tree, dtype):
  return jax.tree.map(lambda a: jnp.asarray(a, dtype), tree)


def archs_of(space, n, seed=0):
  rng = np.random.default_rng(seed)
  return [arch_lib.sample(space, rng) for _ in range(n)]


def assert_close(actual, expected, tolerance, least=1e-3):
  """Within a fraction of each leaf's scale.

  Where a whole leaf is next to nothing, a fraction of `least` times the
  largest leaf's.
  """
  chex.assert_trees_all_equal_structs(actual, expected)
  leaves = jax.tree_util.tree_leaves_with_path(expected)
  biggest = max(abs(np.asarray(leaf)).max() for _, leaf in leaves)
  for (path, b), a in zip(leaves, jax.tree.leaves(actual), strict=True):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape, path
    scale = max(abs(b).max(), least * biggest)
    error = abs(a - b).max()
    assert error <= tolerance * scale, (
      f'{jax.tree_util.keystr(path)}: off by {error:.2g} of {scale:.2g}'
    )


def random_child(space, seed=0):
  """A child of random architecture and weights, as if it were extracted."""
  (arch,) = archs_of(space, 1, seed)
  variables = {
    'params': random_params(space),
    'batch_stats': random_stats(space),
  }
  own = network.slice_child(space, variables, arch)
  cost = counting.cost(space, arch)
  return package.Child(
    arch,
    pinning.pin(space, arch),
    jax.tree.map(lambda a: np.asarray(a, np.float32), own),
    {
      'space': space.name,
      'arch': arch_lib.to_dict(arch),
      'input': {
        'resolution': arch.resolution,
        'channels': space.channels,
        'mean': [0.13] * space.channels,
        'std': [0.31] * space.channels,
        'image_size': max(space.train_resolution),
      },
      'classes': space.classes,
      'class_names': [f'class {i}' for i in range(space.classes)],
      'macs': cost.macs,
      'params': cost.params,
      'calibration': {'images': 20, 'seed': 0},
      'data': dataclasses.asdict(tiny.config().data),
    },
  )
