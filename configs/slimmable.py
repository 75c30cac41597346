"""Slimmable networks (ICLR 2019): one network of four widths.

  python -m bignas_jax.main --config=configs/slimmable.py --workdir=DIR \
    --config.data.directory=IMAGENET

arXiv:1812.08928: each width learns from the label, the gradients are summed,
and each has batch norms of its own. Published top-1 of MobileNet's widths 1,
0.75, 0.5 and 0.25 on ImageNet: 71.5, 69.5, 64.8 and 53.1 %.

  configs/slimmable.py:small   5,000 digits, in minutes on two CPU cores

Cost: about 0.7 h on 64 TPUv3 chips by the compiler's estimate, without input
(docs/systems.md, "On a pod").

As published: widths, losses, private batch norms, weight decay. Otherwise:
epochs, batch and learning rate are US-Net's (in the authors' code 480 epochs,
160 images, and 0.045, times 0.98 after each epoch); batch norms are calibrated
before an evaluation, as all are here, and have no running averages; 10,000
training images are held out for selection.
"""

import dataclasses

from bignas_jax.methods.loss_graph import Edge, Rule
from bignas_jax.policies.fixed import NamedArch
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Config
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import decisions, zoo
from bignas_jax.spaces.space import Space
from configs import mnist, us_net


def get_config(variant: str = '') -> Config:
  variant = config_lib.variant(variant, 'small')
  base = us_net.SMALL if variant == 'small' else zoo.get('mobilenet_v1')
  space = dataclasses.replace(
    base, multipliers=(0.25, 0.5, 0.75, 1.0), private_norms='width'
  )
  children = widths(space)
  edges = tuple(Edge(student=one.role, teacher='label') for one in children)
  if variant == 'small':
    rule = Rule(edges=edges, regularised='w100', dropout=0.0)
    return mnist.digits(
      space, policy='fixed', children=children, rule=rule, steps=300
    )
  rule = Rule(
    edges=edges,
    regularised='w100',
    dropout=0.0,
    weight_decay=0.0,
    label_smoothing=0.0,
  )
  return dataclasses.replace(
    us_net.get_config(),
    space=space,
    policy='fixed',
    children=children,
    rule=rule,
  )


def widths(space: Space) -> tuple[NamedArch, ...]:
  """Returns a child for each width multiplier, the widest first."""
  names = [gene.field for gene in decisions.genes(space)]
  values = arch_lib.read(space, arch_lib.biggest(space))
  place, children = names.index('multiplier'), []
  for number, multiplier in reversed(list(enumerate(space.multipliers))):
    values[place] = number
    arch = arch_lib.to_json(arch_lib.write(space, values))
    role = f'w{round(100 * multiplier):03}'
    children.append(NamedArch(role=role, arch=arch))
  return tuple(children)
