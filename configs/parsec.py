"""PARSEC (2019): a distribution over networks learns from their likelihoods.

  python -m bignas_jax.main --config=configs/parsec.py --workdir=DIR \
    --config.data.directory=IMAGENET
  python -m bignas_jax.main --config=configs/parsec.py:retrain \
    --config.arch=DIR/most_probable.json --workdir=DIR2 \
    --config.data.directory=IMAGENET

arXiv:1902.05116: a step draws eight networks and weighs each by how likely it
makes the labels, beside the others. So weighted, they train the shared
parameters; then the distribution learns from images of a second split. The most
probable network is trained again. The published figures are of cells, a space
that is not here.

  configs/parsec.py:small           5,000 digits, in minutes on two CPU cores
  configs/parsec.py:small_retrain   the network that it chose, alone

Cost: about 2.9 h on 64 TPUv3 chips by the compiler's estimate, without input
(docs/systems.md, "On a pod").

As published: the weights, and which gradient comes from which split. Otherwise:
the space is ProxylessNAS's; the number of networks, the temperature, the rates,
the epochs and the sizes of the splits are chosen. With a temperature of 1, as
in the formula, nearly all weight would be on one network of a step. All else is
as in configs/mdenas.py.
"""

import dataclasses

from bignas_jax.policies.parsec import Settings
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Config
from bignas_jax.spaces import zoo
from configs import bn_nas, mdenas

_PROXYLESS = zoo.get('proxyless')
# ProxylessNAS's space for digits of 28 pixels: 72 networks.
SMALL = dataclasses.replace(
  _PROXYLESS,
  name='proxyless_small',
  resolution=(28,),
  train_resolution=(28,),
  stem_width=(16,),
  stages=(
    dataclasses.replace(_PROXYLESS.stages[0], width=(16,)),
    dataclasses.replace(
      _PROXYLESS.stages[1],
      width=(24,),
      depth=(1,),
      kernel_size=(3, 5),
      expand_ratio=(3, 6),
    ),
    dataclasses.replace(
      _PROXYLESS.stages[2], width=(32,), depth=(3,), kernel_size=(3,)
    ),
  ),
  head_width=(128,),
  channels=1,
  classes=10,
)
# A temperature of so much for each image: a loss that is lower by it has e
# times the weight.
SMOOTH = 0.05


def get_config(variant: str = '') -> Config:
  variant = config_lib.variant(variant, 'small', 'retrain', 'small_retrain')
  if variant == 'retrain':
    return bn_nas.retrained('proxyless')
  if variant == 'small_retrain':
    return bn_nas.alone(SMALL)
  if variant == 'small':
    settings = Settings(samples=4, temperature=64 * SMOOTH, rate=0.2)
    return mdenas.digits(SMALL, policy='parsec', parsec=settings, steps=200)
  settings = Settings(temperature=mdenas.BATCH_SIZE * SMOOTH)
  return mdenas.images(space='proxyless', policy='parsec', parsec=settings)
