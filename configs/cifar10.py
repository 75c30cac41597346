"""CIFAR-10 from a folder of JPEG files, on a laptop or a small accelerator.

  python -m bignas_jax.main --config=configs/cifar10.py --workdir=DIR \
    --config.data.directory=FOLDER

FOLDER holds train/CLASS/*.jpg and test/CLASS/*.jpg. Also the place to start
from for images of one's own: the space below is a literal. Variants:

  configs/cifar10.py:quick   one epoch
  configs/cifar10.py:small   300 steps of 64 images at one resolution: minutes
  configs/cifar10.py:claims  600 such steps, regularised and with a floor as in
                             the paper, for `benchmark claims`

On CPUs, MALLOC_ARENA_MAX=1 in the environment makes it a quarter faster, and
huge pages may gain more (docs/performance.md); docs/results.md has what comes
of it.
"""

import dataclasses

from bignas_jax.data.sources import Data
from bignas_jax.methods.loss_graph import Rule
from bignas_jax.methods.optim import Optimizer
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Calibration, Config, Schedule, Search
from bignas_jax.spaces.zoo import MNIST

SPACE = dataclasses.replace(
  MNIST,
  name='cifar10',
  resolution=(24, 28, 32),
  train_resolution=(24, 32),
  stem_stride=1,
  channels=3,
  classes=10,
)


def get_config(variant: str = '') -> Config:
  variant = config_lib.variant(variant, 'quick', 'small', 'claims')
  config = _config(epochs=1 if variant == 'quick' else 12)
  if variant == 'claims':
    return _claims(_small(config))
  return _small(config) if variant == 'small' else config


def _config(epochs: int) -> Config:
  batch_size, train_images = 128, 45_000
  steps_per_epoch = train_images / batch_size
  return Config(
    space=SPACE,
    data=Data(
      name='image_folder',
      directory='',
      held_out=5000,
      augment='crop',
      min_crop_area=0.4,
      mean=(0.491, 0.482, 0.447),
      std=(0.247, 0.243, 0.262),
    ),
    steps=round(epochs * steps_per_epoch),
    batch_size=batch_size,
    # A network this small overfits nothing in a dozen epochs.
    rule=Rule(dropout=0.0, label_smoothing=0.0),
    optimizer=Optimizer(name='sgd', nesterov=True),
    schedule=Schedule(
      peak=0.1,
      warmup_steps=100,
      decay_steps=epochs / 100 * steps_per_epoch,
    ),
    log_every=50,
    eval_every=round(epochs / 4 * steps_per_epoch),
    checkpoint_every=round(steps_per_epoch),
    calibration=Calibration(images=2048, batch_size=256),
    search=Search(mutants=96, evaluations=160),
  )


def _small(config: Config) -> Config:
  size = (24,)
  return dataclasses.replace(
    config,
    space=dataclasses.replace(SPACE, resolution=size, train_resolution=size),
    steps=300,
    batch_size=64,
    schedule=dataclasses.replace(
      config.schedule, warmup_steps=30, decay_steps=3.0
    ),
    log_every=20,
    eval_every=300,
    checkpoint_every=100,
    calibration=Calibration(images=256, batch_size=64),
    search=Search(mutants=8, evaluations=32),
  )


def _claims(config: Config) -> Config:
  steps = 600
  return dataclasses.replace(
    config,
    steps=steps,
    rule=Rule(),
    # 0.97 150 times, as in the paper's 360 epochs: the last third is the floor.
    schedule=dataclasses.replace(
      config.schedule, warmup_steps=60, decay_steps=steps / 150
    ),
    eval_every=steps,
    checkpoint_every=200,
  )
