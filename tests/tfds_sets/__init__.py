"""A data set that tests prepare with TFDS's own writer.

TFDS finds a builder's files by its package: one in a plain module fails.
"""

import io

import cv2
import numpy as np
import tensorflow_datasets as tfds

NAMES = ('dark', 'middle', 'light')
IMAGES = {'train': 24, 'test': 9}


def pixels(number):
  """An image that tells its class, and which one it is."""
  rng = np.random.default_rng(number)
  noise = rng.integers(0, 60, (20, 24 + number % 5, 3))
  return (noise + 80 * (number % 3)).astype(np.uint8)


class Shades(tfds.core.GeneratorBasedBuilder):
  """Gray squares of three classes, as PNG."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(
        {
          'picture': tfds.features.Image(shape=(None, None, 3)),
          'shade': tfds.features.ClassLabel(names=NAMES),
          'number': tfds.features.Scalar(np.int64),
        }
      ),
    )

  def _split_generators(self, manager):
    del manager
    return {split: self._generate_examples(n) for split, n in IMAGES.items()}

  def _generate_examples(self, images):
    for number in range(images):
      # Bytes are stored as they are; an array would need TensorFlow.
      shown = pixels(number)[..., ::-1]  # OpenCV's order of channels
      encoded = io.BytesIO(cv2.imencode('.png', shown)[1].tobytes())
      shade = number % 3
      yield number, {'picture': encoded, 'shade': shade, 'number': number}


class Captions(Shades):
  """Images without a label."""

  def _info(self):
    features = {
      'picture': tfds.features.Image(shape=(None, None, 3)),
      'caption': tfds.features.Text(),
    }
    features = tfds.features.FeaturesDict(features)
    return self.dataset_info_from_configs(features=features)

  def _generate_examples(self, images):
    for number, example in super()._generate_examples(images):
      yield number, {'picture': example['picture'], 'caption': 'gray'}


def prepare(builder, directory, **changes):
  """Writes a set as `tfds build` does."""
  settings = {'file_format': 'array_record'} | changes
  builder(data_dir=directory, **settings).download_and_prepare()
