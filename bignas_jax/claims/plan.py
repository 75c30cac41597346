"""What all runs in a directory share, and the file that says so."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from etils import epath

import bignas_jax
from bignas_jax.data import identity as identity_lib
from bignas_jax.data import sources
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import config_record, warm_start
from bignas_jax.runs.config import Config
from bignas_jax.selection import ranking
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch
from bignas_jax.system import files
from bignas_jax.values import errors, schema, stored, structs

NAME, _FORMAT = 'plan.json', 1
_SEED = 0  # of the random children


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """What all runs in a directory share.

  Attributes:
    config: config of the baseline, whose seed each run sets.
    out: directory of all runs.
    archs: the random children whose accuracies are averaged.
    identity: description of the images.
  """

  config: Config
  out: epath.Path
  archs: Sequence[Arch]
  identity: dict[str, Any]

  def workdir(self, arm: str, seed: int) -> epath.Path:
    """Returns the work directory of an arm's run."""
    return self.out / arm / str(seed)


def make(
  config: Config,
  out: epath.Path,
  children: int,
  data: str = '',
  train_images: int | None = None,
) -> Plan:
  """Returns the plan of a config; nothing is written.

  Args:
    config: config of the baseline.
    out: directory of all runs.
    children: number of random children.
    data: directory of the images; '': the config's.
    train_images: number of training images, always the same ones; None: all.

  Raises:
    UserError: the config, or one of the others, is wrong.
  """
  placed = sources.placed(config.data, data)
  config = dataclasses.replace(config, data=placed, seed=0)
  config = config_lib.check(warm_start.resolve(config))
  space = config_lib.space(config)
  splits = sources.load(config.data, space.channels)
  if train_images is not None:
    most = len(splits.train) + len(splits.second)
    if train_images > most:
      raise errors.UserError('--train_images', train_images, f'1 to {most}')
    # Images of the second split train nothing, and are the same in all runs.
    kept = dataclasses.replace(config.data, second=most - train_images)
    config = dataclasses.replace(config, data=kept)
    splits = sources.load(config.data, space.channels)
  archs = ranking.drawn(space, children, _SEED)
  identity = identity_lib.describe(splits)
  return Plan(config=config, out=out, archs=archs, identity=identity)


def check_place(plan: Plan) -> None:
  """Checks that the directory is new, or that its runs are this plan's.

  Raises:
    UserError: it holds something else.
  """
  path, out = plan.out / NAME, str(plan.out)
  files.check_file(path, '--out')
  if not path.is_file():
    # A command that was stopped at its start has left the lock.
    if plan.out.exists() and {p.name for p in plan.out.iterdir()} - {'.lock'}:
      allowed = 'a new or empty directory, or one that this command began'
      raise errors.UserError('--out', out, allowed)
    return
  there, ours = files.read_json(path), _contents(plan)
  stored.check_format(there, _FORMAT, str(path))
  differences = structs.differences(
    {name: there.get(name) for name in ours}, ours
  )
  if differences:
    allowed = 'a directory of the same config and children; this one differs in'
    raise errors.UserError('--out', out, f'{allowed} {"; ".join(differences)}')
  identity_lib.check(
    there.get('data'), plan.identity, plan.config.data.directory, out
  )


def write(plan: Plan) -> None:
  """Writes `plan.json`, if there is none."""
  path = plan.out / NAME
  if not path.is_file():
    about = {'format': _FORMAT, 'version': bignas_jax.__version__}
    files.write_json(path, about | _contents(plan) | {'data': plan.identity})


def _contents(plan: Plan) -> dict[str, Any]:
  """Returns what must be equal whenever the command is started."""
  config = plan.config
  contents = {
    'config': config_record.identity(config_record.to_dict(config)),
    'search': schema.plain(config.search),
    'children': [arch_lib.to_dict(arch) for arch in plan.archs],
  }
  return json.loads(json.dumps(contents))  # in which tuples are lists
