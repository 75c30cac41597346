"""The layout of the AttentiveNAS code base, which AlphaNet's is as well.

It is Once-for-All's, with a head of its own and convolutions in shortcuts.
Source: the names and shapes of the published supernets' files.
"""

import functools

from bignas_jax.conversion import once_for_all
from bignas_jax.conversion.layouts import Layout

LAYOUT = Layout(
  tensors=functools.partial(
    once_for_all.tensors,
    head='last_conv.final_expand_layer',
    last_conv='last_conv.feature_mix_layer',
  ),
  renamed=once_for_all.RENAMED,
  # Every block has a shortcut there, and uses it where the width changes.
  unused=once_for_all.AVERAGES + r'|blocks\.\d+\.shortcut\.conv\.weight',
  resize='pytorch',
  image_size=224,
)
