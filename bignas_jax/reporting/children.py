"""Each extracted child as a picture."""

from bignas_jax.costs.layers import layers
from bignas_jax.reporting import plots
from bignas_jax.reporting.run_files import ChildFile, RunFiles
from bignas_jax.spaces import arch as arch_lib


def pictures(run: RunFiles) -> dict[str, str]:
  """Draws every extracted child."""
  return {f'blocks{i}': _drawn(child) for i, child in enumerate(run.children)}


def _drawn(child: ChildFile) -> str:
  """Draws a child from the image to the classes."""
  bars = []
  for layer in layers(child.space, arch_lib.biggest(child.space)):
    if layer.is_block:
      name, kind = f'x{layer.expand_ratio}', f'kernel {layer.kernel_size}'
      name += ' se' if layer.of(child.space).se else ''
      bars.append((name, layer.width_out, layer.size_out, kind))
    else:
      size = layer.size_in if layer.stage else layer.size_out
      bars.append((layer.name, layer.width_out, size, 'convolution'))
  return plots.blocks(bars)
