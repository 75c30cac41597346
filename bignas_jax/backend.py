"""What a process tells XLA."""

import pathlib

import jax


def compiler_options(platform: str) -> dict[str, bool]:
  """XLA's options for a platform, such as `cpu`.

  On CPUs its older emitters of fused loops take two thirds of the time to
  compile, for code that runs as fast (docs/performance.md).
  """
  if platform != 'cpu':
    return {}
  return {'xla_cpu_use_fusion_emitters': False}


def keep_programs(directory: pathlib.Path) -> None:
  """Keeps compiled programs there, unless the user has named a place."""
  if jax.config.values['jax_compilation_cache_dir'] is None:
    jax.config.update('jax_compilation_cache_dir', str(directory))
