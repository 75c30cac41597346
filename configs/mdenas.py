"""MDENAS (ICCV 2019): operations are likelier after they were more accurate.

  python -m bignas_jax.main --config=configs/mdenas.py --workdir=DIR \
    --config.data.directory=IMAGENET
  python -m bignas_jax.main --config=configs/mdenas.py:retrain \
    --config.arch=DIR/most_probable.json --workdir=DIR2 \
    --config.data.directory=IMAGENET

arXiv:1905.07529: every epoch trains one network, drawn from a distribution with
a probability for each operation of each layer. After the epoch, probability
moves to operations that were more accurate on validation images after no more
epochs. The most probable network is trained again. Published: 75.2 % top-1.

  configs/mdenas.py:small           5,000 digits, in minutes on two CPU cores
  configs/mdenas.py:small_retrain   the network that it chose, alone

Cost: about 0.3 h on 64 TPUv3 chips by the compiler's estimate, without input
(docs/systems.md, "On a pod").

As published: space, one network an epoch, the authors' rule and its rate,
accuracy by each batch's own statistics, 100 epochs, batch, learning rate.
Otherwise: momentum, weight decay and the sizes of the splits are chosen. With
--config.mdenas.accuracy=mean, which is not published, far more is learnt
(docs/results.md); `:small` has it. `:retrain` has the epochs and the rate of
configs/us_net.py.
"""

import dataclasses
from typing import Any

from bignas_jax.methods.loss_graph import Rule
from bignas_jax.methods.optim import Optimizer
from bignas_jax.policies.mdenas import Settings
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Config, Recovery, Schedule
from bignas_jax.spaces import zoo
from bignas_jax.spaces.space import Space
from configs import bn_nas, mnist, us_net

_MDENAS = zoo.get('mdenas')
# MDENAS's space for digits of 28 pixels: 64 networks.
SMALL = dataclasses.replace(
  _MDENAS,
  name='mdenas_small',
  resolution=(28,),
  train_resolution=(28,),
  stem_width=(16,),
  stages=(
    dataclasses.replace(_MDENAS.stages[0], width=(16,)),
    dataclasses.replace(
      _MDENAS.stages[1],
      width=(24,),
      depth=(1,),
      kernel_size=(3, 5),
      expand_ratio=(1, 6),
    ),
    dataclasses.replace(
      _MDENAS.stages[2],
      width=(32,),
      depth=(2,),
      kernel_size=(3, 5),
      expand_ratio=(1, 6),
    ),
  ),
  head_width=(128,),
  channels=1,
  classes=10,
)
RULE = Rule(edges=bn_nas.EDGES, regularised='random', dropout=0.0)
# A network that was hardly trained yet is no sign that training has collapsed.
RECOVERY = Recovery(remains=0.0)


def get_config(variant: str = '') -> Config:
  variant = config_lib.variant(variant, 'small', 'retrain', 'small_retrain')
  if variant == 'retrain':
    return bn_nas.retrained('mdenas')
  if variant == 'small_retrain':
    return bn_nas.alone(SMALL)
  if variant == 'small':
    settings = Settings(
      epoch_steps=5, validation_batches=2, rate=0.02, accuracy='mean'
    )
    return digits(SMALL, policy='mdenas', mdenas=settings, steps=600)
  return images(
    space='mdenas',
    policy='mdenas',
    mdenas=Settings(epoch_steps=round(EPOCH), validation_batches=97),
  )


BATCH_SIZE, SECOND = 512, 50_000
EPOCH = (1_281_167 - 10_000 - SECOND) / BATCH_SIZE  # in steps


def images(**changes: Any) -> Config:
  """Returns a config that learns a distribution on ImageNet."""
  config = us_net.get_config()
  return dataclasses.replace(
    config,
    data=dataclasses.replace(config.data, second=SECOND),
    rule=dataclasses.replace(RULE, weight_decay=0.0, label_smoothing=0.0),
    batch_size=BATCH_SIZE,
    steps=round(100 * EPOCH),
    recovery=RECOVERY,
    optimizer=Optimizer(name='sgd', momentum=0.9, weight_decay=4e-5),
    schedule=Schedule(name='cosine', peak=0.025, warmup_steps=0),
    eval_every=round(10 * EPOCH),
    checkpoint_every=round(EPOCH),
    **changes,
  )


def digits(space: Space, **changes: Any) -> Config:
  """Returns a config that learns a distribution on 5,000 digits."""
  config = mnist.digits(space, rule=RULE, **changes)
  data = dataclasses.replace(config.data, second=1000)
  schedule = Schedule(peak=0.005, warmup_steps=50, decay_steps=13.7)
  return dataclasses.replace(
    config,
    data=data,
    schedule=schedule,
    recovery=RECOVERY,
    eval_every=config.steps,
  )
