"""The paper's run: BigNAS on ImageNet, 8x8 TPUv3 (128 cores), batch 4096.

  python -m bignas_jax.main --config=configs/imagenet.py --workdir=DIR \
    --config.data.directory=IMAGENET
  python -m bignas_jax.search --workdir=DIR --max_macs=418e6

IMAGENET is what `python -m bignas_jax.prepare` or TFDS wrote: ArrayRecord.

  configs/imagenet.py:v5e   batch 1024, with the learning rate in proportion:
                            for the 16 chips of a v5e 4x4

arXiv:2003.11142, section 4. Published top-1 on ImageNet: 76.5 % at 242 M MACs,
78.9 % at 418 M, 79.5 % at 586 M and 80.9 % at 1,040 M. Sources of each value
are named where the paper is silent: E: EfficientNet's, R: agreed on by
reimplementations.

Cost: about 6.0 h on 64 TPUv3 chips by the compiler's estimate, without input
(docs/systems.md, "On a pod"). The paper's run took about 36 hours.

Chosen: 10,000 training images are held out for selection; 16,384 calibrate a
child; activations are bfloat16; the search has 512 mutants after the published
grid of 160 children.
"""

from bignas_jax.data.sources import Data
from bignas_jax.methods.loss_graph import Rule
from bignas_jax.methods.optim import Optimizer
from bignas_jax.runs import config as config_lib
from bignas_jax.runs.config import Calibration, Config, Schedule, Search


def get_config(variant: str = '') -> Config:
  variant = config_lib.variant(variant, 'v5e')
  batch_size = 1024 if variant == 'v5e' else 4096
  train_images, epochs = 1_281_167 - 10_000, 360  # R: epochs
  steps_per_epoch = train_images / batch_size
  return Config(
    space='bignas',
    data=Data(
      name='imagenet2012',
      held_out=10_000,
      augment='autoaugment',  # R: policy v0
      mean=(0.485, 0.456, 0.406),
      std=(0.229, 0.224, 0.225),
      eval_crop=0.875,
    ),
    steps=round(epochs * steps_per_epoch),
    batch_size=batch_size,
    random_children=2,
    rule=Rule(
      dropout=0.2,
      weight_decay=1e-5,
      label_smoothing=0.1,  # R
    ),
    optimizer=Optimizer(
      name='rmsprop',
      decay=0.9,
      momentum=0.9,
      epsilon=1e-3,  # E
    ),
    schedule=Schedule(
      peak=0.256 * batch_size / 4096,
      warmup_steps=round(5 * steps_per_epoch),  # R
      decay_rate=0.97,
      decay_steps=2.4 * steps_per_epoch,
      floor=0.05,
    ),
    dtype='bfloat16',
    bn_group_size=0,  # statistics over the global batch
    log_every=100,
    eval_every=round(10 * steps_per_epoch),
    checkpoint_every=round(2 * steps_per_epoch),
    eval_batch_size=batch_size,
    calibration=Calibration(images=16_384, batch_size=batch_size),
    search=Search(mutants=512, evaluations=672),
  )
