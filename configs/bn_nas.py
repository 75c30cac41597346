"""BN-NAS (ICCV 2021): batch norm scales say which operations are good.

  python -m bignas_jax.main --config=configs/bn_nas.py --workdir=DIR \
    --config.data.directory=IMAGENET
  python -m bignas_jax.search --workdir=DIR --strategy=batch_norm_scales \
    --max_macs=475e6
  python -m bignas_jax.main --config=configs/bn_nas.py:retrain \
    --config.arch=DIR/search/best.json --workdir=DIR2 \
    --config.data.directory=IMAGENET

arXiv:2108.07375: every step trains one random path, and of it only the last
batch norm of each operation; everything else stays as it was drawn. A layer's
operation is worth the mean size of that batch norm's scale. Published: 75.5 %
top-1 of the network of 473.5 M MACs, after it was trained alone.

  configs/bn_nas.py:small           5,000 digits, in minutes on two CPU cores
  configs/bn_nas.py:small_retrain   the network that its search chose, alone

Cost: about 0.03 h on 64 TPUv3 chips by the compiler's estimate, without input
(docs/systems.md, "On a pod").

As published: space, one random path a step, what is trained, ten epochs, batch,
the linear learning rate from 0.25, smoothing, the score. Otherwise: the rate
falls to 0 (published: to 5e-4), gradients are clipped entry by entry, the scale
of the last batch norm starts at 0 where a block has a shortcut, an exact
dynamic programme takes the place of the evolution, and 10,000 training images
are held out. `:small` trains all batch norms. `:retrain` has the epochs and the
rate of configs/us_net.py.
"""

import dataclasses

from bignas_jax.methods.loss_graph import Edge, Rule
from bignas_jax.methods.optim import Optimizer
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Config, Schedule
from bignas_jax.spaces import zoo
from bignas_jax.spaces.space import Space
from configs import mnist, us_net

_BN = zoo.get('bn_nas')
# BN-NAS's space for digits of 28 pixels.
SMALL = dataclasses.replace(
  _BN,
  name='bn_nas_small',
  resolution=(28,),
  train_resolution=(28,),
  stem_width=(16,),
  stages=(
    dataclasses.replace(_BN.stages[0], width=(16,)),
    dataclasses.replace(_BN.stages[1], width=(24,), kernel_size=(3, 5)),
    dataclasses.replace(
      _BN.stages[2], width=(32,), depth=(3,), kernel_size=(3, 5)
    ),
  ),
  head_width=(128,),
  channels=1,
  classes=10,
)
# One random path learns from the label.
EDGES = (Edge(student='random', teacher='label'),)


def get_config(variant: str = '') -> Config:
  variant = config_lib.variant(variant, 'small', 'retrain', 'small_retrain')
  rule = Rule(edges=EDGES, regularised='random', dropout=0.0)
  path = {'policy': 'uniform', 'random_children': 1}
  if variant == 'small':
    # In 300 steps, the last batch norms alone learn nothing from digits.
    optimizer = Optimizer(name='rmsprop', epsilon=1e-6, trains='batch_norms')
    return mnist.digits(
      SMALL,
      **path,
      rule=rule,
      steps=300,
      optimizer=optimizer,
      schedule=Schedule(peak=0.02, warmup_steps=50, decay_steps=13.7),
    )
  if variant == 'retrain':
    return retrained('bn_nas')
  if variant == 'small_retrain':
    return alone(SMALL)
  config = us_net.get_config()
  epoch = 1_271_167 / 512
  return dataclasses.replace(
    config,
    **path,
    space='bn_nas',
    rule=dataclasses.replace(rule, weight_decay=0.0, label_smoothing=0.1),
    batch_size=512,
    steps=round(10 * epoch),
    optimizer=Optimizer(
      name='sgd', momentum=0.9, clip_value=0.1, trains='last_batch_norms'
    ),
    schedule=Schedule(name='linear', peak=0.25, warmup_steps=0),
    eval_every=round(5 * epoch),
    checkpoint_every=round(epoch),
  )


def retrained(space: str) -> Config:
  """Returns a config that trains one network of a space alone."""
  return dataclasses.replace(
    us_net.get_config(), space=space, arch='biggest', policy='alone'
  )


def alone(space: Space) -> Config:
  """Returns a config that trains one network of a space on 5,000 digits."""
  schedule = Schedule(peak=0.005, warmup_steps=50, decay_steps=13.7)
  config = mnist.digits(space, arch='biggest', policy='alone', steps=300)
  return dataclasses.replace(config, schedule=schedule, eval_every=300)
