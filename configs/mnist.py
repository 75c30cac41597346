"""A supernet on 5,000 MNIST digits: minutes on two CPU cores.

  make demo

trains it, searches it, extracts a child and writes a report.
"""

from bignas_jax.config import Calibration, Config, Schedule, Search
from bignas_jax.data import Data
from bignas_jax.optim import Optimizer
from bignas_jax.rules import Rule


def get_config() -> Config:
  batch_size, train_images = 64, 3500
  steps_per_epoch = train_images / batch_size
  return Config(
    space='mnist',
    data=Data(
      name='mnist5k',
      held_out=500,
      augment='affine',
      mean=(0.13,),
      std=(0.31,),
    ),
    steps=600,
    batch_size=batch_size,
    rule=Rule(dropout=0.1),
    optimizer=Optimizer(name='rmsprop'),
    schedule=Schedule(
      peak=0.01,
      warmup_steps=50,
      decay_steps=0.2 * steps_per_epoch,
    ),
    log_every=20,
    eval_every=200,
    checkpoint_every=100,
    calibration=Calibration(images=512, batch_size=256),
    search=Search(mutants=48, evaluations=64),
  )
