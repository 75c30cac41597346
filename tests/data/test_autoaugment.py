"""AutoAugment and RandAugment: operations against Pillow's, policies' data."""

import collections

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageOps
import pytest

from bignas_jax.data import autoaugment, color_ops


def picture(channels=3, size=64) -> np.ndarray:
  """Waves with a little noise: every brightness, edges and smooth parts."""
  rng = np.random.RandomState(0)
  y, x = np.mgrid[:size, :size] / size
  waves = [np.sin(7 * x + c) * np.cos(5 * y - c) for c in range(channels)]
  image = 120 + 90 * np.stack(waves, -1) + rng.normal(0, 6, (size, size, 1))
  image[10:20, 30:50] //= 2
  return image.clip(5, 240).astype(np.uint8)


def pil(image: np.ndarray) -> PIL.Image.Image:
  return PIL.Image.fromarray(image if image.shape[2] == 3 else image[..., 0])


def enhanced(kind, factor):
  return lambda image: kind(image).enhance(factor)


def moved(*coefficients):
  return lambda image: image.transform(
    image.size,
    PIL.Image.Transform.AFFINE,
    coefficients,
    PIL.Image.Resampling.NEAREST,
    fillcolor=128 if image.mode == 'L' else (128,) * 3,
  )


def added(image):
  return image.point(
    [min(v + 40, 255) if v < 128 else v for v in range(256)]
    * len(image.getbands())
  )


# Ours, Pillow's, the largest difference allowed, and the fraction of entries
# that may differ by more: nearest pixels of points between two are rounded.
CASES = {
  'invert': (color_ops.invert, PIL.ImageOps.invert, 0, 0),
  'auto_contrast': (color_ops.auto_contrast, PIL.ImageOps.autocontrast, 1, 0),
  'equalize': (color_ops.equalize, PIL.ImageOps.equalize, 0, 0),
  'solarize_add': (lambda i: color_ops.solarize_add(i, 40), added, 0, 0),
  **{
    f'posterize {bits}': (
      lambda i, b=bits: color_ops.posterize(i, b),
      lambda i, b=bits: PIL.ImageOps.posterize(i, b),
      0,
      0,
    )
    for bits in (1, 3, 4, 8)
  },
  **{
    f'solarize {t}': (
      lambda i, t=t: color_ops.solarize(i, t),
      lambda i, t=t: PIL.ImageOps.solarize(i, t),
      0,
      0,
    )
    for t in (0, 77, 128, 256)
  },
  **{
    f'{name} {factor}': (
      lambda i, f=factor, n=name: getattr(color_ops, n)(i, f),
      enhanced(getattr(PIL.ImageEnhance, name.title()), factor),
      2 if name == 'color' else 1,  # Pillow truncates, and its luma differs
      0,
    )
    for name in ('brightness', 'color', 'contrast', 'sharpness')
    for factor in (0.1, 0.64, 1.0, 1.9)
  },
  **{
    f'rotate {degrees}': (
      lambda i, d=degrees: color_ops.rotate(i, d),
      lambda i, d=degrees: i.rotate(
        d, fillcolor=128 if i.mode == 'L' else (128,) * 3
      ),
      0,
      0.01,
    )
    for degrees in (-27, 12, 90)
  },
  'shear_x': (
    lambda i: color_ops.shear_x(i, 0.27),
    moved(1, 0.27, 0, 0, 1, 0),
    0,
    0.01,
  ),
  'shear_y': (
    lambda i: color_ops.shear_y(i, -0.23),
    moved(1, 0, 0, -0.23, 1, 0),
    0,
    0.01,
  ),
  'translate_x': (
    lambda i: color_ops.translate_x(i, 0.25),
    moved(1, 0, 16, 0, 1, 0),
    0,
    0,
  ),
  'translate_y': (
    lambda i: color_ops.translate_y(i, -0.5),
    moved(1, 0, 0, 0, 1, -32),
    0,
    0,
  ),
}


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('name', CASES)
def test_an_operation_does_what_pillow_does(name, channels):
  ours, theirs, tolerance, exceptions = CASES[name]
  image = picture(channels)
  before = image.copy()
  out = ours(image)
  assert out.shape == image.shape and out.dtype == np.uint8
  np.testing.assert_array_equal(image, before)
  expected = np.asarray(theirs(pil(image))).reshape(image.shape)
  difference = np.abs(out.astype(int) - expected)
  assert (difference > tolerance).mean() <= exceptions
  if name.split()[-1] not in ('1.0', '8', '256') and (
    channels == 3 or not name.startswith('color')
  ):
    assert (out != image).any()


@pytest.mark.parametrize('value', [0, 7, 255])
def test_an_image_of_one_color_has_no_contrast_to_stretch(value):
  image = np.full((9, 9, 3), value, np.uint8)
  for operation in (color_ops.auto_contrast, color_ops.equalize):
    np.testing.assert_array_equal(operation(image), image)


@pytest.mark.parametrize('policy', autoaugment.AUTOAUGMENT.values())
def test_a_policy_has_25_pairs_of_operations(policy):
  assert len(policy) == 25
  for pair in policy:
    assert len(pair) == 2
    for name, probability, level in pair:
      assert name in autoaugment.OPERATIONS
      assert 0 <= probability <= 1 and 0 <= level <= 10


def test_the_policies_are_those_published():
  """Operations of the tables, counted, and a row of each."""
  counts = {
    name: collections.Counter(op[0] for pair in policy for op in pair)
    for name, policy in autoaugment.AUTOAUGMENT.items()
  }
  assert counts['autoaugment_original'] == {
    'Equalize': 17,
    'Rotate': 6,
    'Solarize': 7,
    'PosterizeOriginal': 5,
    'Color': 6,
    'Invert': 3,
    'AutoContrast': 2,
    'Contrast': 2,
    'Sharpness': 1,
    'ShearX': 1,
  }
  assert counts['autoaugment'] == {
    'Equalize': 12,
    'Color': 9,
    'Solarize': 8,
    'Rotate': 7,
    'ShearY': 4,
    'SolarizeAdd': 2,
    'ShearX': 2,
    'Posterize': 2,
    'AutoContrast': 2,
    'Invert': 1,
    'TranslateY': 1,
  }
  assert autoaugment.ORIGINAL[17] == (('Sharpness', 0.4, 7), ('Invert', 0.6, 8))
  assert autoaugment.V0[15] == (('Rotate', 1.0, 7), ('TranslateY', 0.8, 9))
  assert len(set(autoaugment.RANDAUGMENT)) == 14


def test_chances_are_those_of_the_policy():
  image, rng = picture(), np.random.default_rng(0)
  always = ((('Invert', 1.0, 0), ('Solarize', 0.0, 0)),)
  for _ in range(20):
    out = autoaugment.autoaugment(rng, image, always)
    np.testing.assert_array_equal(out, 255 - image)
  half = ((('Invert', 0.5, 0), ('Identity', 1.0, 0)),)
  changed = sum(
    bool((autoaugment.autoaugment(rng, image, half) != image).any())
    for _ in range(400)
  )
  assert 160 <= changed <= 240


@pytest.mark.parametrize('channels', [1, 3])
def test_policies_are_functions_of_the_generator(channels):
  image = picture(channels)
  for apply in (
    lambda rng: autoaugment.autoaugment(rng, image, autoaugment.V0),
    lambda rng: autoaugment.autoaugment(rng, image, autoaugment.ORIGINAL),
    lambda rng: autoaugment.randaugment(rng, image, 2, 9),
  ):
    seen = [apply(np.random.default_rng(seed)) for seed in range(60)]
    again = [apply(np.random.default_rng(seed)) for seed in range(60)]
    for a, b in zip(seen, again, strict=True):
      assert a.shape == image.shape and a.dtype == np.uint8
      np.testing.assert_array_equal(a, b)
    assert len({a.tobytes() for a in seen}) > 12


def test_randaugment_applies_as_many_layers_as_asked_for(monkeypatch):
  image, rng = picture(), np.random.default_rng(0)
  np.testing.assert_array_equal(
    autoaugment.randaugment(rng, image, 0, 9), image
  )
  monkeypatch.setattr(autoaugment, 'RANDAUGMENT', ('Invert',))
  for layers in (1, 2, 3):
    out = autoaugment.randaugment(rng, image, layers, 9)
    np.testing.assert_array_equal(out, 255 - image if layers % 2 else image)


def test_signs_are_drawn():
  image, rng = picture(), np.random.default_rng(0)
  policy = ((('Rotate', 1.0, 5), ('Identity', 0.0, 0)),)
  seen = {
    autoaugment.autoaugment(rng, image, policy).tobytes() for _ in range(20)
  }
  assert seen == {color_ops.rotate(image, d).tobytes() for d in (-15, 15)}
