"""What notebooks need: a trained run, its children, and children on their own.

  import bignas_jax

  run = bignas_jax.load_run('runs/demo')
  best = run.search(strategy='predictor', max_macs=1e6)
  child = run.extract(best['arch'], 'runs/demo/children/mine')
  logits = child(images)

Each does what the command of its name does, to the same files.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from bignas_jax import arch as arch_lib
from bignas_jax import (
  child,
  evaluating,
  extraction,
  footprint,
  latency_tables,
  model,
  sampling,
  searching,
  sharding,
  storage,
  supernet,
  trained,
  training,
)
from bignas_jax import limits as limits_lib
from bignas_jax.arch import Arch
from bignas_jax.evaluation import Evaluator, Score
from bignas_jax.space import Space


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """A trained supernet.

  Attributes:
    workdir: where it was trained.
    space: of its children.
    step: of the checkpoint that was read.
  """

  workdir: epath.Path
  _run: trained.Run
  _data: str = ''  # where its data are now

  @property
  def space(self) -> Space:
    return self._run.model.space

  @property
  def step(self) -> int:
    return self._run.step

  def arch(self, which: str | dict[str, Any] | Arch) -> Arch:
    """An architecture of the space.

    Args:
      which: what `--arch` takes, such as `best` or `smallest`; or the JSON
        form as a dict.

    Raises:
      UserError: the space has no such child.
    """
    if isinstance(which, str):
      return extraction.choose(self.workdir, self.space, which)
    if isinstance(which, dict):
      return arch_lib.from_dict(self.space, which)
    return arch_lib.check(self.space, which)

  def sample(self, n: int, seed: int = 0) -> list[Arch]:
    """n uniform children; some may be equal."""
    rng = sampling.generator(seed)
    return [arch_lib.sample(self.space, rng) for _ in range(n)]

  def costs(self, which: str | dict[str, Any] | Arch) -> dict[str, float]:
    """Costs by name (`footprint.NAMES`), without running the child."""
    return dict(footprint.of(self.space)(self.arch(which)))

  def evaluate(
    self, which: str | dict[str, Any] | Arch, split: str = 'held_out'
  ) -> Score:
    """Calibrated top-1 and top-5 of a child inside the supernet.

    The first child of a resolution compiles two programs, which all others use.

    Args:
      which: see `arch`.
      split: `held_out`, which may choose children, or `test`, which may not.
    """
    return self._evaluator(split).score(self._run.params, self.arch(which))

  @functools.cache  # noqa: B019 (runs are few, and live as long as a notebook)
  def _evaluator(self, split: str) -> Evaluator:
    run = self._run
    images = evaluating.choose_split(run.splits, split)
    return training.evaluator(run.config, run.model, run.splits, images)

  def search(
    self,
    strategy: str = 'coarse_to_fine',
    latency_table: str | None = None,
    **settings: Any,
  ) -> dict[str, Any]:
    """Searches as the command does; every child goes into the run's archive.

    Args:
      strategy: one of `strategies.STRATEGIES`.
      latency_table: a file of `benchmark table`, for limits on latency.
      **settings: limits such as `max_macs=1e6`, and fields of
        `selection.Search` such as `evaluations=64`.

    Returns:
      The contents of `search/best.json`.

    Raises:
      UserError: no child keeps the limits, or a setting is unknown.
    """
    bounds = {k: v for k, v in settings.items() if k[:4] in ('max_', 'min_')}
    changes = {k: v for k, v in settings.items() if k not in bounds}
    limits = limits_lib.from_dict(bounds)
    table = None
    if latency_table is not None:
      table = latency_tables.load(storage.path(latency_table), self.space)
    return searching.search(
      self.workdir, strategy, limits, changes, table, self._data
    )

  def extract(self, which: str | dict[str, Any] | Arch, out: str) -> 'Network':
    """Writes a child package, checked against the supernet; and loads it."""
    text = arch_lib.to_json(self.arch(which))
    place = storage.path(out)
    extraction.extract(self.workdir, text, place, data=self._data)
    return load_child(out)


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
  """A child on its own.

  Attributes:
    arch: its architecture.
    info: contents of `child.json`.
  """

  arch: Arch
  info: dict[str, Any]
  _child: child.Child

  def __call__(self, images: np.ndarray | jax.Array) -> jax.Array:
    """Logits.

    Args:
      images: uint8 [batch, size, size, channels]: of the supernet's
        (`info['input']['image_size']`) or any other size.

    Returns:
      float32 [batch, classes].
    """
    if images.dtype != np.uint8:
      raise TypeError(f'images are {images.dtype}, not uint8')
    return self._logits(self._child.variables, jnp.asarray(images))

  @functools.cached_property
  def _logits(self) -> Any:
    told, space = self.info['input'], self._child.space
    where = sharding.mesh(jax.devices()[:1])
    mean, std = tuple(told['mean']), tuple(told['std'])
    alone = model.Model(space=space, where=where, mean=mean, std=std)
    net = supernet.Supernet(space)

    @jax.jit
    def logits(variables, pixels):
      return net.apply(variables, alone.images(pixels, self.arch.resolution))

    return logits


def load_run(workdir: str, data: str = '') -> Run:
  """Reads the newest checkpoint of a run.

  Args:
    workdir: of the run.
    data: where its data are now; '': where they were.

  Raises:
    UserError: the directory is not a trained run's, or the data are not those
      that it was trained on.
  """
  path = storage.path(workdir)
  return Run(path, trained.load(path, data), data)


def load_child(directory: str) -> Network:
  """Reads a child package.

  Raises:
    UserError: a file is missing, damaged, or does not fit the other.
  """
  found = child.load(storage.path(directory))
  return Network(found.arch, found.info, found)
