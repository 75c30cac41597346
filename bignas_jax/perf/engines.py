"""What runs a piece on this machine: JAX, or ONNX Runtime on its CPUs."""

import functools
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax

from bignas_jax.deploy import onnx, stablehlo
from bignas_jax.perf.workloads import Piece
from bignas_jax.system import xla
from bignas_jax.values import errors

_REPEATS = 8  # of a part in a program of JAX's


class Run(NamedTuple):
  """What starts a program, and how often it computes its piece."""

  start: Callable[[], Any]
  repeats: int = 1


def check(names: Sequence[str]) -> None:
  """Raises UserError: a name is none, or its packages are missing."""
  for name in names:
    if name not in RUNTIMES:
      raise errors.UserError('--runtime', name, errors.one_of(RUNTIMES, name))
    if name == 'onnx':
      onnx.check()


def versions(name: str) -> dict[str, str]:
  """Of the packages that compute."""
  packages = ('onnxruntime',) if name == 'onnx' else ('jax', 'jaxlib')
  return {package: metadata.version(package) for package in packages}


def prepare(
  name: str, pieces: Mapping[Any, Piece], batch: int
) -> dict[Any, Run]:
  """Compiles pieces; by name, what runs each on images by chance.

  Weights are constants, as in an artifact. JAX finds images on its device; a
  part of a network it computes several times in one program, which pays for
  one call, as a network does.
  """
  return RUNTIMES[name](pieces, batch)


def _images(piece: Piece, batch: int) -> np.ndarray:
  rng = np.random.default_rng(0)
  return rng.standard_normal((batch, *piece.shape), np.float32)


def _jax(pieces: Mapping[Any, Piece], batch: int) -> dict[Any, Run]:
  options = xla.compiler_options(jax.devices()[0].platform)

  def lower(piece: Piece):
    run = functools.partial(piece.run, stablehlo.Jax(), piece.params)
    if not piece.whole:
      run = functools.partial(_repeatedly, run)
    like = jax.ShapeDtypeStruct((batch, *piece.shape), np.float32)
    return jax.jit(run, compiler_options=options).lower(like)

  compiled = xla.compile_all(
    {name: functools.partial(lower, piece) for name, piece in pieces.items()}
  )
  return {
    name: Run(
      functools.partial(compiled[name], jax.device_put(_images(piece, batch))),
      1 if piece.whole else _REPEATS,
    )
    for name, piece in pieces.items()
  }


def _repeatedly(run: Callable[[Any], Any], images: jax.Array) -> jax.Array:
  """Runs it as often as `_REPEATS` says, each time on other images.

  They differ in one number, which comes from the result before: nothing can be
  left out, or computed once for all.
  """

  def body(_, images):
    out = lax.optimization_barrier(run(images))
    one = 1e-3 * out.reshape(-1)[:1].reshape((1,) * images.ndim)
    return lax.dynamic_update_slice(images, one, (0,) * images.ndim)

  return lax.fori_loop(0, _REPEATS, body, images)


def _onnx(pieces: Mapping[Any, Piece], batch: int) -> dict[Any, Run]:
  made = {}
  for name, piece in pieces.items():
    images = _images(piece, batch)
    out = piece.shape_out
    if not piece.whole:
      images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
      out = out if len(out) == 1 else (out[2], *out[:2])
    model = onnx.model(
      lambda library, x, piece=piece: piece.run(library, piece.params, x),
      piece.shape,
      out,
      channels_first=not piece.whole,
    )
    made[name] = Run(functools.partial(onnx.load_bytes(model), images))
  return made


RUNTIMES = {'jax': _jax, 'onnx': _onnx}
