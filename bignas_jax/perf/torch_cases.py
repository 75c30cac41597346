"""Training steps as `torch_peer` takes them, and their times there."""

import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from bignas_jax.costs import layers
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.spaces.stage import squeeze_width

Row = dict[str, Any]
_PEER = pathlib.Path(__file__).with_name('torch_peer.py')


def case(
  name: str, space: Space, archs: Sequence[Arch], batch: int, rounds: int
) -> Row:
  """Describes a training step.

  Args:
    name: name of the step in its result.
    space: space of the children, all blocks `mbconv`.
    archs: children of one resolution, the biggest first. The others learn its
      logits.
    batch: batch size, images.
    rounds: measured steps, of which the median is reported.
  """
  return {
    'name': name,
    'batch': batch,
    'resolution': archs[0].resolution,
    'classes': space.classes,
    'children': [_described(space, arch) for arch in archs],
    'compile': False,
    'rounds': rounds,
  }


def _described(space: Space, arch: Arch) -> Row:
  """Returns the sizes of a child's layers, as `torch_peer` reads them."""
  stem, *blocks, head = layers.layers(space, arch)
  return {
    'stem': stem.width_out,
    'head': head.width_out,
    'activation': space.stages[0].activation,
    'blocks': [_block(space, block) for block in blocks],
  }


def _block(space: Space, block: layers.Layer) -> Row:
  stage = block.of(space)
  hidden = block.convs(space)[-1].width_in
  squeeze = 0
  if stage.se:
    squeeze = squeeze_width(stage.se, block.width_in, hidden)
  return {
    'name': block.name.replace('.', '_'),
    'width_in': block.width_in,
    'width_out': block.width_out,
    'hidden': hidden,
    'kernel_size': block.kernel_size,
    'stride': block.stride(space),
    'squeeze': squeeze,
    'activation': stage.activation,
  }


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
