"""RS-Net (ECCV 2020): one network for several resolutions.

  python -m bignas_jax.main --config=configs/rs_net.py --workdir=DIR \
    --config.data.directory=IMAGENET

arXiv:2007.09558: all resolutions are trained in each step, with batch norms of
their own; each learns from the label, from all bigger resolutions, and from
the mean of all, whose weights are learnt. Published top-1 of ResNet-18 at 224,
192, 160, 128 and 96 pixels on ImageNet: 73.1, 72.2, 71.1, 68.7 and 64.1 %.

  configs/rs_net.py:small   5,000 digits, in minutes on two CPU cores

Cost: about 0.5 h on 64 TPUv3 chips by the compiler's estimate, without input
(docs/systems.md, "On a pod").

As published: the loss, private batch norms, epochs, weight decay, cosine.
Otherwise: a step has 1,024 images at a rate of 0.4 (in the authors' code 256 at
0.1), and Nesterov's momentum; batch norms are calibrated before an evaluation,
and 10,000 training images are held out.
"""

import dataclasses
import itertools

from bignas_jax.methods.loss_graph import Edge, Mean, Rule
from bignas_jax.policies.fixed import NamedArch
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Config, Schedule
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import zoo
from bignas_jax.spaces.space import Space
from configs import mnist, us_net

_R18 = zoo.get('resnet18')
# ResNet-18 for digits of 28 pixels.
SMALL = dataclasses.replace(
  _R18,
  name='resnet18_small',
  resolution=(16, 20, 24, 28),
  train_resolution=(16, 20, 24, 28),
  stem_width=(16,),
  stem_kernel=3,
  stem_stride=2,
  stem_pool=False,
  stages=(
    dataclasses.replace(_R18.stages[0], width=(16,), depth=(1,)),
    dataclasses.replace(_R18.stages[1], width=(32,), depth=(1,)),
  ),
  channels=1,
  classes=10,
)


def get_config(variant: str = '') -> Config:
  variant = config_lib.variant(variant, 'small')
  base = SMALL if variant == 'small' else _R18
  space = dataclasses.replace(
    base,
    multipliers=(),
    stem_width=base.stem_width[-1:],
    stages=tuple(
      dataclasses.replace(stage, width=stage.width[-1:])
      for stage in base.stages
    ),
    train_resolution=base.resolution,
    private_norms='resolution',
  )
  children = resolutions(space)
  recipe = {
    'space': space,
    'policy': 'fixed',
    'children': children,
    'rule': rule([child.role for child in children]),
  }
  if variant == 'small':
    # At BigNAS's rate for digits it has 77 % after 300 steps.
    schedule = Schedule(peak=0.002, warmup_steps=50, decay_steps=13.7)
    return mnist.digits(**recipe, steps=300, schedule=schedule)
  config = us_net.get_config()
  return dataclasses.replace(
    config,
    **recipe,
    steps=round(config.steps * 120 / 250),
    schedule=Schedule(name='cosine', peak=0.4, warmup_steps=0),
  )


def resolutions(space: Space) -> tuple[NamedArch, ...]:
  """Returns the biggest child at each resolution, the biggest first."""
  biggest = arch_lib.biggest(space)
  archs = [
    dataclasses.replace(biggest, resolution=size)
    for size in reversed(space.train_resolution)
  ]
  return tuple(
    NamedArch(role=f'r{arch.resolution}', arch=arch_lib.to_json(arch))
    for arch in archs
  )


def rule(roles: list[str]) -> Rule:
  """Returns the loss of section 3.2.

  Args:
    roles: roles of the children, those of bigger images first.
  """
  weight = 2 / (len(roles) + 1)
  pairs = [('mean', role) for role in roles]
  pairs += itertools.combinations(roles, 2)
  return Rule(
    edges=(
      *(Edge(student=role, teacher='label') for role in (*roles, 'mean')),
      *(
        Edge(student=student, teacher=teacher, weight=weight, loss='kl')
        for teacher, student in pairs
      ),
    ),
    means=(Mean(name='mean', of=tuple(roles), learnt=True),),
    regularised=roles[0],
    dropout=0.0,
    weight_decay=0.0,
    label_smoothing=0.0,
  )
