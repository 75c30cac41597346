"""Damaged images: named once, replaced in training, missed in evaluation."""

import dataclasses
import itertools
import json
import multiprocessing
import pathlib
import time

import cv2
import numpy as np
import pytest

from bignas_jax.data import decode, folders, loader, pipeline, sources
from bignas_jax.data.folders import FileSource
from bignas_jax.training import loop
from bignas_jax.values import errors
from tests import tiny

IMAGES, DAMAGED = 500, (3, 40, 41, 120, 121, 300, 499)
# As other tests: their compiled programs serve here.
NORMALISED = {'mean': (0.13,), 'std': (0.31,)}


def settings(directory='', **changes) -> sources.Data:
  fields = {'held_out': 0, 'augment': 'crop', 'mean': (0.5,), 'std': (0.25,)}
  fields |= {'name': 'image_folder', 'directory': str(directory)}
  return sources.Data(**fields | changes)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """500 training and 100 test images of ten classes; seven and one damaged.

  Truncated, a link to nothing, a directory, empty, a page instead of an image,
  a hole in the header, and a file that ends where its pixels begin. Each whole
  one is its number in gray.
  """
  root = tmp_path_factory.mktemp('folder')
  for split, count, damaged in (
    ('train', IMAGES, DAMAGED),
    ('test', 100, (7,)),
  ):
    for number in range(count):
      gray = np.full((16, 16), number % 250, np.uint8)
      content = cv2.imencode('.jpg', gray)[1].tobytes()
      path = root / split / f'{number * 10 // count}' / f'{number:03}.jpg'
      path.parent.mkdir(parents=True, exist_ok=True)
      odd = [
        lambda path, data: path.write_bytes(data[:-20]),
        lambda path, _: path.symlink_to(root / 'nowhere.jpg'),
        lambda path, _: path.mkdir(),
        lambda path, _: path.write_bytes(b''),
        lambda path, _: path.write_bytes(b'<html>404</html>'),
        lambda path, data: path.write_bytes(data[:4] + bytes(60) + data[64:]),
        lambda path, data: path.write_bytes(
          data[: data.index(b'\xff\xda') + 2]
        ),
      ]
      kinds = dict(zip(damaged, odd, strict=False))
      kinds.get(number, pathlib.Path.write_bytes)(path, content)
  return root


def named(text: str) -> list[str]:
  """Files that the lines of a log name as damaged."""
  lines = [line for line in text.split('\n') if 'damaged image' in line]
  return sorted(line.split('.jpg')[0].rsplit('/', 1)[1] for line in lines)


@pytest.fixture(autouse=True)
def a_new_process(monkeypatch):
  monkeypatch.setattr(loader, '_reported', set())


def numbers(batch) -> list[int]:
  return [int(image.mean().round()) for image in batch['image']]


@pytest.mark.parametrize('workers', [1, 3])
def test_training_replaces_and_names_each_once(folder, capsys, workers):
  train, _ = folders.read(str(folder), 1)
  batches = pipeline.train_batches(
    train, settings(workers=workers), batch_size=50, resolution=8, seed=0
  )
  stream = batches.prepared()
  seen: list[int] = []
  for _ in range(3 * IMAGES // 50):  # three epochs
    batch = next(stream)
    assert batch.keys() == {'image', 'label'}
    seen += numbers(batch)
  assert named(capsys.readouterr().err) == [f'{i:03}' for i in DAMAGED]
  # Each is replaced by the image after it, or the first one that is whole.
  expected = np.arange(IMAGES)
  for index in DAMAGED:
    others = (i % IMAGES for i in range(index, index + 3))
    expected[index] = next(i for i in others if i not in DAMAGED)
  for epoch in range(3):
    part = seen[epoch * IMAGES : (epoch + 1) * IMAGES]
    assert sorted(part) == sorted(i % 250 for i in expected.tolist())


def test_labels_go_with_the_image_that_was_used(folder):
  train, _ = folders.read(str(folder), 1)
  made, label, damaged = loader.first_whole(train, 499, decode.decode)
  assert (int(made.mean()), label, damaged) == (0, 0, 499)
  made, label, damaged = loader.first_whole(train, 498, decode.decode)
  assert (int(made.mean()), label, damaged) == (248, 9, loader.NONE)


def test_what_replaces_an_image_depends_on_its_index_alone(folder):
  """Other rows, another order of asking, a later start: the same images."""
  train, _ = folders.read(str(folder), 1)

  def batches(**changes):
    return pipeline.train_batches(
      train, settings(), resolution=8, **{'seed': 1, 'batch_size': 60} | changes
    )

  whole = batches()
  expected = [whole[step] for step in range(9)]
  for rows in [*range(15), *range(30, 45)], [*range(15, 30), *range(45, 60)]:
    half = batches(rows=rows)
    for step in (8, 2, 0, 5):
      for name in ('image', 'label'):
        part = expected[step][name][rows]
        np.testing.assert_array_equal(half[step][name], part)
  rest = whole.prepared(4)
  for batch in expected[4:]:
    np.testing.assert_array_equal(next(rest)['image'], batch['image'])


def test_evaluation_leaves_damaged_images_out_and_says_so(folder, capsys):
  _, test = folders.read(str(folder), 1)
  batches = pipeline.eval_batches(
    test, settings(max_damaged=0.01), batch_size=30, resolution=8
  )
  found = list(batches)
  assert sum(int(batch['mask'].sum()) for batch in found) == 99
  assert not found[0]['mask'][7] and found[0]['mask'][8]
  assert not found[0]['image'][7].any()
  assert named(capsys.readouterr().err) == ['007']
  for batch, again in zip(found, batches, strict=True):
    np.testing.assert_array_equal(batch['mask'], again['mask'])
  assert named(capsys.readouterr().err) == []


def test_too_many_damaged_images_fail_an_evaluation(folder, capsys):
  train, test = folders.read(str(folder), 1)
  for source, limit, found in ((test, 0.009, 1), (train, 0.0139, 7)):
    batches = pipeline.eval_batches(
      source, settings(max_damaged=limit), batch_size=30, resolution=8
    )
    with pytest.raises(errors.UserError, match='damaged') as error:
      list(batches)
    assert error.value.field == 'data.max_damaged'
    assert f'where {found} of {len(source)}' in str(error.value)
  assert '007' in named(capsys.readouterr().err)
  at_limit = pipeline.eval_batches(
    train, settings(max_damaged=0.014), batch_size=30, resolution=8
  )
  assert sum(int(batch['mask'].sum()) for batch in at_limit) == 493


def test_too_many_damaged_images_end_a_training(folder, capsys):
  """At the same batch, whoever prepares them; each image counts once."""
  train, _ = folders.read(str(folder), 1)

  def batches_until_the_end(worker, workers, limit=0.01):
    how = settings(worker=worker, workers=workers, max_replaced=limit)
    batches = pipeline.train_batches(
      train, how, batch_size=25, resolution=8, seed=0
    )
    seen = 0
    try:
      for _ in itertools.islice(batches.prepared(), 60):  # three epochs
        seen += 1
    except errors.UserError as error:
      assert error.field == 'data.max_replaced'
      assert '6 of 500 images to train on are damaged' in str(error)
    return seen

  ways = ('thread', 1), ('thread', 3), ('process', 2)
  numbers = {batches_until_the_end(*way) for way in ways}
  assert len(numbers) == 1 and 0 < numbers.pop() < 20
  assert batches_until_the_end('thread', 2, limit=0.014) == 60
  assert (
    '040.jpg: the next one in its place (No such' in capsys.readouterr().err
  )


def test_a_file_that_goes_while_it_is_read_is_damaged(tmp_path, capsys):
  """Also one that breaks in the middle: Linux has such a file."""
  paths = [tmp_path / f'{number}.png' for number in range(20)]
  for path in paths:
    cv2.imwrite(str(path), np.full((8, 8), 9, np.uint8))
  paths[4].unlink()
  paths[4].symlink_to('/proc/self/mem')
  source = FileSource(tuple(map(str, paths)), (0,) * 20, ('a', 'b'), 1)
  paths[11].unlink()
  batches = pipeline.eval_batches(
    source, settings(max_damaged=0.1), batch_size=20, resolution=8
  )
  assert np.flatnonzero(~batches[0]['mask']).tolist() == [4, 11]
  said = capsys.readouterr().err
  assert '4.png: left out (Input/output error)' in said
  assert '11.png: left out (No such file or directory)' in said


def test_nothing_but_damage_is_an_error(tmp_path):
  paths = []
  for number in range(120):
    paths.append(tmp_path / f'{number}.jpg')
    paths[-1].write_bytes(b'no image')
  source = FileSource(tuple(map(str, paths)), (0,) * 120, ('a',), 1)
  with pytest.raises(errors.UserError, match=r'5\.jpg.*can decode.*100'):
    loader.first_whole(source, 5, decode.decode)


def test_a_run_on_damaged_files_trains_and_evaluates(folder, tmp_path, capsys):
  config = tiny.config(
    space=tiny.QUICK,
    data=settings(folder, max_damaged=0.01, held_out=50, **NORMALISED),
    steps=40,  # every image comes
    eval_every=40,
    checkpoint_every=40,
    log_every=40,
  )
  result = loop.train(config, tmp_path / 'run')
  assert result['step'] == 40
  found = named(capsys.readouterr().err)
  assert found == sorted([*(f'{i:03}' for i in DAMAGED), '007'])
  lines = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
  assert 'eval/biggest/top1' in json.loads(lines[-1])
  strict = dataclasses.replace(
    config, data=settings(folder, held_out=50, **NORMALISED)
  )
  with pytest.raises(errors.UserError, match='1 of 100 images'):
    loop.train(strict, tmp_path / 'strict')


def test_processes_do_as_threads_do(folder, capsys):
  train, _ = folders.read(str(folder), 1)

  def stream(source, worker, start):
    how = settings(worker=worker, workers=2)
    batches = pipeline.train_batches(
      source, how, batch_size=50, resolution=8, seed=5
    )
    return batches.prepared(start)

  expected = list(itertools.islice(stream(train, 'thread', 3), 10))
  capsys.readouterr()
  loader._reported.clear()
  before = set(multiprocessing.active_children())
  workers = stream(train, 'process', 3)
  for batch in expected:
    found = next(workers)
    assert found.keys() == batch.keys()
    for name in batch:
      np.testing.assert_array_equal(found[name], batch[name])
      # Shared memory that is alive when a process ends is reported as leaked.
      assert type(found[name]) is np.ndarray
  assert set(multiprocessing.active_children()) - before
  workers.close()
  assert named(capsys.readouterr().err) == [f'{i:03}' for i in DAMAGED]
  deadline = time.monotonic() + 10
  while set(multiprocessing.active_children()) - before:
    assert time.monotonic() < deadline
    time.sleep(0.05)


def test_a_mistake_in_a_process_is_the_users(tmp_path):
  path = tmp_path / 'no.jpg'
  path.write_bytes(b'no image')
  source = FileSource((str(path),), (0,), ('a',), 1)
  how = settings(worker='process', workers=1)
  batches = pipeline.train_batches(
    source, how, batch_size=2, resolution=8, seed=0
  )
  with pytest.raises(errors.UserError, match=r'no\.jpg') as error:
    next(batches.prepared())
  assert error.value.field == 'data.directory'
