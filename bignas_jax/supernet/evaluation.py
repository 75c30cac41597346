"""Calibrated accuracy of children: statistics first, then top-1 and top-5.

A child of the supernet has no batch-norm statistics of its own until it is
calibrated (BigNAS, section 3): E[x] and E[x^2] of every batch norm's input,
pooled over all calibration images. All children of one resolution share two
compiled programs.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, UInt8

from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.arch import Arch, Indices
from bignas_jax.supernet import network
from bignas_jax.supernet.model import Model
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.system import xla
from bignas_jax.system.mesh import REPLICATED
from bignas_jax.values import schema

Tree = Any

_KEPT_BYTES = 2**30  # images that each device may keep from child to child


@dataclasses.dataclass(kw_only=True, slots=True)
class Calibration:
  """Settings for the calibration of a child's batch-norm statistics.

  Attributes:
    images: number of augmented training images, a multiple of the batch size.
    batch_size: number of images in a batch.
    seed: seed of the choice and augmentation of the images.
  """

  images: schema.Natural = 512
  batch_size: schema.Natural = 256
  seed: schema.Seed = 0


class Score(NamedTuple):
  """A child's accuracies on a set of images, in 0..1."""

  top1: float
  top5: float
  images: int


class Evaluator:
  """An evaluator, with calibration, of the children of a model's space.

  Args:
    model: the supernet on its mesh, or a single network.
    calibration: batches of augmented training images, all of one size.
    split: padded batches with a `mask`.
  """

  def __init__(
    self,
    model: Model,
    calibration: Sequence[Tree],
    split: Sequence[Tree],
  ):
    self._model, self._net = model, model.net()
    self._programs: dict[tuple[str, int], Callable] = {}
    self._calibration = [
      mesh_lib.spread(model.mesh, {'image': b['image']}) for b in calibration
    ]
    self._like, self.split = on_devices(model.mesh, split)

  def score(self, params: Tree, arch: Arch) -> Score:
    """Returns top-1 and top-5 of a child with its own statistics.

    Args:
      params: parameters of the model's network.
      arch: the child.
    """
    return self.evaluate(params, self.calibrate(params, arch), arch)

  def calibrate(self, params: Tree, arch: Arch) -> Tree:
    """Returns the child's statistics, `mean` and `var` of every batch norm."""
    indices = self._indices(arch)
    return pooled(
      self._program('moments', arch.resolution)(params, batch, indices)
      for batch in self._calibration
    )

  def evaluate(self, params: Tree, stats: Tree, arch: Arch) -> Score:
    """Returns top-1 and top-5 with the given statistics."""
    totals = np.zeros(3)
    for batch in self.split:
      logits = self.logits(params, stats, batch, arch)
      # Waits, or else streamed batches would pile up on the devices.
      totals += jax.device_get(count_right(logits, batch))
    top1, top5, images = totals
    return Score(float(top1 / images), float(top5 / images), int(images))

  def logits(
    self, params: Tree, stats: Tree, batch: Tree, arch: Arch
  ) -> Float[Array, 'batch classes']:
    """Returns logits of one batch of images, in float32."""
    program = self._program('logits', arch.resolution)
    return program(params, stats, batch, self._indices(arch))

  def _indices(self, arch: Arch) -> Tree:
    space, mesh = self._model.space, self._model.mesh
    if arch_lib.is_one(space):
      return None
    return mesh_lib.put(mesh, arch_lib.encode(space, arch), REPLICATED)

  def _program(self, kind: str, resolution: int) -> Callable:
    if (kind, resolution) not in self._programs:
      self.compile([resolution])
    return self._programs[kind, resolution]

  def compile(self, resolutions: Iterable[int]) -> None:
    """Compiles the programs for children of these resolutions in parallel."""
    kinds = ['moments'] * bool(self._calibration) + ['logits']
    self._programs |= xla.compile_all(
      {
        (kind, resolution): functools.partial(self._lower, kind, resolution)
        for resolution in set(resolutions)
        for kind in kinds
        if (kind, resolution) not in self._programs
      }
    )

  def _lower(self, kind: str, resolution: int) -> Any:
    space, mesh = self._model.space, self._model.mesh
    params, stats = network.shapes(space), network.stats_shapes(space)
    params, stats = mesh_lib.described(mesh, (params, stats), REPLICATED)
    indices = self._indices(arch_lib.biggest(space))
    split = mesh_lib.split(mesh)
    if kind == 'moments':
      function, specs = self._moments, (REPLICATED, split, REPLICATED)
      arguments, out = (params, self._calibration[0], indices), REPLICATED
    else:
      function, out = self._logits, split
      specs = (REPLICATED, REPLICATED, split, REPLICATED)
      arguments = (params, stats, self._like, indices)
    run = functools.partial(function, resolution)
    return jax.jit(
      mesh_lib.per_device(mesh, specs, out)(run),
      compiler_options=xla.compiler_options(mesh_lib.platform(mesh)),
    ).lower(*arguments)

  def _moments(self, resolution, params, batch, indices):
    nets, pixels = (self._model, self._net), batch['image']
    _, moments = observe(*nets, resolution, params, pixels, indices)
    return moments

  def _logits(
    self, resolution, params, stats, batch, indices
  ) -> Float[Array, 'batch classes']:
    images = self._model.images(batch['image'], resolution)
    params = self._model.resolve(params, indices)
    variables = {'params': params, 'batch_stats': stats}
    logits: Any = self._net.apply(variables, images, indices)
    return logits


def observe(
  model: Model,
  net: network.Supernet,
  resolution: int,
  params: Tree,
  pixels: UInt8[Array, 'batch size size channels'],
  indices: Indices | None,
) -> tuple[Float[Array, 'batch classes'], Tree]:
  """Returns a child's logits by the batch's own statistics, and its moments.

  Args:
    model: the supernet; each device of its mesh runs this on its images.
    net: `model.net()`.
    resolution: the child's.
    params: parameters of the supernet.
    pixels: images of one batch.
    indices: the child; None where the space holds one architecture only.
  """
  images = model.images(pixels, resolution)
  params = model.resolve(params, indices)
  logits, out = net.apply(
    {'params': params}, images, indices, mutable=['moments']
  )
  return logits, out['moments']


def pooled(batches: Iterable[Tree]) -> Tree:
  """Returns `mean` and `var` of every batch norm, from moments of batches.

  Args:
    batches: the moments of each of several equal batches, as `observe` returns
      them.
  """
  total, count = None, 0
  for moments in batches:
    total = moments if total is None else _add(total, moments)
    count += 1
  return statistics(total, count)


def on_devices(
  mesh: Mesh, split: Sequence[Tree]
) -> tuple[Tree, Iterable[Tree]]:
  """Returns batches on a mesh: kept there, or read again for each child.

  Args:
    mesh: mesh of devices.
    split: batches of one shape, at least one.

  Returns:
    Shapes of a batch; and the batches, a list unless they would take more than
    a gibibyte of each device (50,000 images of 320 pixels: fifteen on one).
  """
  batches = iter(split)
  first = next(batches)
  like = mesh_lib.described(mesh, first, mesh_lib.split(mesh))
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(first)) * len(split)
  if size / mesh.size > _KEPT_BYTES:
    return like, _Streamed(mesh, split)
  every = itertools.chain([first], batches)
  return like, [mesh_lib.spread(mesh, batch) for batch in every]


@dataclasses.dataclass(frozen=True)
class _Streamed:
  mesh: Mesh
  batches: Sequence[Tree]

  def __iter__(self) -> Iterator[Tree]:
    return (mesh_lib.spread(self.mesh, batch) for batch in self.batches)


@jax.jit
def count_right(
  logits: Float[Array, 'batch classes'], batch: Tree
) -> Int[Array, '3']:
  """Returns a masked batch's [right at first guess, right within five, images].

  Equal logits, or NaNs, are guessed in the order of the classes: a network
  that has collapsed is right by chance.
  """
  mask = batch['mask'][:, None]
  _, guesses = jax.lax.top_k(logits, min(5, logits.shape[-1]))
  right = mask & (guesses == batch['label'][:, None])
  return jnp.stack([right[:, :1].sum(), right.sum(), mask.sum()])


@jax.jit
def _add(a: Tree, b: Tree) -> Tree:
  return jax.tree.map(jnp.add, a, b)


@functools.partial(jax.jit, static_argnums=1)
def statistics(moments: Tree, batches: int) -> Tree:
  """Returns mean and variance from sums of E[x] and E[x^2] of equal batches."""
  if set(moments) == {'mean', 'square'}:
    mean = moments['mean'] / batches
    var = jnp.maximum(moments['square'] / batches - mean**2, 0)
    return {'mean': mean, 'var': var}
  return {name: statistics(inner, batches) for name, inner in moments.items()}


def initial_statistics(like: Tree) -> Tree:
  """Returns mean 0 and variance 1 everywhere, for an uncalibrated child."""
  if set(like) == {'mean', 'var'}:
    return {
      'mean': jnp.zeros_like(like['mean']),
      'var': jnp.ones_like(like['var']),
    }
  return {name: initial_statistics(inner) for name, inner in like.items()}
