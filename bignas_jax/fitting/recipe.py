"""A config that is made of what was chosen and of how long it may train."""

import functools
from typing import Any

from bignas_jax.data.sources import Data
from bignas_jax.fitting import rules
from bignas_jax.fitting.rules import Choice, Length
from bignas_jax.fitting.survey import Survey
from bignas_jax.methods.loss_graph import Rule
from bignas_jax.methods.optim import Optimizer
from bignas_jax.runs.config import Calibration, Config, Schedule, Search

# Learning rate for a batch of this size; it grows with the batch up to `_MOST`.
_RATE, _RATE_BATCH, _MOST_RATE = 0.1, 128, 0.2
_WARMUP = 0.05  # share of the steps
_LINES, _CHECKPOINTS = 30, 8  # in a run, at most
_CALIBRATION, _EVALUATION = 256, 256  # images
_MAY_BE_DAMAGED = 0.1
# What a person may want to change in the config's file.
_TO_EDIT = {
  'space.name': 'the networks to choose from: its stages are in the file',
  'space.resolution': 'sides of the images that children see, pixels',
  'steps': 'updates',
  'batch_size': 'images of a step',
  'schedule.peak': 'highest learning rate',
  'data.held_out': 'training images that children are chosen by',
  'data.augment': 'how training images are varied',
  'rule.dropout': 'share of features that are left out in training',
  'rule.label_smoothing': 'share of a label that goes to all classes',
  'seed': 'of weights, children and the order of images',
}


def config(survey: Survey, choice: Choice, length: Length) -> Config:
  """Returns the config of a run."""
  steps, batch = length.steps, choice.batch_size
  again = rules.regularised(length.epochs)
  calibration = -(-min(_CALIBRATION, survey.train) // batch) * batch
  return Config(
    space=choice.space,
    data=Data(
      name=survey.name,
      directory=survey.directory,
      held_out=choice.held_out,
      test_images=survey.test if survey.cut else 0,
      augment=choice.augment,
      mean=survey.mean,
      std=survey.std,
      min_crop_area=choice.min_crop_area,
      max_damaged=_MAY_BE_DAMAGED,
    ),
    steps=steps,
    batch_size=batch,
    rule=Rule(
      dropout=0.2 if again else 0.0,
      weight_decay=1e-5,
      label_smoothing=0.1 if again else 0.0,
    ),
    optimizer=Optimizer(name='sgd', nesterov=True),
    schedule=Schedule(
      name='cosine',
      peak=min(_RATE * batch / _RATE_BATCH, _MOST_RATE),
      warmup_steps=max(1, round(_WARMUP * steps)),
    ),
    log_every=-(-steps // _LINES),
    eval_every=steps,
    checkpoint_every=max(1, -(-steps // _CHECKPOINTS)),
    eval_batch_size=-(-_EVALUATION // batch) * batch,
    calibration=Calibration(images=calibration, batch_size=batch),
    search=Search(evaluations=32, population=12),
  )


def reasons(config: Config, length: Length) -> list[str]:
  """Returns in sentences why the config trains as it does."""
  lines = [length.why]
  lines.append(
    f'The learning rate rises to {config.schedule.peak:g} until step '
    f'{config.schedule.warmup_steps}, and then falls to 0 at the end.'
  )
  if rules.regularised(length.epochs):
    lines.append(
      'Images are seen so often that dropout and smoothed labels keep the '
      'biggest child from learning them by heart.'
    )
  return lines


def values(config: Config) -> list[str]:
  """Returns values that a person may want to change, with what they are.

  Each is as `steps = 952 (updates)`, by its name in the config.

  Args:
    config: a config whose space is a literal.
  """

  def value(name: str) -> Any:
    return functools.reduce(getattr, name.split('.'), config)

  return [f'{name} = {value(name)!r} ({w})' for name, w in _TO_EDIT.items()]
