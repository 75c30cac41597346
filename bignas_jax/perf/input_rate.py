"""Rate at which images are prepared, and how long a step waits for them."""

import contextlib
import dataclasses
import importlib.util
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from bignas_jax.data import folders, loader, pipeline, sources
from bignas_jax.data.sources import Data
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import warm_start
from bignas_jax.system import console, process


def images(
  config: config_lib.Config | None, directory: str | None
) -> tuple[sources.Data, int, int]:
  """Returns the data to read, their channels, and pixels of a batch."""
  if config is not None:
    config = warm_start.resolve(config)
    channels = config_lib.space(config).channels
    return config.data, channels, config_lib.image_size(config)
  data = sources.Data(
    name='image_folder',
    directory=directory or '',
    held_out=0,
    augment='crop',
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
  )
  return data, 3, 224


def measure(
  settings: Data,
  *,
  channels: int,
  batch: int,
  resolution: int,
  workers: Sequence[int],
  seconds: float,
  step_s: float | None = None,
  tf_data: bool = False,
) -> dict[str, Any]:
  """Measures how fast training batches are prepared, by number of workers.

  Args:
    settings: what to read, and how to augment it.
    channels: channels of an image.
    batch: batch size, images.
    resolution: side of a prepared image, pixels.
    workers: numbers of workers to try; the settings say of which kind.
    seconds: duration of each measurement, after the first batches.
    step_s: seconds that a device needs for a batch; if given, the share of a
      step that is spent waiting for images is measured too.
    tf_data: whether to compare with tf.data on the same files, if TensorFlow is
      installed.

  Returns:
    A dict whose `runs` has, for each number of workers, images a second by wall
    clock and by CPU time; the CPU time includes that of all workers.
  """
  source = sources.load(settings, channels).train
  runs = []
  for count in workers:
    how = dataclasses.replace(settings, workers=count)
    made = pipeline.train_batches(
      source, how, batch_size=batch, resolution=resolution, seed=0
    )
    run = {'worker': how.worker, 'workers': count}
    run |= _rates(lambda made=made: made.prepared(), batch, seconds)
    if step_s is not None:
      run['waiting'] = _waiting(made, step_s, seconds)
    runs.append(run)
    console.say(str(run))
  result = {
    'source': settings.name,
    'images': len(source),
    'augment': settings.augment,
    'resolution': resolution,
    'batch': batch,
    'cores': process.cores(),
    'runs': runs,
  }
  if step_s is not None:
    best = max(run['images_per_cpu_s'] or 0 for run in runs)
    result |= {'step_s': step_s, 'wanted_images_per_s': batch / step_s}
    result['cores_wanted'] = batch / step_s / best if best else None
  if tf_data:
    result['tf_data'] = _tf_data(
      source, batch, resolution, max(workers), seconds
    )
  return result


def _rates(make, batch: int, seconds: float) -> dict[str, Any]:
  """Measures images per second and per CPU second, after two batches."""
  with contextlib.closing(make()) as stream:
    next(stream)
    next(stream)
    began, used, count = time.perf_counter(), _cpu_s(), 0
    while time.perf_counter() - began < seconds:
      next(stream)
      count += batch
    took, used = time.perf_counter() - began, _cpu_s() - used
  return {
    'images_per_s': count / took,
    'images_per_cpu_s': count / used if used else None,
  }


def _waiting(made: loader.Batches, step_s: float, seconds: float) -> float:
  """Measures the share of a step spent waiting, with a sleep as its work."""
  steps = max(3, round(seconds / step_s))
  with contextlib.closing(made.prepared()) as stream:
    next(stream)
    waited = 0.0
    for _ in range(steps):
      time.sleep(step_s)
      began = time.perf_counter()
      next(stream)
      waited += time.perf_counter() - began
  return waited / (waited + steps * step_s)


def _cpu_s() -> float:
  """Returns CPU seconds of this process and its live workers (on Linux)."""
  used = time.process_time()
  ticks = os.sysconf('SC_CLK_TCK')
  for child in multiprocessing.active_children():
    with (
      contextlib.suppress(FileNotFoundError),
      open(f'/proc/{child.pid}/stat') as file,
    ):
      fields = file.read().rpartition(')')[2].split()
      used += (int(fields[11]) + int(fields[12])) / ticks
  return used


def _tf_data(
  source: sources.Source,
  batch: int,
  resolution: int,
  workers: int,
  seconds: float,
) -> dict[str, Any]:
  """Measures the rate of tf.data, whose decoder crops while it decodes."""
  if importlib.util.find_spec('tensorflow') is None:
    return {'skipped': 'TensorFlow is not installed'}
  if not isinstance(source, folders.FileSource):
    return {'skipped': 'only folders are compared'}
  paths = [p for p in source.paths if p.lower().endswith(('.jpg', '.jpeg'))]
  if not paths:
    return {'skipped': 'no JPEG files'}
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  import tensorflow as tf  # pyright: ignore[reportMissingModuleSource]

  def load(path):
    content = tf.io.read_file(path)
    shape = tf.io.extract_jpeg_shape(content)
    begin, size, _ = tf.image.sample_distorted_bounding_box(
      shape,
      tf.zeros((1, 0, 4)),
      min_object_covered=0.0,
      aspect_ratio_range=(3 / 4, 4 / 3),
      area_range=(0.08, 1.0),
      max_attempts=10,
      use_image_if_no_bounding_boxes=True,
    )
    box = tf.concat([begin[:2], size[:2]], 0)
    image = tf.image.decode_and_crop_jpeg(content, box, channels=3)
    image = tf.image.resize(image, (resolution, resolution))
    return tf.cast(tf.image.random_flip_left_right(image), tf.uint8)

  options = tf.data.Options()
  options.threading.private_threadpool_size = workers
  dataset = (
    tf.data.Dataset.from_tensor_slices(paths)
    .shuffle(len(paths))
    .repeat()
    .map(load, num_parallel_calls=workers)
    .batch(batch)
    .prefetch(2)
    .with_options(options)
  )

  def stream() -> Iterator:
    yield from dataset.as_numpy_iterator()

  return {'workers': workers, 'augment': 'crop', 'antialias': False} | _rates(
    stream, batch, seconds
  )
