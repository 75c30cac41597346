"""AttentiveNAS (CVPR 2021): random children are chosen by their scores.

  python -m bignas_jax.main --config=configs/attentive_nas.py --workdir=DIR \
    --config.data.directory=IMAGENET
  python -m bignas_jax.search --workdir=DIR --strategy=pareto_bins

arXiv:2011.09011: of three candidates of one cost, the one with the lowest loss
on the batch is trained (BestUp-3); --config.policy=worst_up trains the one with
the highest (WorstUp-3). Published top-1 on ImageNet: 77.3 % (A0) to 80.7 %
(A6).

  configs/attentive_nas.py:small   5,000 digits, in minutes on two CPU cores

The paper also takes the best or the worst of 50 candidates by a predictor. It
learns from children that another run's search evaluated:

  --config.candidates=50 --config.scores.by=predictor \
    --config.scores.archive=RUN/search/archive.csv

Cost: about 8.0 h on 64 TPUv3 chips by the compiler's estimate, without input
(docs/systems.md, "On a pod").

All else, the search too, is as in configs/alpha_net.py, but for the loss of
smaller children.
"""

import dataclasses

from bignas_jax.methods.loss_graph import Rule
from bignas_jax.runs.config import Config
from configs import alpha_net


def get_config(variant: str = '') -> Config:
  config = alpha_net.get_config(variant)
  rule = dataclasses.replace(config.rule, edges=Rule().edges)
  return dataclasses.replace(config, policy='best_up', rule=rule)
