"""Once-for-All (ICLR 2020): progressive shrinking of a trained network.

  python -m bignas_jax.main --config=configs/once_for_all.py:teacher \
    --workdir=TEACHER --config.data.directory=IMAGENET
  python -m bignas_jax.extract --workdir=TEACHER --out=TEACHER/children/best
  python -m bignas_jax.main --config=configs/once_for_all.py --workdir=DIR \
    --config.data.directory=IMAGENET --config.rule.packages[0].path=PACKAGE
  python -m bignas_jax.search --workdir=DIR --strategy=predictor \
    --max_macs=595e6

arXiv:1908.09791: the biggest network is trained first. It then teaches children
whose choices grow: kernel sizes, depths, expand ratios; they learn from the
label too. Small kernels are learnt functions of bigger ones; hidden channels
are sorted by importance before expand ratios shrink. Published top-1 on
ImageNet: 76.4 % at 230 M MACs, 80.0 % at 595 M (fine-tuned).

  configs/once_for_all.py:small   5,000 digits, in minutes on two CPU cores

Cost of `:teacher`: about 0.5 h on 64 TPUv3 chips by the compiler's estimate,
without input (docs/systems.md, "On a pod").

As published: phases, children of a step, losses, sorting, learning rates and
epochs of the whole, and the search: a network of three layers of 400 learns
from 16,000 random children, and predicts for an evolution of 500 generations of
100 (a quarter are parents; half of a generation are their mutants, at 0.1).
Otherwise: the 100 best predictions are evaluated, too; supernets are trained at
four resolutions, since each is a compiled program; phases share one learning
rate schedule; the run starts with random weights unless it goes on from the
teacher's (--config.init_from); `:small` learns from the label alone, unless it
is given a teacher.
"""

import dataclasses

from bignas_jax.methods.loss_graph import Edge, Package, Rule
from bignas_jax.methods.optim import Optimizer
from bignas_jax.policies.progressive import Phase
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Config, Schedule, Search
from bignas_jax.spaces import zoo
from configs import mnist, us_net

_OFA = zoo.get('ofa_mbv3')
# Once-for-All's space for digits of 28 pixels.
SMALL = dataclasses.replace(
  _OFA,
  name='ofa_small',
  resolution=(24, 28),
  train_resolution=(28,),
  stem_width=(16,),
  stages=(
    _OFA.stages[0],
    dataclasses.replace(
      _OFA.stages[1],
      width=(24,),
      depth=(1, 2),
      kernel_size=(3, 5),
      expand_ratio=(2, 4),
    ),
    dataclasses.replace(
      _OFA.stages[5],
      width=(40,),
      depth=(1, 2),
      kernel_size=(3, 5),
      expand_ratio=(2, 4),
    ),
  ),
  head_width=(128,),
  head_expand=4,
  channels=1,
  classes=10,
)
EDGES = (Edge(student='random', teacher='label'),)


def phases(of_kernels: int, first: int, last: int) -> tuple[Phase, ...]:
  """Returns the phases of section 3.3 and of the authors' code.

  Args:
    of_kernels: steps of the phase of kernel sizes.
    first: steps of the first phase of depths, and of that of expand ratios.
    last: steps of the second ones.
  """
  return (
    Phase(steps=of_kernels, random_children=1, depth=1, expand_ratio=1),
    Phase(steps=first, random_children=2, depth=2, expand_ratio=1),
    Phase(steps=last, random_children=2, expand_ratio=1),
    Phase(steps=first, random_children=4, expand_ratio=2, resort=True),
    Phase(steps=last, random_children=4, resort=True),
  )


def get_config(variant: str = '') -> Config:
  variant = config_lib.variant(variant, 'small', 'teacher')
  if variant == 'small':
    rule = Rule(edges=EDGES, regularised='random', dropout=0.0)
    return mnist.digits(
      SMALL,
      policy='progressive',
      phases=phases(100, 40, 40),
      rule=rule,
      steps=300,
    )
  config = us_net.get_config()
  epoch = config.steps / 250
  optimizer = Optimizer(
    name='sgd', momentum=0.9, nesterov=True, weight_decay=3e-5
  )
  config = dataclasses.replace(config, optimizer=optimizer)
  plain = Rule(dropout=0.1, weight_decay=0.0, label_smoothing=0.1)
  if variant == 'teacher':
    return dataclasses.replace(
      config,
      space='ofa_mbv3',
      arch='biggest',
      policy='alone',
      rule=plain,
      steps=round(180 * epoch),
      schedule=Schedule(name='cosine', peak=1.3, warmup_steps=round(5 * epoch)),
    )
  teacher = Package(name='teacher', path='TEACHER/children/best')
  edges = (*EDGES, Edge(student='random', teacher='teacher'))
  return dataclasses.replace(
    config,
    space='ofa_mbv3',
    policy='progressive',
    phases=phases(round(120 * epoch), round(25 * epoch), round(120 * epoch)),
    rule=dataclasses.replace(
      plain, edges=edges, packages=(teacher,), regularised='random'
    ),
    steps=round(410 * epoch),
    schedule=Schedule(name='cosine', peak=0.96, warmup_steps=round(5 * epoch)),
    search=Search(
      population=16_000,
      evaluations=16_100,
      predictor='mlp',
      proposals='evolution',
    ),
  )
