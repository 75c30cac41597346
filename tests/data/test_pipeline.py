"""Laws of the input pipeline: what a batch may and may not depend on."""

import collections
import gc
import io
import itertools
import os
import pickle
import threading
import time

import cv2
import numpy as np
import PIL.Image
import pytest
import tiny

from bignas_jax.data import (
  decode,
  folders,
  identity,
  loader,
  pipeline,
  sources,
  transforms,
)
from bignas_jax.training import loop
from bignas_jax.values import errors


def mnist(**kwargs) -> sources.Data:
  fields = {'held_out': 500, 'augment': 'affine', 'mean': (0.13,)}
  fields |= {'name': 'mnist5k', 'std': (0.31,)} | kwargs
  return sources.Data(**fields)


def folder(directory, **kwargs) -> sources.Data:
  fields = {'held_out': 3, 'augment': 'crop', 'mean': (0.5,) * 3}
  fields |= {'name': 'image_folder', 'std': (0.25,) * 3} | kwargs
  return sources.Data(directory=str(directory), **fields)


@pytest.fixture(scope='module')
def splits():
  return sources.load(mnist(), channels=1)


def numbered(images: int) -> sources.ArraySource:
  """Each image is filled with its own index, which is its label too."""
  labels = np.arange(images, dtype=np.int32)
  pixels = np.broadcast_to(labels[:, None, None, None], (images, 8, 8, 1))
  names = tuple(map(str, labels))
  return sources.ArraySource(pixels.astype(np.uint8), labels, names)


def batches(source, seed=0, batch_size=4, how='none', resolution=8):
  return pipeline.train_batches(
    source,
    mnist(augment=how),
    batch_size=batch_size,
    resolution=resolution,
    seed=seed,
  )


def labels(dataset, steps) -> list[int]:
  return [int(label) for step in steps for label in dataset[step]['label']]


def assert_same(a, b):
  assert a.keys() == b.keys()
  for name in a:
    assert a[name].dtype == b[name].dtype
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)


# Splits.


def test_mnist_splits_are_disjoint_and_have_every_class(splits):
  assert [len(split) for split in splits] == [3500, 500, 1000, 0]
  for split in splits[:3]:
    assert np.bincount(split.labels).min() > len(split) / 20
  assert sum(np.bincount(split.labels) for split in splits[:3]).tolist() == (
    [500] * 10
  )
  seen = [image.tobytes() for split in splits for image in split.images]
  assert len(set(seen)) == 5000
  image, label = splits.train[0]
  assert image.shape == (28, 28, 1) and image.dtype == np.uint8
  assert type(label) is int


def test_mnist_splits_never_change(splits):
  """Golden labels of each split's first images.

  If these change, a run that is resumed trains on images that its children
  are chosen by and reported on, and no figure compares with an earlier one.
  """
  first = [split.labels[:12].tolist() for split in splits[:3]]
  assert first == GOLDEN_LABELS


def test_held_out_comes_off_the_training_set_alone(splits):
  other = sources.load(mnist(held_out=0), channels=1)
  assert [len(split) for split in other] == [4000, 0, 1000, 0]
  np.testing.assert_array_equal(other.test.images, splits.test.images)
  np.testing.assert_array_equal(other.train.images[:3500], splits.train.images)
  np.testing.assert_array_equal(
    other.train.images[3500:], splits.held_out.images
  )


def test_a_second_split_comes_off_what_is_trained_alone(splits, pictures):
  other = sources.load(mnist(second=700), channels=1)
  assert [len(split) for split in other] == [2800, 500, 1000, 700]
  for name in ('held_out', 'test'):
    ours, theirs = getattr(other, name), getattr(splits, name)
    np.testing.assert_array_equal(ours.images, theirs.images)
  both = np.concatenate([other.train.images, other.second.images])
  np.testing.assert_array_equal(both, splits.train.images)
  assert len({image.tobytes() for image in both}) == 3500
  # What describes the data of a run without one is as it was before.
  assert 'second' not in identity.describe(splits)
  assert identity.describe(other)['second']['images'] == 700
  plain = sources.load(folder(pictures), channels=3)
  more = sources.load(folder(pictures, second=4), channels=3)
  assert {*more.train.paths, *more.second.paths} == {*plain.train.paths}
  assert len(more.second) == 4 and len(more.train) == 9
  assert more.held_out.paths == plain.held_out.paths


def test_batches_of_the_second_split_are_as_evaluation_sees_images():
  how = {'batch_size': 4, 'resolution': 8, 'seed': 3}
  source, data = numbered(10), mnist(augment='affine')
  whole = pipeline.second_batches(source, data, **how)
  assert sorted(labels(whole, range(5))) == sorted([*range(10)] * 2)
  assert labels(whole, range(5)) != labels(batches(source, 3), range(5))
  for step in (4, 0):
    batch = whole[step]
    for row, (image, label) in enumerate(zip(*batch.values(), strict=True)):
      assert (image == label).all()
      one = pipeline.second_batches(source, data, **how, rows=[row])
      assert one[step]['label'] == label
  other = pipeline.second_batches(source, data, **how | {'seed': 4})
  assert labels(other, range(5)) != labels(whole, range(5))


def test_mnist_in_three_channels_repeats_the_gray_one(splits):
  rgb = sources.load(mnist(mean=(0.1,) * 3, std=(0.3,) * 3), channels=3)
  assert rgb.train[5][0].shape == (28, 28, 3)
  for channel in range(3):
    np.testing.assert_array_equal(
      rgb.train[5][0][..., channel], splits.train[5][0][..., 0]
    )


# Training batches.


@pytest.mark.parametrize('how', ['affine', 'crop', 'none'])
def test_a_batch_is_a_function_of_seed_and_step(splits, how):
  one = batches(splits.train, how=how, resolution=16)
  expected = [one[step] for step in range(4)]
  assert expected[0]['image'].shape == (4, 16, 16, 1)
  assert expected[0]['image'].dtype == np.uint8
  assert expected[0]['label'].dtype == np.int32
  two = batches(splits.train, how=how, resolution=16)
  carried = pickle.loads(pickle.dumps(two))  # as to a worker process
  for step in (3, 0, 2, 2, 1):
    assert_same(two[step], expected[step])
  assert_same(carried[3], expected[3])


def test_another_seed_gives_another_order_and_another_augmentation():
  order = [labels(batches(numbered(40), seed), range(10)) for seed in (0, 1)]
  assert order[0] != order[1]
  # One image: what differs is the augmentation.
  image = np.random.RandomState(0).randint(0, 256, (1, 8, 8, 1), np.uint8)
  source = sources.ArraySource(image, np.zeros(1, np.int32), ('0',))
  a, b = (batches(source, seed, how='affine')[0]['image'] for seed in (0, 1))
  assert (a != b).any()
  # Within a batch, and so from epoch to epoch, too.
  assert (a[0] != a[1]).any()


def test_every_image_comes_once_an_epoch_and_epochs_share_a_batch():
  images, batch_size = 10, 4  # epochs meet inside of the third batch
  dataset = batches(numbered(images), batch_size=batch_size)
  seen = labels(dataset, range(10))
  epochs = [seen[start : start + images] for start in range(0, 40, images)]
  for epoch in epochs:
    assert sorted(epoch) == list(range(images))
  assert len(set(map(tuple, epochs))) == 4
  # Grain adds the epoch to the seed; the seeds of runs must not meet there.
  next_seed = labels(batches(numbered(images), seed=1), range(10))
  assert epochs[1] != next_seed[:images]


def test_images_stay_with_their_labels():
  batch = batches(numbered(50), batch_size=25)[3]
  np.testing.assert_array_equal(batch['image'][:, 4, 4, 0], batch['label'])
  assert len(set(batch['label'].tolist())) > 1


def test_the_order_does_not_depend_on_the_resolution(splits):
  small, large = (
    batches(splits.train, resolution=r, batch_size=16)[7]['label']
    for r in (16, 32)
  )
  np.testing.assert_array_equal(small, large)


@pytest.mark.parametrize('batch_size', [1, 7])
def test_training_batches_may_be_small_or_exceed_the_source(batch_size):
  dataset = batches(numbered(3), batch_size=batch_size)
  far = 10**8
  assert dataset[far]['image'].shape == (batch_size, 8, 8, 1)
  assert next(dataset.prepared(far))['label'].shape == (batch_size,)
  assert collections.Counter(labels(dataset, range(6))).keys() == {0, 1, 2}


# Streams.


@pytest.mark.parametrize('prefetch', [0, 1, 5])
def test_a_stream_from_k_is_the_stream_from_0_without_k(splits, prefetch):
  dataset = batches(splits.train, how='affine')
  whole = list(itertools.islice(dataset.prepared(), 8))
  for step, batch in enumerate(whole):
    assert_same(batch, dataset[step])
  rest = dataset.prepared(5, prefetch)
  for expected, batch in zip(whole[5:], rest, strict=False):
    assert_same(batch, expected)


def test_a_stream_skips_draws_and_goes_back():
  dataset, draws = batches(numbered(10)), [3, 4, 9, 10, 11, 2]
  found = list(loader.stream(dataset, draws))
  assert [draw for draw, _ in found] == draws
  for draw, batch in found:
    assert_same(batch, dataset[draw])


def test_a_stream_of_a_finite_dataset_ends():
  dataset = batches(numbered(10))[:6]
  assert len(list(dataset.prepared())) == 6
  assert len(list(dataset.prepared(4))) == 2
  assert list(dataset.prepared(6)) == []


@pytest.mark.parametrize('how', ['close', 'drop'])
def test_threads_end_with_the_stream(how):
  before = set(threading.enumerate())
  stream = batches(numbered(10)).prepared(prefetch=8)
  next(stream)
  assert set(threading.enumerate()) - before
  if how == 'close':
    stream.close()
  else:
    del stream
    gc.collect()
  deadline = time.monotonic() + 5
  while set(threading.enumerate()) - before:
    assert time.monotonic() < deadline, threading.enumerate()
    time.sleep(0.01)


def test_an_error_in_a_thread_reaches_the_one_who_asked(tmp_path):
  (tmp_path / 'broken.png').write_bytes(b'not an image')
  source = folders.FileSource(
    (str(tmp_path / 'broken.png'),), (0,), ('a',), channels=3
  )
  with pytest.raises(errors.UserError, match=r'broken\.png') as error:
    next(batches(source).prepared())
  assert error.value.field == 'data.directory'


# Calibration and evaluation.


def test_calibration_is_a_fixed_set_that_training_does_not_see():
  def calibration(seed):
    return pipeline.calibration_batches(
      numbered(40),
      mnist(augment='none'),
      images=30,
      batch_size=8,
      resolution=8,
      seed=seed,
    )

  first = calibration(0)
  assert [len(batch['label']) for batch in first] == [8] * 4
  for a, b in zip(first, calibration(0), strict=True):
    assert_same(a, b)
  seen = [int(label) for batch in first for label in batch['label']]
  assert len(set(seen)) == 32
  other = [int(label) for batch in calibration(1) for label in batch['label']]
  assert seen != other
  training = batches(numbered(40), batch_size=8)
  assert seen != labels(training, range(4))


def test_calibration_images_are_augmented(splits):
  batch = pipeline.calibration_batches(
    sources.ArraySource(
      splits.train.images[:1], splits.train.labels[:1], splits.train.classes
    ),
    mnist(),
    images=2,
    batch_size=2,
    resolution=28,
    seed=0,
  )[0]
  assert (batch['image'][0] != batch['image'][1]).any()


def test_evaluation_sees_each_image_once_and_masks_the_filling():
  found = pipeline.eval_batches(
    numbered(10), mnist(), batch_size=4, resolution=8
  )
  assert len(found) == 3
  whole = list(found)
  assert len(whole) == 3
  for batch in whole:
    assert batch['image'].shape == (4, 8, 8, 1)
    assert batch['image'].dtype == np.uint8
    assert batch['label'].dtype == np.int32
    assert batch['mask'].dtype == bool
  assert [batch['mask'].tolist() for batch in whole] == [
    [True] * 4,
    [True] * 4,
    [True, True, False, False],
  ]
  real = np.concatenate([batch['label'][batch['mask']] for batch in whole])
  assert real.tolist() == list(range(10))
  np.testing.assert_array_equal(whole[2]['image'][:2, 0, 0, 0], [8, 9])
  assert not whole[2]['image'][2:].any()
  assert_same(found[-1], whole[2])
  assert_same(found[1:][0], whole[1])
  with pytest.raises(IndexError):
    found[3]


def test_evaluation_does_not_augment(splits):
  batch = pipeline.eval_batches(
    splits.test, mnist(), batch_size=8, resolution=28
  )[0]
  np.testing.assert_array_equal(batch['image'], splits.test.images[:8])


def test_evaluation_cuts_out_the_centre():
  source = numbered(1)
  source.images[0, 2:6, 2:6] = 200
  sizes = {'batch_size': 1, 'resolution': 4}
  whole, middle = (mnist(augment='none', eval_crop=crop) for crop in (1, 0.5))
  seen = pipeline.eval_batches(source, middle, **sizes)[0]['image']
  assert (seen == 200).all()
  # Training without augmentation sees the same.
  trained = pipeline.train_batches(source, middle, seed=0, **sizes)
  assert (trained[0]['image'] == 200).all()
  seen = pipeline.eval_batches(source, whole, **sizes)[0]['image']
  assert (seen != 200).any()


def test_boxes_are_no_smaller_than_asked_for():
  """The images are square: a box of all of one has no other shape."""
  pixels = noise(8, 8)[None]
  source = sources.ArraySource(pixels, np.zeros(1, np.int32), ('0',))
  sizes = {'batch_size': 16, 'resolution': 8}
  seen = {}
  for area in (0.08, 1.0):
    data = mnist(augment='crop', min_crop_area=area)
    batch = pipeline.train_batches(source, data, seed=0, **sizes)[0]
    seen[area] = {image.tobytes() for image in batch['image']}
  assert seen[1.0] == {pixels.tobytes(), pixels[:, :, ::-1].tobytes()}
  assert len(seen[0.08]) > 10


# Folders of images.


@pytest.fixture
def pictures(tmp_path):
  """Two classes: red cats as JPEG, blue dogs as PNG; some are gray."""
  for split, count in (('train', 8), ('test', 3)):
    for name, colour, suffix in (
      ('dog', (0, 0, 255), 'png'),
      ('cat', (255, 0, 0), 'JPEG'),
    ):
      (tmp_path / split / name).mkdir(parents=True)
      for i in range(count):
        image = np.zeros((20 + i, 30, 3), np.uint8) + np.uint8(colour)
        image = image[..., ::-1]  # OpenCV writes BGR
        if i == 0:
          image = np.full((20, 30), 90, np.uint8)
        path = tmp_path / split / name / f'{i}.{suffix}'
        # The format is that of the bytes, whatever the file is called.
        kind = '.png' if suffix == 'png' or i == 1 else '.jpg'
        path.write_bytes(cv2.imencode(kind, image)[1].tobytes())
      (tmp_path / split / name / 'notes.txt').write_text('no image')
  return tmp_path


def test_a_folder_is_read_in_rgb(pictures):
  splits = sources.load(folder(pictures), channels=3)
  assert [len(split) for split in splits] == [13, 3, 6, 0]
  assert splits.test.classes == ('cat', 'dog')
  assert len(splits.train.classes) == 2
  assert splits.test.labels == (0, 0, 0, 1, 1, 1)
  assert [path.rsplit('/', 2)[1:] for path in splits.test.paths[:2]] == [
    ['cat', '0.JPEG'],
    ['cat', '1.JPEG'],
  ]
  for index in range(6):
    image, label = splits.test[index]
    image = decode.decode(image)
    assert image.dtype == np.uint8
    assert image.shape == (20 + index % 3, 30, 3)
    gray = index in (0, 3)
    colour = (90, 90, 90) if gray else ((255, 0, 0), (0, 0, 255))[label]
    assert np.abs(image.astype(int) - colour).max() <= 3  # JPEG is lossy
  batch = batches(splits.train, how='crop', batch_size=5)[0]
  assert batch['image'].shape == (5, 8, 8, 3)


def test_a_folder_is_read_in_gray(pictures):
  data = folder(pictures, mean=(0.5,), std=(0.2,))
  splits = sources.load(data, channels=1)
  image = decode.decode(splits.test[1][0])
  assert image.shape == (21, 30, 1)
  assert abs(int(image[0, 0, 0]) - 76) <= 3  # luma of pure red
  assert batches(splits.train, how='affine')[0]['image'].shape == (4, 8, 8, 1)


def test_folder_splits_are_disjoint_and_fixed(pictures):
  one, two = (sources.load(folder(pictures), channels=3) for _ in range(2))
  assert one == two
  assert not set(one.train.paths) & set(one.held_out.paths)
  assert len(set(one.train.paths + one.held_out.paths)) == 16
  more = sources.load(folder(pictures, held_out=5), channels=3)
  assert set(one.held_out.paths) < set(more.held_out.paths)
  names = [path.rsplit('/', 2)[1:] for path in one.held_out.paths]
  assert names == GOLDEN_HELD_OUT  # see test_mnist_splits_never_change
  for path, label in zip(one.train.paths, one.train.labels, strict=True):
    assert path.rsplit('/', 2)[1] == one.train.classes[label]


def encoded(suffix: str) -> bytes:
  """An image as files with this suffix are."""
  colour = np.full((40, 40, 3), 7, np.uint8)
  if suffix == '.gif':
    out = io.BytesIO()
    PIL.Image.fromarray(colour).save(out, 'GIF')
    return out.getvalue()
  pixels = colour[..., 0] if suffix in ('.pbm', '.pgm', '.pnm') else colour
  kind = {'.jfif': '.jpg'}.get(suffix, suffix)
  return cv2.imencode(kind, pixels)[1].tobytes()


def test_files_with_the_suffix_of_an_image_are_taken(pictures, capsys):
  """As OpenCV decodes them; what is left out is counted and said once."""
  train, _ = folders.read(str(pictures), 3)
  said = capsys.readouterr().err.splitlines()
  assert len(said) == 2
  assert '2 left out, such as cat/notes.txt; 16 images are' in said[0]
  folder = pictures / 'train' / 'cat'
  for suffix in folders.SUFFIXES:
    content = encoded(suffix)
    (folder / f'x{suffix}').write_bytes(content)
    (folder / f'Y{suffix.upper()}').write_bytes(content)
  (folder / 'no_suffix').write_bytes(content)
  (folder / 'z.jpg_large').write_bytes(content)
  (folder / 'more').mkdir()
  (folder / '.hidden.txt').write_text('')
  (folder / '.DS_Store').write_text('')
  (pictures / 'train' / 'LICENSE').write_text('')
  found, _ = folders.read(str(pictures), 3)
  assert len(found) == 16 + 2 * len(folders.SUFFIXES)
  names = [path.rsplit('/', 1)[1] for path in found.paths[: -len(train) // 2]]
  assert names == sorted(names)
  for index in range(len(found)):
    decode.decode(found[index][0])
  (said,) = capsys.readouterr().err.splitlines()
  assert '/train: 6 left out, such as LICENSE; 50 images are CLASS' in said
  folders.read(str(pictures), 3)
  assert not capsys.readouterr().err


def test_a_folder_is_listed_as_before(pictures):
  """Order and labels, and so the splits, are those of sorted paths."""
  for name in ('10', '9', 'a b', 'ä', 'Z', 'dog.x'):
    (pictures / 'train' / 'cat' / f'{name}.jpg').write_bytes(b'')
  os.mkdir(os.fsencode(pictures / 'train') + b'/\xff')
  os.mkdir(os.fsencode(pictures / 'test') + b'/\xff')
  for split in (b'/train', b'/test'):
    path = os.fsencode(pictures) + split + b'/\xff/\xfe.jpg'
    with open(path, 'wb') as file:
      file.write(b'')
  train, _ = folders.read(f'{pictures}//./', 3)
  paths = [
    path
    for folder in sorted((pictures / 'train').iterdir())
    for path in sorted(map(str, folder.iterdir()))
    if not path.endswith('.txt')
  ]
  assert list(train.paths) == paths
  assert train.classes == ('cat', 'dog', '\udcff')


def test_val_serves_where_there_is_no_test(pictures):
  (pictures / 'test').rename(pictures / 'val')
  splits = sources.load(folder(pictures), channels=3)
  assert len(splits.test) == 6 and '/val/' in splits.test.paths[0]


# Errors of a user.


@pytest.mark.parametrize(
  ('field', 'changes', 'text'),
  [
    ('data.name', {'name': 'mnist5'}, 'did you mean mnist5k'),
    ('data.augment', {'augment': 'afine'}, 'did you mean affine'),
    ('data.augment', {'augment': 'autoaugmnt'}, 'did you mean autoaugment'),
    ('data.worker', {'worker': 'fibre'}, 'process, thread'),
    ('data.workers', {'workers': -1}, '0 <= whole number <= 1000'),
    ('data.prefetch', {'prefetch': -1}, '0 <= whole number <= 1000'),
    ('data.max_damaged', {'max_damaged': 1.0}, '0 <= number < 1'),
    ('data.randaugment_layers', {'randaugment_layers': -1}, '0 <= whole'),
    ('data.randaugment_magnitude', {'randaugment_magnitude': 11}, '<= 10'),
    ('data.held_out', {'held_out': 4000}, '0 to 3999'),
    ('data.held_out', {'held_out': -1}, '>= 0'),
    ('data.held_out', {'held_out': 0.1}, 'a whole number >= 0'),
    ('data.second', {'second': 3500}, '0 to 3499'),
    ('data.second', {'second': -1}, '>= 0'),
    ('data.mean', {'mean': (0.1, 0.2, 0.3)}, '1 numbers'),
    ('data.std', {'std': ()}, '1 numbers'),
    ('data.std[0]', {'std': (0.0,)}, '> 0'),
    ('data.eval_crop', {'eval_crop': 1.5}, '0 < number <= 1'),
    ('data.eval_crop', {'eval_crop': 0.0}, '0 < number <= 1'),
    ('data.min_crop_area', {'min_crop_area': 0.0}, '0 < number <= 1'),
    ('data.min_crop_area', {'min_crop_area': 1.1}, '0 < number <= 1'),
  ],
)
def test_an_impossible_field_is_named(field, changes, text):
  with pytest.raises(errors.UserError, match=text) as error:
    sources.load(mnist(**changes), channels=1)
  assert error.value.field == field


def test_impossible_channels_are_named():
  with pytest.raises(errors.UserError, match=r'1 \(gray\) or 3') as error:
    sources.load(mnist(mean=(0.1,) * 2, std=(0.1,) * 2), channels=2)
  assert error.value.field == 'space.channels'


def test_too_few_classes_in_the_space_are_an_error(splits, capsys):
  identity.check_classes(splits, 10)
  assert not capsys.readouterr().err
  identity.check_classes(splits, 1000)
  assert 'outputs 10 to 999 stand for nothing' in capsys.readouterr().err
  with pytest.raises(errors.UserError, match='at least 10') as error:
    identity.check_classes(splits, 9)
  assert error.value.field == 'space.classes'


def test_evaluating_on_nothing_held_out_is_an_error(splits):
  nothing = sources.load(mnist(held_out=0), channels=1).held_out
  with pytest.raises(errors.UserError, match='at least 1') as error:
    pipeline.eval_batches(
      nothing, mnist(held_out=0), batch_size=4, resolution=8
    )
  assert error.value.field == 'data.held_out'


@pytest.mark.parametrize(
  ('classes', 'deeper', 'text'),
  [
    (0, False, r"at least two classes, not only \['cat'\]"),
    (0, True, 'images in it'),
  ],
)
def test_a_single_class_is_refused_before_anything_is_written(
  pictures, tmp_path, classes, deeper, text
):
  for split in 'train', 'test':
    (pictures / split / 'dog').rename(pictures / split / '.dog')
    if deeper:
      (pictures / split / 'all').mkdir()
      (pictures / split / 'cat').rename(pictures / split / 'all' / 'cat')
  gray = folder(pictures, mean=(0.5,), std=(0.25,))
  config = tiny.config(data=gray, space=tiny.QUICK, classes=classes)
  with pytest.raises(errors.UserError, match=text) as error:
    loop.train(config, tmp_path / 'run')
  assert error.value.field == 'data.directory'
  assert 'is there a folder too many?' in str(error.value)
  assert not (tmp_path / 'run').exists()


def test_a_folder_that_cannot_be_read_is_an_error(pictures):
  def assert_error(data, text, field='data.directory'):
    with pytest.raises(errors.UserError, match=text) as error:
      sources.load(data, channels=3)
    assert error.value.field == field

  assert_error(
    folder(pictures / 'nowhere'), 'a directory with train/ and test/'
  )
  assert_error(folder(''), 'a directory with train/ and test/')
  assert_error(folder(pictures, held_out=16), '0 to 15', 'data.held_out')
  (pictures / 'train' / 'fox').mkdir()
  assert_error(folder(pictures), 'fox.*images in it')
  (pictures / 'train' / 'cat' / '0.JPEG').rename(
    pictures / 'train' / 'fox' / 'a.JPG'
  )
  assert_error(folder(pictures), 'the same classes .* unlike fox')
  (pictures / 'test').rename(pictures / 'other')
  assert_error(folder(pictures), r'test/ \(or val/\)')
  (pictures / 'train').rename(pictures / 'training')
  assert_error(folder(pictures), 'train/ in it')
  (pictures / 'train').mkdir()
  (pictures / 'test').mkdir()
  assert_error(folder(pictures), 'a directory for each class')


# Transforms of one image.


class Highest:
  """Draws the end of every range: makes a random transform a known one."""

  def uniform(self, low, high):
    return high

  def integers(self, high):
    return high - 1

  def random(self):
    return self.draw

  def __init__(self, draw: float = 1.0):
    self.draw = draw


STILL = {'rotate': 0, 'scale': (1, 1), 'shear': 0, 'translate': 0}


def noise(height, width, channels=1) -> np.ndarray:
  return np.random.RandomState(0).randint(
    0, 256, (height, width, channels), np.uint8
  )


def smooth(height, width, channels=1) -> np.ndarray:
  """Waves that survive resizing, so that methods can be compared."""
  y, x = np.mgrid[:height, :width]
  y, x = (y + 0.5) / height, (x + 0.5) / width
  image = 128 + 60 * np.sin(5 * x) + 60 * np.cos(4 * y + 2 * x)
  return np.repeat(image[..., None], channels, -1).astype(np.uint8)


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('shape', [(28, 28), (20, 40), (90, 70)])
@pytest.mark.parametrize('size', [16, 32])
def test_transforms_return_squares_of_bytes(shape, channels, size):
  image = noise(*shape, channels)
  before = image.copy()
  rng = np.random.default_rng(0)
  for out in (
    transforms.affine(rng, image, size),
    transforms.random_resized_crop(rng, image, size),
    transforms.centre(image, size),
    transforms.centre(image, size, crop=0.875),
  ):
    assert out.shape == (size, size, channels) and out.dtype == np.uint8
    assert out.flags.c_contiguous
  np.testing.assert_array_equal(image, before)


def test_an_affine_map_that_does_nothing_returns_the_image():
  image, rng = noise(28, 28, 3), np.random.default_rng(0)
  out = transforms.affine(rng, image, 28, **STILL)
  np.testing.assert_array_equal(out, image)


@pytest.mark.parametrize('shape', [(28, 28), (40, 60), (150, 100)])
def test_an_affine_map_that_does_nothing_resizes_as_evaluation_does(shape):
  image, rng = smooth(*shape), np.random.default_rng(0)
  out = transforms.affine(rng, image, 32, **STILL).astype(int)
  expected = transforms.centre(image, 32).astype(int)
  # The border differs: beyond the image there is nothing.
  assert np.abs(out - expected)[2:-2, 2:-2].max() <= 2


def test_an_affine_map_turns_zooms_and_shifts():
  image, rng = noise(8, 8), Highest()
  turned = transforms.affine(rng, image, 8, **STILL | {'rotate': 90})
  np.testing.assert_array_equal(turned, np.rot90(image, -1))
  shifted = transforms.affine(rng, image, 8, **STILL | {'translate': 0.25})
  np.testing.assert_array_equal(shifted[2:, 2:], image[:-2, :-2])
  assert not shifted[:2].any() and not shifted[:, :2].any()
  square = np.zeros((32, 32, 1), np.uint8)
  square[12:20, 12:20] = 255
  large = transforms.affine(rng, square, 32, **STILL | {'scale': (1, 2)})
  assert (large > 127).sum() == pytest.approx(256, abs=8)
  assert (large[9:23, 9:23] > 127).all()


def test_an_affine_map_shears_along_the_horizontal():
  image = np.zeros((33, 33, 1), np.uint8)
  image[:, 16] = 255
  out = transforms.affine(Highest(), image, 33, **STILL | {'shear': 45})
  for row in range(2, 31):
    assert int(out[row, :, 0].argmax()) == row


def test_shrinking_does_not_alias():
  """Noise averages to even gray, in training as in evaluation."""
  image = noise(256, 256)
  rng = np.random.default_rng(0)
  box = transforms.random_resized_crop(rng, image, 16, scale=(0.9, 1))
  for out in (
    transforms.affine(rng, image, 16, **STILL)[2:-2, 2:-2],
    box,
    transforms.centre(image, 16),
  ):
    assert np.abs(out.astype(int) - 128).max() <= 30


def test_a_crop_of_everything_is_the_resized_image():
  image = noise(24, 24, 3)
  whole = {'scale': (1, 1), 'ratio': (1, 1)}
  straight = transforms.random_resized_crop(Highest(0.9), image, 32, **whole)
  np.testing.assert_array_equal(straight, transforms.centre(image, 32))
  mirrored = transforms.random_resized_crop(Highest(0.1), image, 32, **whole)
  np.testing.assert_array_equal(mirrored, straight[:, ::-1])
  unflipped = transforms.random_resized_crop(
    Highest(0.1), image, 32, **whole, flip=False
  )
  np.testing.assert_array_equal(unflipped, straight)


def test_a_crop_takes_the_box_it_drew():
  image = noise(16, 16)
  out = transforms.random_resized_crop(
    Highest(), image, 8, scale=(0.1, 0.25), ratio=(0.5, 1)
  )
  np.testing.assert_array_equal(out, image[8:, 8:])


def test_a_crop_that_cannot_fit_is_the_middle():
  image = noise(10, 100)
  out = transforms.random_resized_crop(
    Highest(), image, 10, scale=(1, 1), ratio=(1, 1)
  )
  np.testing.assert_array_equal(out, image[:, 45:55])


def test_crops_have_the_areas_and_ratios_asked_for():
  """Ramps show the box: their slopes give its height and its width."""
  y, x = np.mgrid[:200, :200]
  image = np.stack([y, x, x], -1).astype(np.uint8)
  rng = np.random.default_rng(0)
  flips, areas, ratios = 0, [], []
  for _ in range(400):
    out = transforms.random_resized_crop(rng, image, 20).astype(int)
    height = (out[18, 10, 0] - out[1, 10, 0]) / 17 * 20
    width = (out[10, 18, 1] - out[10, 1, 1]) / 17 * 20
    flips += width < 0
    areas.append(height * abs(width) / 200**2)
    ratios.append(abs(width) / height)
  assert 160 <= flips <= 240
  assert 0.06 < min(areas) < 0.12 and 0.9 < max(areas) < 1.05
  assert 0.68 < min(ratios) < 0.8 and 1.25 < max(ratios) < 1.5
  assert np.median(ratios) == pytest.approx(1, abs=0.05)


def test_evaluation_crops_the_middle_of_the_short_side():
  image = noise(20, 30)
  np.testing.assert_array_equal(transforms.centre(image, 20), image[:, 5:25])
  np.testing.assert_array_equal(
    transforms.centre(image, 10, crop=0.5), image[5:15, 10:20]
  )


# Recorded once; see test_mnist_splits_never_change.
GOLDEN_LABELS = [
  [4, 4, 6, 0, 2, 4, 7, 7, 8, 4, 1, 1],
  [7, 7, 9, 4, 0, 6, 5, 5, 1, 9, 9, 2],
  [0, 9, 4, 8, 3, 0, 6, 4, 1, 8, 6, 3],
]
GOLDEN_HELD_OUT = [['cat', '0.JPEG'], ['cat', '3.JPEG'], ['dog', '0.png']]
