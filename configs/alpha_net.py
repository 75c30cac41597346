"""AlphaNet (ICML 2021): AttentiveNAS's space, alpha-divergence distillation.

  python -m bignas_jax.main --config=configs/alpha_net.py --workdir=DIR \
    --config.data.directory=IMAGENET
  python -m bignas_jax.search --workdir=DIR --strategy=pareto_bins

arXiv:2102.07954: the sandwich rule with uniform children, and an adaptive
alpha-divergence in place of the KL divergence. Published top-1: 77.9 % (A0) to
80.8 % (A6) on ImageNet.

  configs/alpha_net.py:small   5,000 digits, in minutes on two CPU cores

Cost: about 5.8 h on 64 TPUv3 chips by the compiler's estimate, without input
(docs/systems.md, "On a pod").

As published: space, images of 224 pixels that children resize, optimiser,
learning rate, warm-up, clipping, label smoothing, dropout, drop-connect of the
last two stages, batch norm over 32 images, and the search: mutants and
crossovers of the best child of each bin of MACs. Otherwise: 10,000 training
images are held out for selection, and the search's numbers are chosen (672
children in generations of 16; the first ones span 16 bins; a mutant's entries
are redrawn with probability 0.1).
"""

import dataclasses

from bignas_jax.data.sources import Data
from bignas_jax.methods.loss_graph import Edge, Rule
from bignas_jax.methods.optim import Optimizer
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Calibration, Config, Schedule, Search
from bignas_jax.spaces.zoo import MNIST
from configs import mnist

EDGES = (
  Edge(student='biggest', teacher='label'),
  Edge(student='smallest', teacher='biggest', loss='alpha'),
  Edge(student='random', teacher='biggest', loss='alpha'),
)


def get_config(variant: str = '') -> Config:
  variant = config_lib.variant(variant, 'small')
  if variant == 'small':
    # One resolution: each is a program to compile, or two that score children.
    only = (28,)
    space = dataclasses.replace(MNIST, resolution=only, train_resolution=only)
    rule = Rule(dropout=0.0, edges=EDGES)
    return mnist.digits(space, rule=rule, steps=300)
  batch_size, train_images, epochs = 2048, 1_281_167 - 10_000, 360
  steps_per_epoch = train_images / batch_size
  return Config(
    space='attentive_nas',
    data=Data(
      name='imagenet2012',
      held_out=10_000,
      augment='autoaugment',
      mean=(0.485, 0.456, 0.406),
      std=(0.229, 0.224, 0.225),
      eval_crop=0.875,
    ),
    steps=round(epochs * steps_per_epoch),
    batch_size=batch_size,
    rule=Rule(
      edges=EDGES,
      dropout=0.2,
      drop_connect=0.2,
      drop_connect_stages=2,
      weight_decay=1e-5,
      label_smoothing=0.1,
    ),
    optimizer=Optimizer(
      name='sgd', momentum=0.9, nesterov=True, clip_value=1.0
    ),
    schedule=Schedule(
      name='cosine', peak=0.8, warmup_steps=round(5 * steps_per_epoch)
    ),
    image_size=224,
    dtype='bfloat16',
    bn_group_size=32,
    eval_every=round(10 * steps_per_epoch),
    checkpoint_every=round(2 * steps_per_epoch),
    eval_batch_size=batch_size,
    calibration=Calibration(images=16_384, batch_size=batch_size),
    search=Search(mutants=512, evaluations=672),
  )
