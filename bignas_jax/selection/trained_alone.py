"""Children of a supernet that are trained alone, from random weights.

Each is an ordinary run in a directory of its own, by the same trainer. A line
of a file says how accurate it was, so that no child is trained twice.
"""

import dataclasses
import json
import time
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from etils import epath

from bignas_jax.methods import loss_graph
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import config_record
from bignas_jax.runs.config import Config
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning
from bignas_jax.spaces.arch import Arch
from bignas_jax.system import console, files
from bignas_jax.training import loop
from bignas_jax.values import errors, schema

LINES = 'children.jsonl'
_NAMED = 12  # characters of a config's digest in the name of its directory

# What a child alone has of its supernet's config; the rest is of policies.
_KEPT = (
  *('data', 'seed', 'zero_scales', 'batch_size', 'dtype', 'bn_group_size'),
  *('recompute', 'ema_decay', 'log_every', 'checkpoint_every'),
  *('keep_checkpoints', 'recovery', 'eval_batch_size', 'calibration', 'layout'),
)


class Recipe(NamedTuple):
  """How a child is trained alone.

  Attributes:
    steps: number of updates.
    rate: peak of the learning rate.
  """

  steps: int
  rate: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
  """A child that was trained alone, in a line of the file.

  Attributes:
    arch: its architecture in the supernet.
    config_sha256: digest of the config by which it was trained.
    steps: number of updates.
    top1: calibrated accuracy on test images.
    seconds: how long the training took, if it was not interrupted.
  """

  arch: dict[str, Any]
  config_sha256: str
  steps: schema.Natural
  top1: Annotated[float, schema.Meta(ge=0, le=1)]
  seconds: schema.AtLeastZero


def config_of(config: Config, arch: Arch, recipe: Recipe) -> Config:
  """Returns the config that trains a child alone as its supernet was trained.

  All of its parameters are trained, by the labels, on images of the supernet's
  size. The supernet's schedule is shortened to the steps of the recipe.

  Args:
    config: config of the supernet's run.
    arch: the child.
    recipe: number of steps, and the learning rate.
  """
  shorter = recipe.steps / config.steps
  schedule = dataclasses.replace(
    config.schedule,
    peak=recipe.rate,
    warmup_steps=round(shorter * config.schedule.warmup_steps),
    decay_steps=shorter * config.schedule.decay_steps,
  )
  return Config(
    **{name: getattr(config, name) for name in _KEPT},
    space=pinning.pin(config_lib.space(config), arch),
    image_size=config_lib.image_size(config),
    policy='alone',
    rule=loss_graph.alone(config.rule, 'biggest'),
    optimizer=dataclasses.replace(config.optimizer, trains='all'),
    schedule=schedule,
    steps=recipe.steps,
    eval_every=recipe.steps,
  )


def accuracies(
  directory: epath.Path, config: Config, archs: Sequence[Arch], recipe: Recipe
) -> list[float]:
  """Returns the accuracies of children alone; trains those that are missing.

  Args:
    directory: directory of the lines and of the children's runs.
    config: config of the supernet's run.
    archs: the children.
    recipe: how they are trained.
  """
  lines = read(directory / LINES)
  top1 = {line.config_sha256: line.top1 for line in lines}
  results = []
  for number, arch in enumerate(archs, 1):
    own = config_of(config, arch, recipe)
    sha256 = config_record.sha256(own)
    if sha256 not in top1:
      console.say(f'child {number} of {len(archs)}, alone')
      began = time.monotonic()
      measured = loop.train(own, directory / sha256[:_NAMED])
      top1[sha256] = measured['eval/biggest/top1']
      lines.append(
        Line(
          arch=arch_lib.to_dict(arch),
          config_sha256=sha256,
          steps=recipe.steps,
          top1=top1[sha256],
          seconds=round(time.monotonic() - began, 1),
        )
      )
      _write(directory / LINES, lines)
    results.append(top1[sha256])
  return results


def read(path: epath.Path) -> list[Line]:
  """Returns the lines of a file, none if it is missing.

  Raises:
    UserError: a line is damaged; names it.
  """
  text = files.read_text(path) if path.exists() else ''
  lines = []
  for number, line in enumerate(text.splitlines(), 1):
    place = f'{path} line {number}'
    try:
      fields = files.parse_json(line, place)
      lines.append(schema.convert(Line, fields, f'{place}:', others=True))
    except errors.UserError as error:
      allowed = f'a trained child; delete the line to train it again ({error})'
      raise errors.UserError(place, line[:60], allowed) from None
  return lines


def _write(path: epath.Path, lines: Sequence[Line]) -> None:
  """Writes the whole file, so that a kill never leaves a part of a line."""
  text = ''.join(f'{json.dumps(dataclasses.asdict(line))}\n' for line in lines)
  files.write_text(path, text)
