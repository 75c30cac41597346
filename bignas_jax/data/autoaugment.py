"""AutoAugment and RandAugment, with their policies as tables.

A policy is a tuple of sub-policies, one of which is drawn for each image. An
operation in it is a name, a probability and a level from 0 to 10; `OPERATIONS`
translates the level. Images are uint8 and have their final size.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from bignas_jax.data import color_ops

Operation = tuple[str, float, float]  # name, probability, level
Policy = tuple[tuple[Operation, Operation], ...]

# The largest shift over the width: 150 of 331 pixels in the paper's images.
_FARTHEST = 150 / 331


def _enhance(level: float) -> float:
  return 0.1 + 0.18 * level


# For each name: the function; how a level becomes its argument (None: it takes
# none); whether the argument's sign is drawn (AutoAugment, table 6). Lower
# levels of `Solarize` and of both kinds of `Posterize` are the stronger ones.
OPERATIONS: dict[str, tuple[Callable[..., Any], Callable | None, bool]] = {
  'AutoContrast': (color_ops.auto_contrast, None, False),
  'Brightness': (color_ops.brightness, _enhance, False),
  'Color': (color_ops.color, _enhance, False),
  'Contrast': (color_ops.contrast, _enhance, False),
  'Equalize': (color_ops.equalize, None, False),
  'Identity': (color_ops.identity, None, False),
  'Invert': (color_ops.invert, None, False),
  # 0 to 4 bits in EfficientNet's code, where 0 acts as 1: TensorFlow shifts a
  # byte by at most 7. The paper has 4 to 8.
  'Posterize': (color_ops.posterize, lambda m: max(1, int(0.4 * m)), False),
  'PosterizeOriginal': (color_ops.posterize, lambda m: 4 + int(0.4 * m), False),
  'Rotate': (color_ops.rotate, lambda m: 3 * m, True),
  'Sharpness': (color_ops.sharpness, _enhance, False),
  'ShearX': (color_ops.shear_x, lambda m: 0.03 * m, True),
  'ShearY': (color_ops.shear_y, lambda m: 0.03 * m, True),
  'Solarize': (color_ops.solarize, lambda m: int(25.6 * m), False),
  'SolarizeAdd': (color_ops.solarize_add, lambda m: int(11 * m), False),
  'TranslateX': (color_ops.translate_x, lambda m: _FARTHEST * m / 10, True),
  'TranslateY': (color_ops.translate_y, lambda m: _FARTHEST * m / 10, True),
}

# `v0` of EfficientNet's code (tensorflow/tpu), which is not the paper's table
# although it bears the paper's name.
V0: Policy = (
  (('Equalize', 0.8, 1), ('ShearY', 0.8, 4)),
  (('Color', 0.4, 9), ('Equalize', 0.6, 3)),
  (('Color', 0.4, 1), ('Rotate', 0.6, 8)),
  (('Solarize', 0.8, 3), ('Equalize', 0.4, 7)),
  (('Solarize', 0.4, 2), ('Solarize', 0.6, 2)),
  (('Color', 0.2, 0), ('Equalize', 0.8, 8)),
  (('Equalize', 0.4, 8), ('SolarizeAdd', 0.8, 3)),
  (('ShearX', 0.2, 9), ('Rotate', 0.6, 8)),
  (('Color', 0.6, 1), ('Equalize', 1.0, 2)),
  (('Invert', 0.4, 9), ('Rotate', 0.6, 0)),
  (('Equalize', 1.0, 9), ('ShearY', 0.6, 3)),
  (('Color', 0.4, 7), ('Equalize', 0.6, 0)),
  (('Posterize', 0.4, 6), ('AutoContrast', 0.4, 7)),
  (('Solarize', 0.6, 8), ('Color', 0.6, 9)),
  (('Solarize', 0.2, 4), ('Rotate', 0.8, 9)),
  (('Rotate', 1.0, 7), ('TranslateY', 0.8, 9)),
  (('ShearX', 0.0, 0), ('Solarize', 0.8, 4)),
  (('ShearY', 0.8, 0), ('Color', 0.6, 4)),
  (('Color', 1.0, 0), ('Rotate', 0.6, 2)),
  (('Equalize', 0.8, 4), ('Equalize', 0.0, 8)),
  (('Equalize', 1.0, 4), ('AutoContrast', 0.6, 2)),
  (('ShearY', 0.4, 7), ('SolarizeAdd', 0.6, 7)),
  (('Posterize', 0.8, 2), ('Solarize', 0.6, 10)),
  (('Solarize', 0.6, 8), ('Equalize', 0.6, 1)),
  (('Color', 0.8, 6), ('Rotate', 0.4, 5)),
)

# AutoAugment (Cubuk et al., CVPR 2019, arXiv:1805.09501), table 9: ImageNet.
ORIGINAL: Policy = (
  (('PosterizeOriginal', 0.4, 8), ('Rotate', 0.6, 9)),
  (('Solarize', 0.6, 5), ('AutoContrast', 0.6, 5)),
  (('Equalize', 0.8, 8), ('Equalize', 0.6, 3)),
  (('PosterizeOriginal', 0.6, 7), ('PosterizeOriginal', 0.6, 6)),
  (('Equalize', 0.4, 7), ('Solarize', 0.2, 4)),
  (('Equalize', 0.4, 4), ('Rotate', 0.8, 8)),
  (('Solarize', 0.6, 3), ('Equalize', 0.6, 7)),
  (('PosterizeOriginal', 0.8, 5), ('Equalize', 1.0, 2)),
  (('Rotate', 0.2, 3), ('Solarize', 0.6, 8)),
  (('Equalize', 0.6, 8), ('PosterizeOriginal', 0.4, 6)),
  (('Rotate', 0.8, 8), ('Color', 0.4, 0)),
  (('Rotate', 0.4, 9), ('Equalize', 0.6, 2)),
  (('Equalize', 0.0, 7), ('Equalize', 0.8, 8)),
  (('Invert', 0.6, 4), ('Equalize', 1.0, 8)),
  (('Color', 0.6, 4), ('Contrast', 1.0, 8)),
  (('Rotate', 0.8, 8), ('Color', 1.0, 2)),
  (('Color', 0.8, 8), ('Solarize', 0.8, 7)),
  (('Sharpness', 0.4, 7), ('Invert', 0.6, 8)),
  (('ShearX', 0.6, 5), ('Equalize', 1.0, 9)),
  (('Color', 0.4, 0), ('Equalize', 0.6, 3)),
  (('Equalize', 0.4, 7), ('Solarize', 0.2, 4)),
  (('Solarize', 0.6, 5), ('AutoContrast', 0.6, 5)),
  (('Invert', 0.6, 4), ('Equalize', 1.0, 8)),
  (('Color', 0.6, 4), ('Contrast', 1.0, 8)),
  (('Equalize', 0.8, 8), ('Equalize', 0.6, 3)),
)

AUTOAUGMENT = {'autoaugment': V0, 'autoaugment_original': ORIGINAL}

# RandAugment (Cubuk et al., 2019, arXiv:1909.13719), figure 2.
RANDAUGMENT = (
  'Identity',
  'AutoContrast',
  'Equalize',
  'Rotate',
  'Solarize',
  'Color',
  'Posterize',
  'Contrast',
  'Brightness',
  'Sharpness',
  'ShearX',
  'ShearY',
  'TranslateX',
  'TranslateY',
)


def autoaugment(
  rng: np.random.Generator, image: np.ndarray, policy: Policy
) -> np.ndarray:
  """Applies a randomly drawn sub-policy, each operation with its probability.

  Args:
    rng: draws the sub-policy, whether each operation is applied, and signs.
    image: uint8 [height, width, channels], with 1 or 3 channels.
    policy: one of the policies in AUTOAUGMENT.

  Returns:
    An image with the input's shape and type.
  """
  for name, probability, level in policy[int(rng.integers(len(policy)))]:
    if rng.random() < probability:
      image = _apply(rng, image, name, level)
  return image


def randaugment(
  rng: np.random.Generator, image: np.ndarray, layers: int, magnitude: float
) -> np.ndarray:
  """Applies `layers` operations of RANDAUGMENT in a row, drawn uniformly.

  Args:
    rng: draws the operations and their signs.
    image: uint8 [height, width, channels], with 1 or 3 channels.
    layers: number of operations; the paper's N.
    magnitude: level of each operation, 0 to 10; the paper's M.

  Returns:
    An image with the input's shape and type.
  """
  for _ in range(layers):
    name = RANDAUGMENT[int(rng.integers(len(RANDAUGMENT)))]
    image = _apply(rng, image, name, magnitude)
  return image


def _apply(
  rng: np.random.Generator, image: np.ndarray, name: str, level: float
) -> np.ndarray:
  function, strength, signed = OPERATIONS[name]
  if strength is None:
    return function(image)
  value = strength(level)
  if signed and rng.random() < 0.5:
    value = -value
  return function(image, value)
