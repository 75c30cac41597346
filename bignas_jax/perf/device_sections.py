"""The sections of `benchmark device`: what is measured, and at which sizes.

A section yields one row, a dict of JSON values, for each measurement.
"""

import dataclasses
import functools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bignas_jax.costs import counting
from bignas_jax.methods import loss_graph
from bignas_jax.methods.step import Setup
from bignas_jax.operations.pointwise import pointwise
from bignas_jax.perf import (
  depthwise_time,
  scaling,
  step_time,
  timing,
  torch_cases,
)
from bignas_jax.policies import sandwich
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import zoo
from bignas_jax.supernet import batch_norm, evaluation
from bignas_jax.system import hardware

Row = dict[str, Any]
RESOLUTION = 224  # of all networks, pixels
_STEPS = 'bignas', 'attentive_nas'  # spaces of sandwich steps

B0_SPACE = zoo.get('efficientnet_b0')
B0 = arch_lib.biggest(B0_SPACE)


class _Sizes(NamedTuple):
  """Sizes that a platform measures in a few minutes.

  Attributes:
    dtype: dtype of activations.
    bytes: bytes of the array whose copy gives the bandwidth.
    product: side of the matrices whose product gives the peak.
    batch: images of convolutions and batch norms.
    alone: batch sizes of EfficientNet-B0.
    steps: batch sizes of sandwich steps. The first one is also compared with
      static children and with PyTorch.
    recompute: whether static children recompute in the backward pass; of
      several, the fastest counts.
    evaluated: images that a child is calibrated on, and evaluated on.
    rounds: measurements of which the median is reported.
    further: steps of other children, in which retraces are counted.
  """

  dtype: str
  bytes: int
  product: int
  batch: int
  alone: Sequence[int]
  steps: Sequence[int]
  recompute: Sequence[bool]
  evaluated: tuple[int, int]
  rounds: int
  further: int


_CPU = _Sizes(*('float32', 2**27, 1024, 2, (8,), (8,), (False,), (8, 16), 3, 5))
_ACCELERATOR = _Sizes(
  'bfloat16',
  *(2**30, 8192, 128, (128, 256), (128, 64, 256), (False,), (512, 2048), 9, 20),
)


def _sizes() -> _Sizes:
  return _CPU if jax.default_backend() == 'cpu' else _ACCELERATOR


def _bandwidth(sizes: _Sizes) -> float:
  """Returns bytes read and written a second by a copy in memory."""
  array = jnp.ones(sizes.bytes // 4, jnp.float32)
  copy = jax.jit(lambda x: x + 1)
  took = timing.back_to_back({'': lambda: copy(array)}, sizes.rounds)['']
  return 2 * array.nbytes / took


def _machine(sizes: _Sizes) -> Iterator[Row]:
  side = jax.random.normal(jax.random.key(0), (sizes.product,) * 2, sizes.dtype)
  product = jax.jit(lambda x: x @ x)
  took = timing.back_to_back({'': lambda: product(side)}, sizes.rounds)['']
  device = jax.devices()[0]
  yield {
    'device': device.device_kind,
    'platform': device.platform,
    'cpu': hardware.cpu(),
    'cores': os.cpu_count(),
    'versions': {'jax': jax.__version__, 'jaxlib': metadata.version('jaxlib')},
    'dtype': sizes.dtype,
    'bandwidth': _bandwidth(sizes),
    'flops': 2 * sizes.product**3 / took,
  }


def _depthwise(sizes: _Sizes) -> Iterator[Row]:
  yield from depthwise_time.measure(
    sizes.batch, sizes.dtype, _bandwidth(sizes), sizes.rounds
  )


def _pointwise(sizes: _Sizes) -> Iterator[Row]:
  """Times pointwise convolutions and batch norms of EfficientNet-B0."""
  bandwidth = _bandwidth(sizes)
  for size, narrow, wide in ((56, 24, 144), (14, 112, 672), (7, 192, 1152)):
    shape = sizes.batch, size, size
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (*shape, narrow), sizes.dtype)
    h = jax.random.normal(keys[1], (*shape, wide), sizes.dtype)
    kernel = jax.random.normal(keys[2], (narrow, wide), sizes.dtype)
    params = {'scale': jnp.ones(wide), 'bias': jnp.zeros(wide)}

    def norm(h, params):
      return batch_norm.batch_norm(
        *(h, params, None, 1e-3, batch_norm.Pooling()), activation='swish'
      )[0]

    runs = {
      'pointwise': jax.jit(pointwise),
      'pointwise gradients': jax.jit(_gradients(pointwise)),
      'batch norm': jax.jit(norm),
      'batch norm gradients': jax.jit(_gradients(norm)),
    }
    given = {
      'pointwise': (x, kernel),
      'pointwise gradients': (x, kernel, h),
      'batch norm': (h, params),
      'batch norm gradients': (h, params, h),
    }
    # Moments are a pass of their own, before what is normalised is written.
    moved = {
      'pointwise': x.nbytes + h.nbytes,
      'pointwise gradients': 2 * (x.nbytes + h.nbytes),
      'batch norm': 3 * h.nbytes,
      'batch norm gradients': 7 * h.nbytes,
    }
    took = timing.back_to_back(
      {
        name: functools.partial(run, *given[name]) for name, run in runs.items()
      },
      sizes.rounds,
    )
    for name, seconds in took.items():
      yield {
        'what': name,
        'shape': [*shape, narrow, wide],
        'us': 1e6 * seconds,
        'floor_us': 1e6 * moved[name] / bandwidth,
      }


def _gradients(function: Callable) -> Callable:
  def run(*arguments):
    *primal, cotangent = arguments
    return jax.vjp(function, *primal)[1](cotangent)

  return run


def _b0(batch: int, sizes: _Sizes) -> Setup:
  """Returns the setup of training steps of EfficientNet-B0."""
  return dataclasses.replace(
    step_time.describe(B0_SPACE, batch, sizes.dtype, jax.devices()[:1]),
    policy=sandwich.alone(B0_SPACE),
    rule=loss_graph.Rule(edges=loss_graph.Rule().edges[:1]),
  )


def _sandwich(name: str, batch: int, sizes: _Sizes) -> Setup:
  """Returns the setup of sandwich steps of a space, at one resolution."""
  only = (RESOLUTION,)
  space = dataclasses.replace(
    zoo.get(name), resolution=only, train_resolution=only
  )
  return step_time.describe(space, batch, sizes.dtype, jax.devices()[:1])


def _alone(sizes: _Sizes) -> Iterator[Row]:
  """Times training steps of EfficientNet-B0."""
  macs = counting.cost(B0_SPACE, B0).macs
  for batch in sizes.alone:
    row = scaling.measure(_b0(batch, sizes), sizes.rounds)
    # A multiply-add counts as two; the backward pass takes twice the forward's.
    flops = 6 * macs * row['images_per_s']
    yield {'batch': batch, 'network_flops_per_s': flops} | row


def _step(name: str, sizes: _Sizes) -> Iterator[Row]:
  """Times a sandwich step of a space against its static children."""
  yield step_time.step(
    zoo.get(name),
    batch=sizes.steps[0],
    resolution=RESOLUTION,
    dtype=sizes.dtype,
    rounds=sizes.rounds,
    recompute=sizes.recompute,
    further=sizes.further,
  )


def _batches(sizes: _Sizes) -> Iterator[Row]:
  """Times sandwich steps by batch size."""
  for name in _STEPS:
    for batch in sizes.steps[1:]:
      row = scaling.measure(_sandwich(name, batch, sizes), sizes.rounds)
      yield {'space': name, 'batch': batch} | row


def _children(sizes: _Sizes) -> Iterator[Row]:
  """Times the calibration and evaluation of children of `attentive_nas`."""
  setup = _sandwich('attentive_nas', sizes.evaluated[0], sizes)
  space = setup.model.space
  arrays = step_time.random_batch(setup)
  batch = {name: np.asarray(array) for name, array in arrays.items()}
  batch['mask'] = np.ones(len(batch['label']), bool)
  split = [batch] * (sizes.evaluated[1] // sizes.evaluated[0])
  evaluator = evaluation.Evaluator(setup.model, [batch], split)
  params = step_time.first_state(setup).params
  evaluator.compile([RESOLUTION])
  rng = np.random.default_rng(0)
  seconds = []
  for _ in range(sizes.rounds + 1):
    child = arch_lib.sample(space, rng)
    began = time.perf_counter()
    evaluator.score(params, child)
    seconds.append(time.perf_counter() - began)
  yield {
    'space': space.name,
    'calibration_images': sizes.evaluated[0],
    'images': sizes.evaluated[1],
    'children_per_minute': 60 / statistics.median(seconds[1:]),
  }


def _torch(sizes: _Sizes) -> Iterator[Row]:
  """Times the same steps by plain networks in PyTorch.

  On CPUs, sandwich steps are not compiled: it would take minutes.
  """
  alone = [_b0(batch, sizes) for batch in sizes.alone]
  steps = [_sandwich(name, sizes.steps[0], sizes) for name in _STEPS]
  accelerated = jax.default_backend() != 'cpu'
  case = functools.partial(torch_cases.case, rounds=sizes.rounds)
  plain = [case(setup) for setup in (*alone, *steps)]
  compiled = [
    case(setup, compiled=True)
    for setup in (*alone, *(steps if accelerated else ()))
  ]
  # On accelerators, PyTorch is faster when it compiles: those come first.
  cases = compiled + plain if accelerated else plain + compiled
  yield from torch_cases.run(cases)


# In the order in which they are measured.
_SECTIONS: dict[str, Callable[[_Sizes], Iterator[Row]]] = {
  'machine': _machine,
  'b0': _alone,
  **{name: functools.partial(_step, name) for name in _STEPS},
  'torch': _torch,
  'depthwise': _depthwise,
  'children': _children,
  'pointwise': _pointwise,
  'batches': _batches,
}
SECTIONS = tuple(_SECTIONS)
LATE_ON_CPUS = *_STEPS, 'torch', 'batches'


def run(name: str) -> Iterator[Row]:
  """Yields the measurements of a section, at the sizes of this platform."""
  return _SECTIONS[name](_sizes())
