"""One network trained on its own from random weights, by configs/mnist.py.

  make demo
  python -m bignas_jax.main --config=configs/scratch.py --workdir=runs/scratch \
    --config.arch=runs/demo/children/best/child.json
  python -m bignas_jax.extract --workdir=runs/scratch \
    --out=runs/scratch/children/best

`arch` is a child's child.json or a preset's name, which bring their space
along; or, with --config.space=NAME, anything that --arch takes. A published
network on ImageNet needs no file of its own:

  python -m bignas_jax.main --config=configs/imagenet.py --config.policy=alone \
    --config.arch=bignas_s --workdir=DIR --config.data.directory=IMAGENET
"""

from bignas_jax.data.sources import Data
from bignas_jax.methods.loss_graph import Rule
from bignas_jax.methods.optim import Optimizer
from bignas_jax.runs.config import Calibration, Config, Schedule


def get_config() -> Config:
  batch_size, train_images = 64, 3500
  steps_per_epoch = train_images / batch_size
  return Config(
    arch='runs/demo/children/best/child.json',
    data=Data(
      name='mnist5k',
      held_out=500,
      augment='affine',
      mean=(0.13,),
      std=(0.31,),
    ),
    policy='alone',
    steps=900,
    batch_size=batch_size,
    rule=Rule(dropout=0.0),
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
  )
