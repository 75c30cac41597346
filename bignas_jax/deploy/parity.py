"""Comparison of an artifact with its child, on real images."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from bignas_jax.data import pipeline
from bignas_jax.data.identity import Opened
from bignas_jax.deploy.package import Child
from bignas_jax.supernet import model as model_lib
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.system import xla

_BATCH = 100  # images
_IMAGES = 1000  # to quantise a child by that was not calibrated here


class Samples(NamedTuple):
  """Batches of images to compare on, and the child's logits for them."""

  images: list[np.ndarray]  # what goes into an artifact
  logits: np.ndarray  # [images, classes]
  labels: np.ndarray  # [images]

  @property
  def scale(self) -> float:
    """Returns the largest absolute value of the logits."""
    return float(np.abs(self.logits).max())


def samples(
  child: Child, opened: Opened, preprocess: bool, count: int
) -> Samples:
  """Returns images spread evenly over the test split, and the child's logits.

  Args:
    child: computes the logits.
    opened: the child's data.
    preprocess: whether artifacts take uint8 images.
    count: number of images; if the split has fewer, all are used.
  """
  model = model_lib.of_child(child.space, child.info['input'])
  net = model.net(child.own_arch)
  options = xla.compiler_options(mesh_lib.platform(model.mesh))

  def evaluate(variables, pixels):
    images = model.images(pixels, child.arch.resolution)
    return images, net.apply(variables, images)

  program = jax.jit(evaluate, compiler_options=options)
  images, logits, labels = [], [], []
  for pixels, answers in _pixels(child, opened, 'test', count):
    inputs, said = jax.device_get(program(child.variables, pixels))
    images.append(pixels if preprocess else inputs)
    logits.append(said)
    labels.append(answers)
  return Samples(images, np.concatenate(logits), np.concatenate(labels))


def calibration(
  child: Child, opened: Opened, preprocess: bool
) -> list[np.ndarray]:
  """Returns training images to quantise by, in batches.

  They are processed as in evaluation, except for what the artifact does itself
  if `preprocess` is True.
  """
  model = model_lib.of_child(child.space, child.info['input'])
  count = (child.info['calibration'] or {'images': _IMAGES})['images']
  batches = (pixels for pixels, _ in _pixels(child, opened, 'train', count))
  if preprocess:
    return list(batches)
  resize = jax.jit(lambda x: model.images(x, child.arch.resolution))
  return [np.asarray(resize(pixels)) for pixels in batches]


def _pixels(
  child: Child, opened: Opened, split: str, count: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields batches of uint8 images and labels, without damaged images."""
  source = getattr(opened.splits, split)
  count = min(count, len(source))
  some = source.subset([i * len(source) // count for i in range(count)])
  batches = pipeline.eval_batches(
    some,
    opened.data,
    batch_size=min(_BATCH, count),
    resolution=child.info['input']['image_size'],
  )
  for batch in batches:
    mask = batch['mask']
    yield batch['image'][mask], batch['label'][mask]


def compare(
  run: Callable[[np.ndarray], np.ndarray], samples: Samples, tie: float = 0.0
) -> dict[str, Any]:
  """Compares an artifact's logits with those of the child.

  Args:
    run: the artifact, a function from images to logits.
    samples: images to compare on.
    tie: largest gap between the child's two highest logits at which the image
      is a tie, since rounding may exchange them.

  Returns:
    A dict of the largest difference of logits, both absolute and over their
    scale; the number of ties; the share of other images whose highest logit is
    at the same class; top-1; and the median of milliseconds per image.
  """
  logits, seconds = [], []
  for images in samples.images:
    start = time.perf_counter()
    logits.append(run(images))
    seconds.append((time.perf_counter() - start) / len(images))
  theirs = np.concatenate(logits)
  guesses = theirs.argmax(-1)
  difference = float(np.abs(theirs - samples.logits).max())
  decided = _gaps(samples.logits) > tie
  same = (guesses == samples.logits.argmax(-1))[decided]
  return {
    'images': len(theirs),
    'max_abs_diff': difference,
    'max_diff_over_scale': _ratio(difference, samples.scale),
    'ties': int((~decided).sum()),
    'top1_agreement': float(same.mean()) if len(same) else 1.0,
    'top1': float((guesses == samples.labels).mean()),
    'ms_per_image': 1000 * float(np.median(seconds)),
  }


def _gaps(logits: np.ndarray) -> np.ndarray:
  """Returns the gap between each image's two highest logits, [images]."""
  if logits.shape[-1] < 2:
    return np.full(len(logits), np.inf)
  second, first = np.moveaxis(np.partition(logits, -2)[..., -2:], -1, 0)
  return first - second


def _ratio(difference: float, scale: float) -> float:
  """Returns difference / scale, also if all of a child's logits are zero."""
  if scale == 0:
    return 0.0 if difference == 0 else float('inf')
  return difference / scale


def reference(samples: Samples) -> dict[str, Any]:
  """Returns what the child itself says of the images, for a manifest."""
  guesses = samples.logits.argmax(-1)
  return {
    'split': 'test',
    'images': len(guesses),
    'top1': float((guesses == samples.labels).mean()),
    'logits_scale': samples.scale,
  }
