"""What a process tells XLA."""

import pathlib
from typing import Any

import jax


def compiler_options(platform: str) -> dict[str, Any]:
  """XLA's options for a platform, such as `cpu`.

  On CPUs its older emitters of fused loops take two thirds of the time to
  compile, for code that runs as fast; and optimization barriers are kept until
  loops are fused, which otherwise fuses across them and is a fifth slower
  (docs/performance.md).
  """
  if platform != 'cpu':
    return {}
  return {
    'xla_cpu_use_fusion_emitters': False,
    'xla_disable_hlo_passes': 'cse_barrier_expander',
  }


def keep_programs(directory: pathlib.Path) -> None:
  """Keeps compiled programs there, unless the user has named a place."""
  if jax.config.values['jax_compilation_cache_dir'] is None:
    jax.config.update('jax_compilation_cache_dir', str(directory))
