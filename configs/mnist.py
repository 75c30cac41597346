"""A supernet on 5,000 MNIST digits: minutes on two CPU cores.

  make demo

trains it, searches it, extracts a child and writes a report. Variants:

  configs/mnist.py:quick   a tenth of the steps: does it run at all?
  configs/mnist.py:claims  300 steps, regularised and with a floor as in the
                           paper, for `benchmark claims`
  configs/mnist.py:alone   one network by the same recipe, from random weights:

  python -m bignas_jax.main --config=configs/mnist.py:alone \
    --config.arch=runs/demo/children/best/child.json --workdir=runs/alone
  python -m bignas_jax.extract --workdir=runs/alone \
    --out=runs/alone/children/best

`arch` is a child.json or a preset's name, which bring their space along; or,
with --config.space=NAME, anything that --arch takes.
"""

import dataclasses
from typing import Any

from bignas_jax.data.sources import Data
from bignas_jax.methods.loss_graph import Rule
from bignas_jax.methods.optim import Optimizer
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Calibration, Config, Schedule, Search
from bignas_jax.spaces.space import Space


def get_config(variant: str = '') -> Config:
  variant = config_lib.variant(variant, 'quick', 'alone', 'claims')
  config = digits('' if variant == 'alone' else 'mnist')
  if variant == 'alone':
    return dataclasses.replace(config, policy='alone')
  if variant == 'claims':
    return _claims(config, steps=300)
  steps = 90 if variant == 'quick' else 900
  return dataclasses.replace(config, steps=steps)


def _claims(config: Config, steps: int) -> Config:
  # 0.97 150 times, as in the paper's 360 epochs: the last third is the floor.
  schedule = dataclasses.replace(config.schedule, decay_steps=steps / 150)
  return dataclasses.replace(
    config, steps=steps, eval_every=steps, rule=Rule(), schedule=schedule
  )


def digits(space: str | Space, **changes: Any) -> Config:
  """Returns a config of 5,000 digits for any space, as all `:small` are."""
  batch_size, train_images = 64, 3500
  steps_per_epoch = train_images / batch_size
  config = Config(
    space=space,
    data=Data(
      name='mnist5k',
      held_out=500,
      augment='affine',
      mean=(0.13,),
      std=(0.31,),
    ),
    steps=900,
    batch_size=batch_size,
    rule=Rule(dropout=0.0),
    # The paper's epsilon, 1e-3, belongs to its batch of 4096: it damps small
    # gradients, and here triples the steps to the same accuracy.
    optimizer=Optimizer(name='rmsprop', epsilon=1e-6),
    schedule=Schedule(
      peak=0.0006,
      warmup_steps=50,
      decay_steps=0.25 * steps_per_epoch,
    ),
    log_every=20,
    eval_every=450,
    checkpoint_every=100,
    calibration=Calibration(images=256, batch_size=256),
    search=Search(mutants=32, evaluations=64),
  )
  return dataclasses.replace(config, **changes)
