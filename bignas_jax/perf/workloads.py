"""Workloads to time: children and parts of them, with random weights.

The time of a computation does not depend on the values of the weights. The
shapes of the weights and the operations (`graph`) are those of a served child.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from bignas_jax.costs import latency
from bignas_jax.costs.layers import Layer
from bignas_jax.deploy import graph
from bignas_jax.deploy.graph import Network
from bignas_jax.spaces import block_kinds, pinning
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.spaces.stage import Stage
from bignas_jax.supernet import blocks, stage_blocks
from bignas_jax.supernet import network as network_lib
from bignas_jax.supernet.batch_norm import Pooling

_DEVIATION = 0.1  # of weights: neither overflow nor denormal numbers


@dataclasses.dataclass(frozen=True)
class Workload:
  """A function with its weights, to be timed.

  Attributes:
    run: function of a `graph.Library`, weights and images.
    params: weights, nested dicts of arrays.
    shape: shape of one input image, [size, size, channels].
    shape_out: shape of the output for one image.
    whole: whether the workload is a whole network, which takes images channels
      last in every runtime.
  """

  run: Callable[[Any, Any, Any], Any]
  params: Any
  shape: tuple[int, int, int]
  shape_out: tuple[int, ...]
  whole: bool


def of_network(network: Network) -> Workload:
  """Returns the workload of a child package's network, with its own weights."""
  space = network.space
  return Workload(
    lambda library, params, x: dataclasses.replace(
      network, params=params
    ).logits(library, x),
    network.params,
    network.shape,
    (space.classes,),
    whole=True,
  )


def of_child(space: Space, arch: Arch) -> Workload:
  """Returns the workload of a child with random weights, batch norms folded."""
  own = pinning.deployed(pinning.pin(space, arch))
  return Workload(
    lambda library, params, x: graph.logits(library, own, params, x),
    _weights(network_lib.shapes(own)),
    (arch.resolution, arch.resolution, space.channels),
    (space.classes,),
    whole=True,
  )


def of_layer(space: Space, layer: Layer) -> Workload:
  """Returns the workload of a stem, block or head."""
  shape = (layer.size_in, layer.size_in, layer.width_in)
  if layer.is_block:
    return _block(space, layer, shape)
  if layer.stage == 0:
    own = _around(space, space.stages[0], stem=layer.width_out)
    return Workload(
      lambda library, params, x: graph.stem(library, own, params, x),
      _weights(network_lib.shapes(own)['stem']),
      shape,
      _out(layer),
      whole=False,
    )
  widths = {'last': layer.width_in, 'head': layer.width_out}
  own = _around(space, space.stages[-1], **widths)
  shapes = network_lib.shapes(own)
  return Workload(
    lambda library, params, x: graph.head(library, own, params, x),
    _weights({n: shapes[n] for n in ('head', 'classifier') if n in shapes}),
    shape,
    (space.classes,),
    whole=False,
  )


def _block(space: Space, layer: Layer, shape: tuple[int, int, int]) -> Workload:
  stage, stride = layer.of(space), layer.stride(space)
  own = block_kinds.alone(stage, layer.kernel_size, layer.expand_ratio)
  own = dataclasses.replace(own, width=(layer.width_out,), depth=(1,))
  described = stage_blocks.Block(
    own,
    (layer.width_in,),
    layer.block == 0,
    layer.width_in != layer.width_out,
    space.padding,
    None,
    Pooling(),
  )
  return Workload(
    lambda library, params, x: graph.block(
      library,
      own,
      params,
      x,
      stride,
      space.padding,
      shortcut=layer.has_shortcut(space),
    ),
    _weights(blocks.shapes(described)),
    shape,
    _out(layer),
    whole=False,
  )


def _out(layer: Layer) -> tuple[int, int, int]:
  return layer.size_out, layer.size_out, layer.width_out


def _around(
  space: Space, stage: Stage, stem: int = 8, last: int = 8, head: int = 8
) -> Space:
  """Returns a space of a stem, a block like a stage's, and a head."""
  size = space.resolution[:1]
  own = block_kinds.alone(stage, stage.kernel_size[0], stage.expand_ratio[0])
  own = dataclasses.replace(own, width=(last,), depth=(1,), groups=1)
  return dataclasses.replace(
    space,
    resolution=size,
    train_resolution=size,
    stem_width=(stem,),
    stages=(own,),
    head_width=(head,) if space.head_width else (),
    per_block=False,
    multipliers=(),
    private_norms='no',
    bn_epsilon=None,
  )


def _weights(shapes: Any) -> Any:
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: _DEVIATION * rng.standard_normal(leaf.shape, np.float32),
    shapes,
  )


def of_layers(space: Space, wanted: list[Layer]) -> dict[str, Workload]:
  """Returns the workloads of layers, by their names in a latency table."""
  return {latency.name(layer): of_layer(space, layer) for layer in wanted}
