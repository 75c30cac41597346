"""The API for notebooks: a trained run, its children, and child packages.

    import bignas_jax

    run = bignas_jax.load_run('runs/demo')
    best = run.search(strategy='predictor', max_macs=1e6)
    child = run.extract(best['arch'], 'runs/demo/children/mine')
    logits = child(images)

Each does what the command of its name does, to the same files. Who has weights
of a layout that `convert` does not know makes a supernet of arrays:

    shapes = bignas_jax.parameter_shapes('attentive_nas')
    net = bignas_jax.make_supernet('attentive_nas', params, mean=MEAN, std=STD)
    child = net.child('attentive_nas_a2', images)
    child.save('children/a2')
"""

import dataclasses
import fnmatch
import functools
import os
from collections.abc import Sequence
from typing import Any

from etils import epath

from bignas_jax.conversion import own_weights
from bignas_jax.costs import latency_tables
from bignas_jax.costs import limits as limits_lib
from bignas_jax.deploy import hub, package
from bignas_jax.runs import restore
from bignas_jax.selection import accuracy, child_costs, extraction
from bignas_jax.selection import search as search_lib
from bignas_jax.selection.loaded_child import Network
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import presets, zoo
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.supernet.evaluation import Evaluator, Score
from bignas_jax.system import console, storage
from bignas_jax.values import errors, schema

_WHOLE: Any = schema.Whole
_SEED: Any = schema.Seed

parameter_shapes = own_weights.parameter_shapes
make_supernet = own_weights.make_supernet


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """A trained supernet.

  Attributes:
    workdir: directory of the run.
    space: space of the children.
    step: step of the checkpoint that was read.
  """

  workdir: epath.Path
  _run: restore.Run
  _data: str = ''  # directory of its data, if they have moved

  @property
  def space(self) -> Space:
    """Returns the space of the children."""
    return self._run.model.space

  @property
  def step(self) -> int:
    """Returns the step of the checkpoint that was read."""
    return self._run.step

  def arch(self, which: str | dict[str, Any] | Arch) -> Arch:
    """Returns an architecture of the space.

    Args:
      which: what `--arch` takes, such as `best` or `smallest`; or the JSON
        form as a dict; or what `search` returned.

    Raises:
      UserError: the space has no such child.
    """
    if isinstance(which, str):
      return extraction.choose(self.workdir, self.space, which)
    if not isinstance(which, dict | Arch):
      allowed = f'an Arch, its JSON form as a dict, best, {presets.WORDS}'
      raise errors.UserError('arch', which, allowed)
    fields = schema.plain(which)
    return presets.of_fields(self.space, fields)

  def sample(self, n: int, seed: int = 0) -> list[Arch]:
    """Returns n uniformly drawn children, which may repeat."""
    n = schema.convert(_WHOLE, schema.plain(n), 'n')
    rng = arch_lib.generator(schema.convert(_SEED, schema.plain(seed), 'seed'))
    return [arch_lib.sample(self.space, rng) for _ in range(n)]

  def costs(self, which: str | dict[str, Any] | Arch) -> dict[str, float]:
    """Returns costs by name (`child_costs.NAMES`); does not run the child."""
    return dict(child_costs.of(self.space)(self.arch(which)))

  def evaluate(
    self, which: str | dict[str, Any] | Arch, split: str = 'held_out'
  ) -> Score:
    """Returns calibrated top-1 and top-5 of a child inside the supernet.

    The first child of a resolution compiles two programs, which all others use.

    Args:
      which: an architecture, as `arch` takes it.
      split: `held_out`, which may choose children, or `test`, which may not.

    Raises:
      UserError: there is no such child, or no such split.
    """
    arch = self.arch(which)
    accuracy.check_split(split)
    return self._evaluator(split).score(self._run.params, arch)

  @functools.cache  # noqa: B019 (runs are few, and live as long as a notebook)
  def _evaluator(self, split: str) -> Evaluator:
    run = self._run
    images = accuracy.choose_split(run.splits, split)
    return restore.evaluator(run.config, run.model, run.splits, images)

  def search(
    self,
    strategy: str = 'coarse_to_fine',
    latency_table: str | os.PathLike | None = None,
    memory_batch: int = 1,
    memory_precision: str = 'float32',
    **settings: Any,
  ) -> dict[str, Any]:
    """Searches as the command does; every child goes into the run's archive.

    Args:
      strategy: name of the strategy, as in `table.get`.
      latency_table: a file of `benchmark table`, for limits on latency.
      memory_batch: images at a time, for limits on `memory_bytes`.
      memory_precision: type of weights and activations, for the same limits.
      **settings: limits such as `max_macs=1e6`, and fields of
        `problem.Search` such as `evaluations=64`.

    Returns:
      The contents of `search/best.json`.

    Raises:
      UserError: no child keeps the limits, a setting is unknown or wrong, or
        another search of this run is running.
    """
    bounds = {k: v for k, v in settings.items() if k[:4] in ('max_', 'min_')}
    changes = {k: v for k, v in settings.items() if k not in bounds}
    limits = limits_lib.from_dict(bounds)
    table = None
    if latency_table is not None:
      path = storage.of_value(latency_table, 'latency_table')
      table = latency_tables.load(path, self.space)
    memory = child_costs.Memory(memory_batch, memory_precision)
    best = search_lib.search(
      self.workdir, strategy, limits, changes, table, self._data, memory
    )
    self._compare(best['step'])
    return best

  def extract(
    self, which: str | dict[str, Any] | Arch, out: str | os.PathLike
  ) -> Network:
    """Writes a child package, checked against the supernet, and loads it.

    Args:
      which: an architecture, as `arch` takes it.
      out: the package's directory: a new one, an empty one, or that of an
        older package.

    Raises:
      UserError: there is no such child, or `out` holds something else.
    """
    text = arch_lib.to_json(self.arch(which))
    place = storage.of_value(out, 'out')
    made = extraction.extract(self.workdir, text, place, data=self._data)
    self._compare(made.info['source']['step'])
    return load_child(place)

  def _compare(self, step: int) -> None:
    """Warns if the run has a newer checkpoint than the loaded one."""
    if step != self.step:
      console.say(
        f'warning: this was of step {step}, the newest; what was loaded is of '
        f'step {self.step}: load_run() again to evaluate the same'
      )


def list_models(pattern: str | Sequence[str] = '*') -> list[str]:
  """Returns the names of networks: presets, and the ends of each space.

  A preset's name is what `--arch` takes. `SPACE:smallest` and `SPACE:biggest`
  are `--space=SPACE --arch=smallest` and `--arch=biggest`.

  Args:
    pattern: a pattern such as `*nas*`, or several; a name that fits one of them
      is listed.

  Raises:
    UserError: the pattern is not text.
  """
  patterns = [pattern] if isinstance(pattern, str) else pattern
  if not isinstance(patterns, Sequence) or not all(
    isinstance(one, str) for one in patterns
  ):
    raise errors.UserError('pattern', pattern, 'text, or a list of texts')
  ends = [f'{space}:{end}' for space in zoo.SPACES for end in presets.ENDS]
  return sorted(
    name
    for name in (*presets.PRESETS, *ends)
    if any(fnmatch.fnmatchcase(name, one) for one in patterns)
  )


def load_run(workdir: str | os.PathLike, data: str | os.PathLike = '') -> Run:
  """Reads the newest checkpoint of a run.

  Args:
    workdir: directory of the run.
    data: directory of the run's data; '': the one in its config.

  Raises:
    UserError: the directory is not a trained run's, or the data are not those
      that it was trained on.
  """
  path, place = storage.of_value(workdir, 'workdir'), ''
  if data != '':
    place = os.fspath(storage.of_value(data, 'data'))
  return Run(path, restore.load(path, place), place)


def load_child(directory: str | os.PathLike) -> Network:
  """Reads a child package.

  Args:
    directory: its directory, or `hf://OWNER/NAME[@REVISION]` on a model hub.

  Raises:
    UserError: a file is missing, damaged, or does not fit the other.
  """
  child = package.load(storage.of_value(directory, 'child', hub.path))
  return Network(child.arch, child.info, child)
