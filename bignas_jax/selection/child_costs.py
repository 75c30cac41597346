"""All costs of a child by name, which limits can be set on."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from bignas_jax.costs import counting
from bignas_jax.costs.limits import Cost
from bignas_jax.deploy import package
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.supernet import derived, network
from bignas_jax.values import errors, schema

# Each cost and its unit.
NAMES = {
  'macs': 'multiply-adds for one image',
  'params': 'parameters',
  'activation_bytes': 'bytes of activations of one image at a time, float32',
  'file_bytes': 'bytes of model.safetensors',
  'memory_bytes': 'bytes of weights and activations of a batch, when served',
  'latency_ms': 'milliseconds, predicted from measured blocks',
}
PRECISIONS = {'float32': 4, 'bfloat16': 2, 'float16': 2, 'int8': 1}


class Memory(NamedTuple):
  """How a child is served, for the cost `memory_bytes`.

  Attributes:
    batch: number of images that are computed at a time.
    precision: type of weights and activations.
  """

  batch: int = 1
  precision: str = 'float32'


def check(memory: Memory) -> None:
  """Raises UserError if a batch or a precision is not allowed."""
  natural: Any = schema.Natural
  schema.convert(natural, schema.plain(memory.batch), '--memory_batch')
  if schema.plain(memory.precision) not in [*PRECISIONS]:
    allowed = errors.one_of(PRECISIONS, memory.precision)
    raise errors.UserError('--memory_precision', memory.precision, allowed)


def of(
  space: Space,
  latency_ms: Callable[[Arch], float] | None = None,
  memory: Memory = Memory(),  # noqa: B008 (a tuple of constants)
) -> Cost:
  """Returns a function that returns all costs of a child of the space, by name.

  `file_bytes` is an upper bound on the size of the file: parameters,
  statistics, and a header as long as that of the whole supernet, whose blocks
  are arrays of their own if choices are made for each.

  Args:
    space: space of the children.
    latency_ms: function that predicts a child's latency; None: there is no such
      cost.
    memory: batch and precision of the cost `memory_bytes`.
  """
  largest = _of_single_blocks(space) if space.per_block else space
  header = package.header_bytes(network.variables_shapes(largest))

  @functools.cache
  def costs(arch: Arch) -> dict[str, float]:
    total = counting.cost(space, arch)
    activations = counting.peak_activations(space, arch)
    values: dict[str, float] = {
      'macs': total.macs,
      'params': total.params,
      'activation_bytes': 4 * activations,
      'file_bytes': 4 * (total.params + total.statistics) + header,
      'memory_bytes': _served_bytes(total, activations, memory),
    }
    if latency_ms is not None:
      values['latency_ms'] = latency_ms(arch)
    return values

  return costs


def _served_bytes(
  total: counting.Cost, activations: int, memory: Memory
) -> int:
  """Returns the bytes of weights and of a batch's activations at their peak.

  Batch norms are folded, as in exports: of the scale and the bias of a norm, a
  bias is left. Biases have four bytes whatever the precision, as in int8
  exports. A runtime's own memory is not counted.

  Args:
    total: cost of the whole child.
    activations: most entries of one image's activations at one time.
    memory: batch and precision.
  """
  size, biases = PRECISIONS[memory.precision], total.statistics // 2
  weights = total.params - total.statistics
  return size * (weights + memory.batch * activations) + 4 * biases


def _of_single_blocks(space: Space) -> Space:
  """Returns the space with a stage for each block at its largest depth."""
  stages = [
    dataclasses.replace(
      stage,
      depth=(1,),
      stride=1 if block else stage.stride,
      parallel=(),
      zero_start=False,
    )
    for stage in derived.plain(space).stages
    for block in range(max(stage.depth))
  ]
  return dataclasses.replace(space, stages=tuple(stages), per_block=False)
