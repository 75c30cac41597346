"""AutoSlim (arXiv:1903.11728): how wide each layer should be.

  python -m bignas_jax.main --config=configs/auto_slim.py --workdir=DIR \
    --config.data.directory=IMAGENET
  python -m bignas_jax.search --workdir=DIR --strategy=greedy --max_macs=325e6 \
    --evaluations=2000
  python -m bignas_jax.main --config=configs/auto_slim.py --workdir=DIR2 \
    --config.policy=alone --config.arch=DIR/search/best.json \
    --config.steps=310344 --config.data.directory=IMAGENET

A slimmable network whose layers have widths of their own is trained as US-Net
is; then the layer that matters least becomes narrower by one choice, again and
again, until the limit is kept. That network is trained alone, from the label.
Published top-1 of a MobileNet of 325 M MACs on ImageNet: 71.5 %.

  configs/auto_slim.py:small   5,000 digits, in minutes on two CPU cores

Cost of the first training: about 0.1 h on 64 TPUv3 chips by the compiler's
estimate, without input (docs/systems.md, "On a pod").

As published: about ten widths a layer, a tenth of the final network's epochs,
and the search's path from the widest network down. Otherwise: a layer matters
by the top-1 on held-out training images that is lost (published: by the rise of
their loss); those are 10,000; the final network's epochs, batch and learning
rate are US-Net's. A step of the search evaluates each layer that can become
narrower, so that it needs the 2,000 evaluations; with too few, it lowers all
layers alike at the end.
"""

import dataclasses

from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Config
from bignas_jax.spaces import zoo
from bignas_jax.spaces.space import Space
from bignas_jax.spaces.stage import round_to_8
from configs import mnist, us_net

_GROUPS = 10  # widths of a layer


def get_config(variant: str = '') -> Config:
  variant = config_lib.variant(variant, 'small')
  if variant == 'small':
    return mnist.digits(own_widths(us_net.SMALL), steps=300)
  config = us_net.get_config()
  space = own_widths(zoo.get('mobilenet_v1'))
  return dataclasses.replace(config, space=space, steps=config.steps // 10)


def own_widths(space: Space) -> Space:
  """Returns a space in which each layer's width is a decision of its own."""
  stages = []
  for stage in space.stages:
    widths = _widths(max(stage.width))
    for block in range(max(stage.depth)):
      stride = 1 if block else stage.stride
      own = dataclasses.replace(stage, width=widths, depth=(1,), stride=stride)
      stages.append(own)
  return dataclasses.replace(
    space,
    name=f'{space.name}_own_widths',
    multipliers=(),
    stem_width=_widths(max(space.stem_width)),
    stages=tuple(stages),
  )


def _widths(most: int) -> tuple[int, ...]:
  sizes = {round_to_8(most * i / _GROUPS) for i in range(1, _GROUPS + 1)}
  return tuple(sorted(sizes))
