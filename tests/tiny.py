"""A supernet that compiles in seconds, and a config that trains it."""

import dataclasses
import os
import pathlib

from bignas_jax.data.sources import Data
from bignas_jax.methods.loss_graph import Rule
from bignas_jax.runs import metrics
from bignas_jax.runs.config import Calibration, Config, Schedule, Search
from bignas_jax.spaces.space import Space
from bignas_jax.spaces.stage import SqueezeExcite, Stage

SPACE = Space(
  name='tiny',
  resolution=(8, 10, 12),
  train_resolution=(8, 12),
  stem_width=(8,),
  stages=(
    Stage(
      width=(8, 16),
      depth=(1, 2),
      kernel_size=(3, 5),
      expand_ratio=(2,),
      stride=2,
      se=SqueezeExcite(),
    ),
  ),
  head_width=(16, 24),
  channels=1,
  classes=10,
)

# One block, one resolution: compiles in a fifth of the time.
QUICK = dataclasses.replace(
  SPACE,
  resolution=(8,),
  train_resolution=(8,),
  stages=(
    dataclasses.replace(SPACE.stages[0], depth=(1,), kernel_size=(3,), se=None),
  ),
)

# For what has to change between resolutions.
QUICK_TWO = dataclasses.replace(
  QUICK, resolution=(8, 10, 12), train_resolution=(8, 12)
)

# With a second block, which is in a loop.
LOOP = dataclasses.replace(
  QUICK_TWO, stages=(dataclasses.replace(QUICK.stages[0], depth=(1, 2)),)
)


def config(**changes) -> Config:
  """Six steps of digits; `changes` are fields of Config."""
  base = Config(
    space=SPACE,
    data=Data(
      name='mnist5k',
      held_out=500,
      augment='affine',
      mean=(0.13,),
      std=(0.31,),
    ),
    steps=6,
    batch_size=16,
    rule=Rule(dropout=0.2, weight_decay=1e-3),
    schedule=Schedule(peak=0.02, warmup_steps=2, decay_steps=3),
    log_every=1,
    eval_every=6,
    checkpoint_every=2,
    eval_batch_size=200,
    calibration=Calibration(images=64, batch_size=32),
    search=Search(
      depth_presets=2,
      width_presets=2,
      kernel_presets=2,
      mutants=4,
      evaluations=6,
    ),
  )
  return dataclasses.replace(base, **changes)


# For PYTHONPATH: where this package and its tests are imported from.
_TESTS = pathlib.Path(__file__).parent
_ROOMS = sorted({file.parent for file in _TESTS.glob('*/test_*.py')})
PATH = os.pathsep.join(map(str, [_TESTS.parent, _TESTS, *_ROOMS]))


def environment() -> dict[str, str]:
  """For a process that may be killed, or run out of disk.

  It imports this package and its tests. It has none of pytest's cache of
  compiled programs, and writes no compiled modules: there it might leave half a
  file to the others.
  """
  kept = os.environ | {'PYTHONPATH': PATH, 'PYTHONDONTWRITEBYTECODE': '1'}
  for name in 'JAX_COMPILATION_CACHE_DIR', 'JAX_COMPILATION_CACHE_MAX_SIZE':
    kept.pop(name, None)
  return kept


def numbers(workdir) -> list[dict]:
  """What a run has logged, but for what tells of the machine."""
  return plain(metrics.read(workdir))


def plain(lines) -> list[dict]:
  """Logged lines, but for what tells of the machine."""
  of_machine = ('images_per_s', 'time/', 'machine/')
  return [
    {k: v for k, v in line.items() if not k.startswith(of_machine)}
    for line in lines
  ]
