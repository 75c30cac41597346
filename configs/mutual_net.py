"""MutualNet (ECCV 2020): every width at every resolution.

  python -m bignas_jax.main --config=configs/mutual_net.py --workdir=DIR \
    --config.data.directory=IMAGENET
  python -m bignas_jax.search --workdir=DIR --strategy=random --evaluations=124

arXiv:1909.12978: as US-Net, but each narrower network sees images of a drawn
resolution, and learns from the widest one's softmax at 224 pixels. Published
top-1 of MobileNet on ImageNet: 72.4 % at 569 M MACs, 70.9 % at 418 M, 67.7 % at
215 M and 60.3 % at 76 M.

  configs/mutual_net.py:small   5,000 digits, in minutes on two CPU cores

Cost: about 0.6 h on 64 TPUv3 chips by the compiler's estimate, without input
(docs/systems.md, "On a pod").

As published: resolutions, bilinear resizing, losses, epochs, batch, cosine, and
that the best width and resolution of each cost are chosen: the search evaluates
all 124 children. Otherwise: widths are in steps of 0.025, and 10,000 training
images are held out for selection. With images of one resolution, the steps are
those of configs/us_net.py.
"""

import dataclasses

from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Config, Schedule
from bignas_jax.spaces import zoo
from configs import mnist, us_net


def get_config(variant: str = '') -> Config:
  variant = config_lib.variant(variant, 'small')
  if variant == 'small':
    # Two resolutions: each is a program to compile.
    space = dataclasses.replace(us_net.SMALL, train_resolution=(20, 28))
    config = mnist.digits(space, steps=300)
    return dataclasses.replace(config, smallest_resolution='drawn')
  config, space = us_net.get_config(), zoo.get('mobilenet_v1')
  return dataclasses.replace(
    config,
    space=dataclasses.replace(
      space, train_resolution=space.resolution, resize='bilinear'
    ),
    smallest_resolution='drawn',
    schedule=Schedule(name='cosine', peak=0.5, warmup_steps=0),
  )
