"""Each extracted child as a picture."""

from bignas_jax.reporting import plots
from bignas_jax.reporting.run_files import ChildFile, Run
from bignas_jax.spaces import counting


def pictures(run: Run) -> dict[str, str]:
  """Draws every extracted child."""
  return {f'blocks{i}': _drawn(child) for i, child in enumerate(run.children)}


def _drawn(child: ChildFile) -> str:
  """Draws a child from the image to the classes."""
  arch, size = child.arch, child.rows[0].resolution
  rows = [('stem', arch.width[0], size, 'convolution')]
  for block in counting.blocks(child.space, arch):
    ratio, kind = f'x{block.expand_ratio}', f'kernel {block.kernel_size}'
    rows.append((ratio, block.width_out, block.small, kind))
    size = block.small
  rows.append(('head', arch.width[-1], size, 'convolution'))
  return plots.blocks(rows)
