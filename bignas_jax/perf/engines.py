"""Runtimes that run workloads here: JAX, or ONNX Runtime on the CPUs."""

import functools
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax

from bignas_jax.deploy import onnx, stablehlo
from bignas_jax.perf.workloads import Workload
from bignas_jax.system import xla
from bignas_jax.values import errors

_REPEATS = 8  # computations of a part in one JAX program


class Run(NamedTuple):
  """A compiled program that is ready to run.

  Attributes:
    start: a function that starts the program and returns its arrays.
    repeats: how often one run of the program computes its workload.
  """

  start: Callable[[], Any]
  repeats: int = 1


def check(names: Sequence[str]) -> None:
  """Raises UserError if a runtime is unknown or its packages are missing."""
  for name in names:
    if name not in RUNTIMES:
      raise errors.UserError('--runtime', name, errors.one_of(RUNTIMES, name))
    if name == 'onnx':
      onnx.check()


def versions(name: str) -> dict[str, str]:
  """Returns the versions of the packages that a runtime computes with."""
  packages = ('onnxruntime',) if name == 'onnx' else ('jax', 'jaxlib')
  return {package: metadata.version(package) for package in packages}


def prepare(
  name: str, workloads: Mapping[Any, Workload], batch: int
) -> dict[Any, Run]:
  """Compiles each workload for a runtime, with random images as its input.

  Weights are constants of the program, as in an artifact. In JAX, images
  already lie on the device. A part of a network is computed several times in
  one JAX program, which then pays for one call, as a whole network does.

  Args:
    name: name of the runtime, a key of `RUNTIMES`.
    workloads: the workloads, by any names.
    batch: batch size, images.

  Returns:
    The program of each workload, by the name of the workload.
  """
  return RUNTIMES[name](workloads, batch)


def _images(workload: Workload, batch: int) -> np.ndarray:
  rng = np.random.default_rng(0)
  return rng.standard_normal((batch, *workload.shape), np.float32)


def _jax(workloads: Mapping[Any, Workload], batch: int) -> dict[Any, Run]:
  options = xla.compiler_options(jax.devices()[0].platform)

  def lower(workload: Workload):
    run = functools.partial(workload.run, stablehlo.Jax(), workload.params)
    if not workload.whole:
      run = functools.partial(_repeatedly, run)
    like = jax.ShapeDtypeStruct((batch, *workload.shape), np.float32)
    return jax.jit(run, compiler_options=options).lower(like)

  compiled = xla.compile_all(
    {
      name: functools.partial(lower, workload)
      for name, workload in workloads.items()
    }
  )
  return {
    name: Run(
      functools.partial(
        compiled[name], jax.device_put(_images(workload, batch))
      ),
      1 if workload.whole else _REPEATS,
    )
    for name, workload in workloads.items()
  }


def _repeatedly(run: Callable[[Any], Any], images: jax.Array) -> jax.Array:
  """Applies a function `_REPEATS` times in a loop, each time to other images.

  One number of the images is taken from the result before, so that XLA can
  neither leave out an application nor compute it once for all.
  """

  def body(_, images):
    out = lax.optimization_barrier(run(images))
    one = 1e-3 * out.reshape(-1)[:1].reshape((1,) * images.ndim)
    return lax.dynamic_update_slice(images, one, (0,) * images.ndim)

  return lax.fori_loop(0, _REPEATS, body, images)


def _onnx(workloads: Mapping[Any, Workload], batch: int) -> dict[Any, Run]:
  made = {}
  for name, workload in workloads.items():
    images = _images(workload, batch)
    out = workload.shape_out
    if not workload.whole:
      images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
      out = out if len(out) == 1 else (out[2], *out[:2])
    model = onnx.model(
      lambda library, x, workload=workload: workload.run(
        library, workload.params, x
      ),
      workload.shape,
      out,
      channels_first=not workload.whole,
    )
    made[name] = Run(functools.partial(onnx.load_bytes(model), images))
  return made


RUNTIMES = {'jax': _jax, 'onnx': _onnx}
