"""A child trained further on its own: five epochs at a small, falling rate.

  make demo
  python -m bignas_jax.main --config=configs/finetune.py --workdir=runs/tuned \
    --config.init_from=runs/demo/children/best
  python -m bignas_jax.extract --workdir=runs/tuned \
    --out=runs/tuned/children/best

The network is the child's; its images stay as large as its supernet's were, so
that nothing changes but the weights. For images of one's own: `data`, `steps`,
`batch_size` and, where their number differs, `classes`, which gives it a fresh
classifier. For a child of configs/imagenet.py: that file's `data`,
`batch_size`, `dtype`, `calibration` and `eval_batch_size`, its optimizer at a
hundredth of its peak, and dropout.
"""

from bignas_jax.data.sources import Data
from bignas_jax.methods.loss_graph import Rule
from bignas_jax.methods.optim import Optimizer
from bignas_jax.runs.config import Calibration, Config, Schedule


def get_config() -> Config:
  batch_size, train_images, epochs = 64, 3500, 5
  steps_per_epoch = train_images / batch_size
  return Config(
    init_from='runs/demo/children/best',
    data=Data(
      name='mnist5k',
      held_out=500,
      augment='affine',
      mean=(0.13,),
      std=(0.31,),
    ),
    policy='alone',
    steps=round(epochs * steps_per_epoch),
    batch_size=batch_size,
    rule=Rule(dropout=0.0),
    optimizer=Optimizer(name='rmsprop', epsilon=1e-6),
    schedule=Schedule(name='cosine', peak=0.0001, warmup_steps=20),
    log_every=20,
    eval_every=round(steps_per_epoch),
    checkpoint_every=100,
    calibration=Calibration(images=256, batch_size=256),
  )
