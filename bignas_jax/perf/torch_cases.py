"""Training steps as `torch_peer` takes them, and their times there.

A step is described as data: the layers of its children, by the same walk over
layers that costs and exports read, and all constants of its loss and update.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from bignas_jax.costs import layers
from bignas_jax.methods.step import Setup
from bignas_jax.perf import step_time
from bignas_jax.spaces import block_kinds
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.spaces.stage import squeeze_width

Row = dict[str, Any]
_PEER = pathlib.Path(__file__).with_name('torch_peer.py')


def case(setup: Setup, rounds: int, *, compiled: bool = False) -> Row:
  """Describes the training step of a setup, as one JSON value.

  Args:
    setup: a setup of `step_time.describe`, whose blocks are all `mbconv` with
      slices as smaller kernels, and whose children have one resolution. The
      first child of a step learns the labels, the others its logits.
    rounds: measured steps, of which the median is reported.
    compiled: whether PyTorch compiles the network.
  """
  space, rule = setup.model.space, setup.rule
  of_policy = setup.policy.init(0)
  archs = [one.arch for one in setup.policy.sample(of_policy, 0, 0, None)]
  children = [_child(space, arch) for arch in archs]
  shapes = _shapes(children)
  first = [name for name in _shapes(children[:1]) if name.endswith('_kernel')]
  return {
    'name': space.name,
    'batch': setup.batch_size,
    'compiled': compiled,
    'rounds': rounds,
    'resolution': archs[0].resolution,
    'channels': space.channels,
    'classes': space.classes,
    'mean': setup.model.mean,
    'std': setup.model.std,
    'mixed': setup.model.dtype.name == 'bfloat16',
    'epsilon': space.bn_epsilon,
    'children': children,
    'shapes': shapes,
    'decayed': first,
    'weight_decay': rule.weight_decay,
    'dropout': rule.dropout,
    'label_smoothing': rule.label_smoothing,
    'rate': step_time.RATE,
    'optimizer': dataclasses.asdict(step_time.OPTIMIZER),
  }


def _child(space: Space, arch: Arch) -> Row:
  """Returns the layers of a child with their sizes."""
  stem, *blocks, head = layers.layers(space, arch)
  features, act = head.width_out, space.activation
  hidden, first, last = features, None, None
  if space.head_expand is not None:
    hidden = head.width_in * space.head_expand
    last = _dense('head_last_conv', hidden, features, act)
  if space.head_width:
    first = _conv('head_conv', head.width_in, hidden, activation=act)
  widths, size = (stem.width_in, stem.width_out), space.stem_kernel
  return {
    'stem': _conv(
      'stem_conv', *widths, size, space.stem_stride, activation=act
    ),
    'blocks': [_block(space, block) for block in blocks],
    'head': first,
    'last_conv': last,
    'classifier': _dense('classifier', features, space.classes, bias=True),
  }


def _block(space: Space, block: layers.Layer) -> Row:
  stage, name = block.of(space), block.name.replace('.', '_')
  sized, squeeze, shortcut = block.convs(space), [], None
  convs = [
    _conv(
      f'{name}_{one.conv.name}',
      *(one.width_in, one.width_out, one.kernel_size, one.stride),
      groups=one.width_in if one.conv.kind == 'depthwise' else 1,
      activation=stage.activation if one.conv.activated else None,
    )
    for one in sized
  ]
  if stage.se is not None:
    hidden = sized[-1].width_in
    width = squeeze_width(stage.se, block.width_in, hidden)
    act, gate = stage.se.activation, stage.se.gate
    squeeze = [
      _dense(f'{name}_se_reduce', hidden, width, act, bias=True),
      _dense(f'{name}_se_expand', width, hidden, gate, bias=True),
    ]
  if block.has_shortcut(space):
    stride, widths = block.stride(space), (block.width_in, block.width_out)
    pooled = stage.shortcut in block_kinds.POOLED_SHORTCUTS and stride == 2
    conv = _conv(
      f'{name}_shortcut',
      *widths,
      stride=1 if pooled else stride,
      normed=block_kinds.has_normed_shortcut(stage),
    )
    there = block.has_shortcut_conv(space)
    shortcut = {'pooled': pooled, 'conv': conv if there else None}
  return {'convs': convs, 'squeeze': squeeze, 'shortcut': shortcut}


def _conv(
  name: str,
  width_in: int,
  width_out: int,
  kernel_size: int = 1,
  stride: int = 1,
  *,
  groups: int = 1,
  normed: bool = True,
  activation: str | None = None,
) -> Row:
  """Returns a convolution, with the batch norm and activation after it."""
  return {
    'name': name,
    'kernel': [width_out, width_in // groups, kernel_size, kernel_size],
    'stride': stride,
    'groups': groups,
    'others': ['scale', 'bias'] if normed else [],
    'activation': activation,
  }


def _dense(
  name: str,
  width_in: int,
  width_out: int,
  activation: str | None = None,
  *,
  bias: bool = False,
) -> Row:
  """Returns a dense layer, with the activation after it."""
  return {
    'name': name,
    'kernel': [width_out, width_in],
    'others': ['bias'] if bias else [],
    'activation': activation,
  }


def _shapes(value: Any) -> dict[str, list[int]]:
  """Returns shapes of the parameters of all layers in a nested value.

  Of a parameter that several children have, the largest size along each axis.
  """
  shapes: dict[str, list[int]] = {}
  if isinstance(value, list):
    for one in value:
      for name, shape in _shapes(one).items():
        there = shapes.get(name, shape)
        shapes[name] = [*map(max, there, shape)]
  elif isinstance(value, dict) and 'kernel' in value:
    name, kernel = value['name'], value['kernel']
    shapes[f'{name}_kernel'] = kernel
    shapes |= {f'{name}_{other}': kernel[:1] for other in value['others']}
  elif isinstance(value, dict):
    shapes = _shapes([*value.values()])
  return shapes


def run(cases: Sequence[Row]) -> Iterator[Row]:
  """Yields the result of each step, as soon as it is measured."""
  with tempfile.TemporaryDirectory() as directory:
    path = pathlib.Path(directory) / 'cases.json'
    path.write_text(json.dumps(cases))
    yield from _lines([sys.executable, str(_PEER), str(path)])


def _lines(command: Sequence[str]) -> Iterator[Row]:
  """Yields the JSON lines that a command prints, as soon as it prints them."""
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
    assert process.stdout is not None
    for line in process.stdout:
      yield json.loads(line)
  if process.returncode:
    raise subprocess.CalledProcessError(process.returncode, command)
