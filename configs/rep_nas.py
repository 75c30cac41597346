"""RepNAS: which parallel branches a layer keeps is learnt by gradients.

  python -m bignas_jax.main --config=configs/rep_nas.py --workdir=DIR \
    --config.data.directory=IMAGENET
  python -m bignas_jax.extract --workdir=DIR --arch=DIR/most_probable.json \
    --out=DIR/children/learnt

arXiv:2109.03508: each layer is a sum of linear branches (here: members), each
with a batch norm. Each has a logit; a step trains the branches of the
greatest logits of the whole network, after noise was added. Gates pass the
gradient to the logits. Then the branches are fixed, and at last folded into one
3x3 convolution a layer, which `extract` does.

  configs/rep_nas.py:small     5,000 digits, in minutes on two CPU cores
  configs/rep_nas.py:random    the control: random branches, as many, that never
                               learn, on the same digits
  configs/rep_nas.py:square    the other control: one 3x3 convolution a layer,
                               trained alone for as many steps
  configs/rep_nas.py:shared    on ImageNet, as in the paper and not in the
                               authors' code: kernels of a layer's branches are
                               centres of one, and all branches but the 3x3
                               convolution start as 0

Cost: about 2.2 h on 64 TPUv3 chips by the compiler's estimate, without input
(docs/systems.md, "On a pod").

As published: the branches, how logits learn, their rate, 34 % of all branches,
epochs (15 of random branches, 35 of learning ones, 100 of fixed ones).
Otherwise: the first convolution has no branches, a layer keeps its best branch
even if others are better, and 10,000 training images are held out. The 1x1
convolution before a 3x3 one never shares its kernel. Batch and learning rate
are RepVGG's. Logits learn faster in `:small`, which has few steps.
"""

import dataclasses

from bignas_jax.methods import loss_graph
from bignas_jax.methods.loss_graph import Edge, Rule
from bignas_jax.methods.optim import Optimizer
from bignas_jax.policies.rep_nas import Settings
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Config, Schedule
from bignas_jax.spaces import parallel, zoo
from configs import mnist, us_net

_A0 = zoo.get('repvgg_a0')
# RepVGG for digits of 28 pixels.
SMALL = dataclasses.replace(
  _A0,
  name='repvgg_small',
  resolution=(28,),
  train_resolution=(28,),
  stem_width=(16,),
  stages=(
    dataclasses.replace(_A0.stages[0], width=(16,), stride=1),
    dataclasses.replace(_A0.stages[1], width=(32,), depth=(2,)),
  ),
  channels=1,
  classes=10,
)
SHARED = dataclasses.replace(
  _A0,
  name='repvgg_a0_shared',
  stages=tuple(
    dataclasses.replace(stage, shared_kernel=True, zero_start=True)
    for stage in _A0.stages
  ),
)
SQUARE = dataclasses.replace(
  SMALL,
  name='repvgg_small_square',
  stages=tuple(
    dataclasses.replace(stage, parallel=(parallel.mask('square'),))
    for stage in SMALL.stages
  ),
)
# The child of a step learns from the label.
EDGES = (Edge(student='random', teacher='label'),)


def get_config(variant: str = '') -> Config:
  variant = config_lib.variant(variant, 'small', 'random', 'square', 'shared')
  rule = Rule(edges=EDGES, regularised='random', dropout=0.0)
  if variant in ('small', 'random', 'square'):
    return _digits(variant, rule)
  config, epoch = us_net.get_config(), 1_271_167 / 256
  return dataclasses.replace(
    config,
    space=SHARED if variant else 'repvgg_a0',
    policy='rep_nas',
    rep_nas=Settings(
      warmup_steps=round(15 * epoch), joint_steps=round(35 * epoch)
    ),
    rule=dataclasses.replace(rule, label_smoothing=0.1),
    batch_size=256,
    steps=round(150 * epoch),
    schedule=Schedule(name='cosine', peak=0.1, warmup_steps=0),
    optimizer=Optimizer(
      name='sgd', momentum=0.9, nesterov=True, weight_decay=1e-4
    ),
    eval_every=round(10 * epoch),
    checkpoint_every=round(2 * epoch),
  )


def _digits(variant: str, rule: Rule) -> Config:
  """Returns the config of one of the three runs on digits."""
  config = mnist.digits(
    SMALL,
    policy='rep_nas',
    rep_nas=Settings(
      rate=0.0 if variant == 'random' else 0.02,
      warmup_steps=60,
      joint_steps=120,
    ),
    rule=rule,
    steps=300,
    schedule=Schedule(peak=0.003, warmup_steps=20, decay_steps=13.7),
    eval_every=150,
  )
  if variant != 'square':
    return config
  alone = loss_graph.alone(rule, 'biggest')
  return dataclasses.replace(config, space=SQUARE, policy='alone', rule=alone)
