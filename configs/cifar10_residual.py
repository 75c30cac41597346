"""A residual supernet of 5 to 53 million multiply-adds for CIFAR-10.

  python -m bignas_jax.main --config=configs/cifar10_residual.py --workdir=DIR \
    --config.data.directory=FOLDER

FOLDER is that of configs/cifar10.py, whose networks are smaller. Blocks are two
dense 3x3 convolutions. Variants:

  configs/cifar10_residual.py:long   100 epochs with RandAugment: an accelerator

On two CPU cores, with MALLOC_ARENA_MAX=1 in the environment, a sandwich step of
128 images took 2.2 s, and 1.5 s with GLIBC_TUNABLES=glibc.malloc.hugetlb=1, too
(docs/performance.md).
"""

import dataclasses

from bignas_jax.methods.loss_graph import Rule
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Config
from bignas_jax.spaces.space import Space
from bignas_jax.spaces.stage import Stage
from configs import cifar10


def _stage(width: tuple[int, ...], depth: tuple[int, ...], stride: int):
  return Stage(
    width=width,
    depth=depth,
    kernel_size=(3,),
    expand_ratio=(100,),
    stride=stride,
    block='basic',
    activation='relu',
    shortcut='projected',
  )


SPACE = Space(
  name='cifar10_residual',
  resolution=(24, 28, 32),
  train_resolution=(24, 32),
  stem_width=(16,),
  stem_stride=1,
  stages=(
    _stage((16,), (1,), 1),
    _stage((16, 24, 32, 40, 48), (1, 2), 2),
    _stage((48, 56, 64, 72, 80, 88, 96), (1, 2, 3), 2),
  ),
  head_width=(),
  activation='relu',
  padding='symmetric',
  bn_epsilon=1e-5,
  classes=10,
)


def get_config(variant: str = '') -> Config:
  variant = config_lib.variant(variant, 'long')
  epochs = 100 if variant == 'long' else 6
  config = cifar10.get_config()
  steps_per_epoch = 45_000 / config.batch_size
  data = dataclasses.replace(config.data, min_crop_area=0.6)
  if variant == 'long':
    data = dataclasses.replace(data, augment='randaugment')
  return dataclasses.replace(
    config,
    space=SPACE,
    random_children=1,
    data=data,
    steps=round(epochs * steps_per_epoch),
    rule=Rule(dropout=0.0, label_smoothing=0.0, weight_decay=5e-4),
    schedule=dataclasses.replace(
      config.schedule, decay_steps=epochs / 100 * steps_per_epoch
    ),
    eval_every=round(epochs / 4 * steps_per_epoch),
  )
