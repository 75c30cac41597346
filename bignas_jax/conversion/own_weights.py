"""A supernet from arrays, for weights whose layout no module here describes.

Its parameters are nested dicts, as `network.shapes` describes them. There is no
run, so nothing says which images calibrate a child: they are given with it.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from bignas_jax.conversion import layouts
from bignas_jax.conversion.layouts import Odd
from bignas_jax.deploy import folding
from bignas_jax.deploy.package import Child
from bignas_jax.selection import extraction
from bignas_jax.selection.loaded_child import Network, check_images
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning, presets, zoo
from bignas_jax.spaces.arch import Arch
from bignas_jax.spaces.space import Space
from bignas_jax.supernet import evaluation, network
from bignas_jax.supernet.model import Model
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.system import xla
from bignas_jax.system.mesh import REPLICATED
from bignas_jax.values import errors, schema

Tree = Any
Images = np.ndarray | jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class OwnSupernet:
  """A supernet with weights that were made elsewhere.

  Attributes:
    params: its parameters, float32, as `parameter_shapes` describes them.
  """

  params: Tree
  _model: Model

  @property
  def space(self) -> Space:
    """Returns the space of the children."""
    return self._model.space

  def arch(self, which: str | dict[str, Any] | Arch) -> Arch:
    """Returns an architecture of the space.

    Args:
      which: `smallest`, `biggest`, a preset, a file of JSON; or the JSON form
        as text or as a dict; or an Arch.

    Raises:
      UserError: the space has no such child.
    """
    if not isinstance(which, str | dict | Arch):
      allowed = f'an Arch, its JSON form as a dict, {presets.WORDS}'
      raise errors.UserError('arch', which, allowed)
    text = which if isinstance(which, str) else json.dumps(schema.plain(which))
    return presets.parse(self.space, text)

  def logits(
    self, which: str | dict[str, Any] | Arch, images: Images
  ) -> jax.Array:
    """Returns logits by the images' own statistics, float32 [batch, classes].

    That is what the other code base computes in training, without dropout: the
    comparison that shows whether the parameters are in their places.

    Args:
      which: an architecture, as `arch` takes it.
      images: uint8 [batch, size, size, channels].

    Raises:
      UserError: there is no such child, or `images` are something else.
    """
    arch, batches = self.arch(which), self._batches(images)
    with xla.exact_products():
      return self._observe(arch, batches[0])[0]

  def child(
    self,
    which: str | dict[str, Any] | Arch,
    images: Images | Sequence[Images] | None = None,
  ) -> Network:
    """Returns a child on its own, calibrated on images.

    Args:
      which: an architecture, as `arch` takes it.
      images: training images, uint8 [batch, size, size, channels]; or several
        such batches of one shape, of which one at a time is computed. There is
        no child without: the supernet has no statistics of its own.

    Raises:
      UserError: there is no such child, or `images` are something else.
    """
    arch, batches = self.arch(which), self._batches(images)
    with xla.exact_products():
      stats = evaluation.pooled(
        self._observe(arch, pixels)[1] for pixels in batches
      )
      variables = {'params': self.params, 'batch_stats': stats}
      own = network.slice_child(self.space, variables, arch)
    own, space = jax.device_get(own), pinning.pin(self.space, arch)
    folded = any(stage.parallel for stage in space.stages)
    if folded:  # parallel members cannot be exported
      space, own = folding.fold(space, own)
    size = batches[0].shape[1]
    model = dataclasses.replace(self._model, image_size=size)
    info = extraction.describe_network(model, arch) | {
      'batch_norm': 'folded' if folded else 'kept',
      'calibration': {'images': sum(map(len, batches)), 'seed': None},
    }
    return Network(arch, info, Child(arch, space, own, info))

  def _batches(self, images: Any) -> list[Images]:
    """Returns images as batches of one shape; UserError if they are not."""
    batches = images if isinstance(images, list | tuple) else [images]
    for one in batches or [None]:
      check_images(one, self.space.channels)
    shapes = {one.shape for one in batches}
    if len(shapes) > 1 or 0 in next(iter(shapes)):
      allowed = 'batches of one shape, with at least one image'
      raise errors.UserError('images', sorted(shapes), allowed)
    return list(batches)

  def _observe(self, arch: Arch, pixels: Images) -> tuple[jax.Array, Tree]:
    """Returns a child's logits and moments of a batch."""
    alone = arch_lib.is_one(self.space)
    indices = None if alone else arch_lib.encode(self.space, arch)
    return self._program(arch.resolution, self.params, pixels, indices)

  @functools.cached_property
  def _program(self) -> Callable:
    """Returns `evaluation.observe` of this model, compiled where needed."""
    model, net = self._model, self._model.net()
    split = mesh_lib.split(model.mesh)
    specs = REPLICATED, split, REPLICATED

    def run(resolution, *arguments):
      observe = functools.partial(evaluation.observe, model, net, resolution)
      outs = split, REPLICATED
      return mesh_lib.per_device(model.mesh, specs, outs)(observe)(*arguments)

    return jax.jit(run, static_argnums=0)


def parameter_shapes(space: str | Space) -> Tree:
  """Returns the shapes of a supernet's parameters, float32.

  Args:
    space: name of a space, or a space of one's own.

  Returns:
    Nested dicts of `jax.ShapeDtypeStruct`.

  Raises:
    UserError: there is no such space.
  """
  return network.shapes(_space(space))


def make_supernet(
  space: str | Space,
  params: Tree,
  *,
  mean: Sequence[float],
  std: Sequence[float],
) -> OwnSupernet:
  """Returns a supernet with the given weights.

  Args:
    space: name of a space, or a space of one's own.
    params: nested dicts of finite arrays, as `parameter_shapes` describes them.
    mean: mean of each channel that pixels in 0..1 are normalised by.
    std: standard deviation of each channel, likewise.

  Raises:
    UserError: there is no such space; arrays are missing, are not in the space,
      have other shapes or are not finite; or there are not as many means and
      deviations as channels.
  """
  space = _space(space)
  mean = schema.convert(tuple[float, ...], schema.plain(mean), 'mean')
  std = schema.convert(tuple[schema.Positive, ...], schema.plain(std), 'std')
  for field, values in (('mean', mean), ('std', std)):
    if len(values) != space.channels:
      allowed = f'{space.channels} numbers, one a channel'
      raise errors.UserError(field, values, allowed)
  mesh = mesh_lib.create(jax.devices()[:1])
  arrays = mesh_lib.put(mesh, _checked(space, params), REPLICATED)
  return OwnSupernet(arrays, Model(space=space, mesh=mesh, mean=mean, std=std))


def _space(space: Any) -> Space:
  if not isinstance(space, str | Space):
    raise errors.UserError('space', space, 'a name, or a Space')
  return zoo.get(space)


def _checked(space: Space, params: Tree) -> Tree:
  """Returns parameters as float32 arrays of NumPy, if they are the space's."""
  shapes = network.shapes(space)
  wanted, given = _by_name(shapes), _by_name(params)
  layouts.check(
    'params',
    Odd('missing', [n for n in wanted if n not in given], 'with'),
    Odd('foreign', [n for n in given if n not in wanted], 'without'),
  )
  arrays = {name: _array(name, leaf) for name, leaf in given.items()}
  wrong = [
    f'{name} {arrays[name].shape} for {shape.shape}'
    for name, shape in wanted.items()
    if arrays[name].shape != shape.shape
  ]
  infinite = [n for n, a in arrays.items() if not np.isfinite(a).all()]
  layouts.check(
    'params',
    Odd('of another shape', wrong, f'the shapes of {space.name}:'),
    Odd('not finite', infinite, 'finite numbers in'),
  )
  return jax.tree.unflatten(
    jax.tree.structure(shapes), [arrays[name] for name in wanted]
  )


def _by_name(tree: Tree) -> dict[str, Any]:
  """Returns the leaves of nested dicts by names such as `stem.conv.kernel`."""
  return {
    jax.tree_util.keystr(path, simple=True, separator='.'): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _array(name: str, leaf: Any) -> np.ndarray:
  try:
    return np.asarray(leaf).astype(np.float32)
  except (TypeError, ValueError):
    kind = type(leaf).__name__
    raise errors.UserError(f'params.{name}', kind, 'an array') from None
