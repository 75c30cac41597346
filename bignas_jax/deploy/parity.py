"""What an artifact computes, held against its child on real images."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from bignas_jax.data import pipeline
from bignas_jax.data.identity import Opened
from bignas_jax.deploy.package import Child
from bignas_jax.supernet.model import Model
from bignas_jax.system import mesh, xla

_BATCH = 100  # images


class Samples(NamedTuple):
  """Images to compare on, in batches, and what the child says of them."""

  images: list[np.ndarray]  # what goes into an artifact
  logits: np.ndarray  # [images, classes]
  labels: np.ndarray  # [images]

  @property
  def scale(self) -> float:
    """Of logits: the largest one, whatever its sign."""
    return float(np.abs(self.logits).max())


def samples(
  child: Child, opened: Opened, preprocess: bool, count: int
) -> Samples:
  """Images of the test split, evenly over it, and the child's logits.

  Args:
    child: computes them.
    opened: its data.
    preprocess: whether artifacts take uint8 images.
    count: of images; fewer if there are fewer.
  """
  model = _model(child)
  net = model.net(child.arch)
  options = xla.compiler_options(mesh.platform(model.where))

  def evaluate(variables, pixels):
    images = model.images(pixels, child.arch.resolution)
    return images, net.apply(variables, images)

  program = jax.jit(evaluate, compiler_options=options)
  images, logits, labels = [], [], []
  for pixels, answers in _pixels(child, opened, 'test', count):
    seen, said = jax.device_get(program(child.variables, pixels))
    images.append(pixels if preprocess else seen)
    logits.append(said)
    labels.append(answers)
  return Samples(images, np.concatenate(logits), np.concatenate(labels))


def calibration(
  child: Child, opened: Opened, preprocess: bool
) -> list[np.ndarray]:
  """Training images to quantise by, in batches, as evaluation sees them."""
  model, count = _model(child), child.info['calibration']['images']
  batches = (pixels for pixels, _ in _pixels(child, opened, 'train', count))
  if preprocess:
    return list(batches)
  resize = jax.jit(lambda x: model.images(x, child.arch.resolution))
  return [np.asarray(resize(pixels)) for pixels in batches]


def _model(child: Child) -> Model:
  given = child.info['input']
  return Model(
    space=child.space,
    where=mesh.mesh(jax.devices()[:1]),
    mean=tuple(given['mean']),
    std=tuple(given['std']),
  )


def _pixels(
  child: Child, opened: Opened, split: str, count: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Batches of uint8 images and labels; damaged images are left out."""
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
  """Holds what an artifact computes against what the child does.

  Args:
    run: images to logits.
    samples: to compare on.
    tie: the child's choice is a tie where its two highest logits are no
      further apart, so that rounding may exchange them.

  Returns:
    Largest difference of logits, by itself and over their scale; how many
    images are ties, and the share of all others whose highest logit is the
    same; top-1; median milliseconds an image.
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
  """Between the two highest logits of each image: [images]."""
  if logits.shape[-1] < 2:
    return np.full(len(logits), np.inf)
  second, first = np.moveaxis(np.partition(logits, -2)[..., -2:], -1, 0)
  return first - second


def _ratio(difference: float, scale: float) -> float:
  """Also where all of a child's logits are zero."""
  if scale == 0:
    return 0.0 if difference == 0 else float('inf')
  return difference / scale
