"""FP-NAS (CVPR 2021): PARSEC with fewer samples, coarse to fine, at a cost.

  python -m bignas_jax.main --config=configs/fp_nas.py --workdir=DIR \
    --config.data.directory=IMAGENET
  python -m bignas_jax.main --config=configs/fp_nas.py:retrain \
    --config.arch=DIR/most_probable.json --workdir=DIR2 \
    --config.data.directory=IMAGENET

arXiv:2011.10949: PARSEC, but a step draws a quarter of a network for each nat
of the distribution's entropy; kernel size, expand ratio, width and
squeeze-excite are learnt apart first, and together for each block later;
networks of more MACs than a target cost. Published: 64 % fewer networks are
drawn than by PARSEC; at 400 M MACs, 0.7 % more top-1 than EfficientNet-B0.

  configs/fp_nas.py:small           5,000 digits, in minutes on two CPU cores
  configs/fp_nas.py:small_retrain   the network that it chose, alone

Cost: with one width a stage (`--config.space=fbnet_v2`), about 3.2 h on 64
TPUv3 chips by the compiler's estimate, without input (docs/systems.md, "On a
pod"). The config's own space was not compiled for them; a step has up to 20
networks, and 14 there.

As published: the number of networks, the joint distributions and what they
start from, the form of the cost; kernel size, expand ratio, width and
squeeze-excite are choices of each layer. Otherwise: the space is made in the
manner of FBNetV2's, with whole expand ratios, and is smaller; a layer adds its
input only where both of its widths are equal; when the distributions are
joined, the target of MACs and how much they matter are chosen. `:small` has one
width a stage. All else is as in configs/parsec.py.
"""

import dataclasses

from bignas_jax.policies.parsec import Settings
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Config
from bignas_jax.spaces import zoo
from configs import bn_nas, parsec

_FBNET = zoo.get('fbnet_v2')
# The space for digits of 28 pixels, with one width a stage: 2,048 networks.
SMALL = dataclasses.replace(
  _FBNET,
  name='fbnet_v2_small',
  resolution=(28,),
  train_resolution=(28,),
  stem_width=(16,),
  stages=(
    dataclasses.replace(
      _FBNET.stages[1], width=(16, 24), depth=(1,), expand_ratio=(1, 4)
    ),
    dataclasses.replace(
      _FBNET.stages[2], width=(24, 32), depth=(2,), expand_ratio=(1, 4)
    ),
  ),
  head_width=(128,),
  channels=1,
  classes=10,
)


def get_config(variant: str = '') -> Config:
  variant = config_lib.variant(variant, 'small', 'retrain', 'small_retrain')
  if variant == 'retrain':
    return bn_nas.retrained('fbnet_v2_layers')
  if variant == 'small_retrain':
    return bn_nas.alone(SMALL)
  config, small = parsec.get_config(variant), variant == 'small'
  steps = 300 if small else config.steps
  settings: Settings = dataclasses.replace(
    config.parsec,
    samples=0,
    per_nat=0.5 if small else 0.25,
    joins=steps // 2,
    macs=0.5e6 if small else 250e6,
    cost=0.1,
  )
  space = SMALL if small else 'fbnet_v2_layers'
  eval_every = steps if small else config.eval_every
  return dataclasses.replace(
    config, space=space, parsec=settings, steps=steps, eval_every=eval_every
  )
