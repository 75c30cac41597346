"""US-Net (ICCV 2019): one network of every width from 0.25 to 1.

  python -m bignas_jax.main --config=configs/us_net.py --workdir=DIR \
    --config.data.directory=IMAGENET

arXiv:1903.05134: the sandwich rule; the widest learns from the label, others
from its softmax; batch norms are shared, and calibrated for each width.
Published top-1 of MobileNet's widths 1, 0.75, 0.5 and 0.25 on ImageNet: 71.8,
69.5, 64.2 and 55.7 %.

  configs/us_net.py:small   5,000 digits, in minutes on two CPU cores

Cost: about 0.8 h on 64 TPUv3 chips by the compiler's estimate, without input
(docs/systems.md, "On a pod").

As published: rule, losses, epochs, batch, learning rate, weight decay.
Otherwise: widths in steps of 0.025, and 10,000 training images are held out for
selection.
"""

import dataclasses

from bignas_jax.data.sources import Data
from bignas_jax.methods.loss_graph import Rule
from bignas_jax.methods.optim import Optimizer
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Calibration, Config, Schedule, Search
from bignas_jax.spaces import zoo
from configs import mnist

_V1 = zoo.get('mobilenet_v1')
# MobileNet for digits of 28 pixels.
SMALL = dataclasses.replace(
  _V1,
  name='mobilenet_v1_small',
  resolution=(16, 20, 24, 28),
  train_resolution=(28,),
  stem_width=(32,),
  stages=(
    dataclasses.replace(_V1.stages[0], width=(32,)),
    dataclasses.replace(_V1.stages[1], width=(64,)),
    dataclasses.replace(_V1.stages[2], width=(128,)),
  ),
  multipliers=(0.25, 0.5, 0.75, 1.0),
  channels=1,
  classes=10,
)


def get_config(variant: str = '') -> Config:
  variant = config_lib.variant(variant, 'small')
  if variant == 'small':
    return mnist.digits(SMALL, steps=300)
  batch_size, train_images, epochs = 1024, 1_281_167 - 10_000, 250
  steps_per_epoch = train_images / batch_size
  return Config(
    space='mobilenet_v1',
    data=Data(
      name='imagenet2012',
      held_out=10_000,
      augment='crop',
      mean=(0.485, 0.456, 0.406),
      std=(0.229, 0.224, 0.225),
      eval_crop=0.875,
    ),
    steps=round(epochs * steps_per_epoch),
    batch_size=batch_size,
    rule=Rule(dropout=0.0, weight_decay=0.0, label_smoothing=0.0),
    optimizer=Optimizer(
      name='sgd', momentum=0.9, nesterov=True, weight_decay=1e-4
    ),
    schedule=Schedule(name='linear', peak=0.5, warmup_steps=0),
    dtype='bfloat16',
    eval_every=round(10 * steps_per_epoch),
    checkpoint_every=round(2 * steps_per_epoch),
    eval_batch_size=batch_size,
    calibration=Calibration(images=16_384, batch_size=batch_size),
    search=Search(mutants=64, evaluations=128),
  )
