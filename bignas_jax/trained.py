"""A trained supernet, read back from its work directory."""

from typing import Any, NamedTuple

from etils import epath

from bignas_jax import backend, checkpoint, sharding, sources, supernet
from bignas_jax import config as config_lib
from bignas_jax import workdir as workdir_lib
from bignas_jax.config import Config
from bignas_jax.model import Model


class Run(NamedTuple):
  """A trained supernet, ready to be used."""

  config: Config
  model: Model
  splits: sources.Splits
  step: int
  params: Any


def load(workdir: epath.Path) -> Run:
  """Reads the newest checkpoint's parameters (the averaged ones, if kept).

  Raises:
    UserError: the directory is not a trained run's.
  """
  config = workdir_lib.load_config(workdir)
  backend.keep_programs(workdir / 'compiled')
  model = config_lib.model(config)
  like = sharding.described(
    model.where, supernet.shapes(model.space), sharding.REPLICATED
  )
  name = 'ema' if config.ema_decay > 0 else 'params'
  step, params = checkpoint.restore_params(workdir, like, name)
  splits = sources.load(config.data, model.space.channels)
  return Run(config, model, splits, step, params)
