"""Directories of ArrayRecord files, which take hours to write.

A file gets its name only when it is complete. A manifest, which is written
first, says what each file is made of, so that an interrupted command can be
resumed, but only from the same inputs.
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, NamedTuple

from array_record.python import (
  array_record_module,  # pyright: ignore[reportAttributeAccessIssue]
)
from etils import epath

import bignas_jax
from bignas_jax.data import array_records
from bignas_jax.system import console, files, locks, storage
from bignas_jax.values import errors, schema, structs

NAME = 'imagenet2012'
MANIFEST, _FORMAT = 'prepared.json', 1
TEXTS = (array_records.LABELS, 'features.json', 'dataset_info.json')
_UNFINISHED = '.new'
_AGAIN = 'or no such file: without it, it is made again'


class Shard(NamedTuple):
  """A file to be written.

  Attributes:
    split: the split of the images.
    images: number of images; None if it is unknown before they are read.
    read: yields the serialised examples.
    source: the user's option that names the input, and its value.
    made_of: JSON that differs if the file is made from other inputs.
  """

  split: str
  images: int | None
  read: Callable[[], Iterator[bytes]]
  source: tuple[str, str]
  made_of: Any


def check_place(out: pathlib.Path) -> None:
  """Checks that `out` can be written to and has no files of other origin.

  It is called before archives are read, because that takes minutes.

  Raises:
    UserError: nothing can be written there, or files with the names of results
      are there without a manifest.
  """
  if out.exists() and not out.is_dir():
    raise errors.UserError('--out', str(out), 'a directory')
  files.check_writable(out, '--out')
  there = _there(out)
  if there and not (out / MANIFEST).is_file():
    raise errors.UserError(
      '--out',
      str(out),
      f'a directory that this command has begun, with {MANIFEST} in it, or one '
      f'without {there[0]}',
    )


def _there(out: pathlib.Path) -> list[str]:
  """Returns the names in a directory that look like those of written files."""
  names = os.listdir(out) if out.is_dir() else []
  return sorted(n for n in names if n in TEXTS or n.startswith(f'{NAME}-'))


def prepare(
  out: pathlib.Path,
  texts: dict[str, str],
  outputs: dict[str, Shard],
  workers: int,
) -> dict[str, int]:
  """Writes the missing files and returns the number of images by split.

  Args:
    out: directory to write to.
    texts: contents of the text files, by name.
    outputs: the ArrayRecord files, by name.
    workers: number of files that are written at once.

  Raises:
    UserError: the directory holds files that are made from other inputs.
  """
  out.mkdir(parents=True, exist_ok=True)
  allowed = 'a directory that no other process is writing to'
  with locks.hold(out / '.lock', '--out', allowed):
    made = _begin(out, texts, outputs)
    for name, text in texts.items():
      if not (out / name).exists():
        files.write_text(epath.Path(out / name), text)
    totals: dict[str, int] = {}
    with futures.ThreadPoolExecutor(workers) as pool:
      jobs = {n: pool.submit(_write, out / n, p) for n, p in outputs.items()}
      try:
        for done, (name, job) in enumerate(jobs.items()):
          split, images = outputs[name].split, job.result()
          totals[split] = totals.get(split, 0) + images
          if made[name]['images'] is None:
            made[name]['images'] = images
            _write_manifest(out, made)
          console.say(f'{split}: {done + 1} of {len(jobs)} files')
      except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
  return totals


def _begin(
  out: pathlib.Path, texts: dict[str, str], outputs: dict[str, Shard]
) -> dict[str, Any]:
  """Writes the manifest and returns what it says of each file.

  Raises:
    UserError: an existing file is not what would be made now.
  """
  check_place(out)
  made = {
    name: {'images': shard.images, 'made_of': shard.made_of}
    for name, shard in outputs.items()
  }
  if (out / MANIFEST).is_file():
    before = _manifest(out)
    for name in _there(out):
      if name in texts:
        _check_text(out / name, texts[name])
      elif not name.endswith(_UNFINISHED):
        _check_made(out / name, before.get(name), made.get(name))
        made[name] = before[name]
  _write_manifest(out, made)
  return made


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Made:
  """The part of a file's entry in a manifest that is read."""

  images: schema.Whole | None = None
  made_of: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Manifest:
  """The part of a manifest that is read."""

  files: dict[str, _Made] = dataclasses.field(default_factory=dict)


def _manifest(out: pathlib.Path) -> dict[str, Any]:
  """Returns the entries of a directory's manifest, by file name."""
  path = out / MANIFEST
  manifest = files.read_json(path)
  schema.convert(_Manifest, manifest, f'{path}:', others=True)
  return manifest.get('files', {})


def _write_manifest(out: pathlib.Path, made: dict[str, Any]) -> None:
  manifest = {'format': _FORMAT, 'version': bignas_jax.__version__}
  files.write_json(epath.Path(out / MANIFEST), manifest | {'files': made})


def _check_text(path: pathlib.Path, text: str) -> None:
  if files.read_text(path) != text:
    raise errors.UserError('--out', str(path), f'what was written, {_AGAIN}')


def _check_made(path: pathlib.Path, before: Any, now: Any) -> None:
  """Raises UserError unless a file is what the command would make now.

  Args:
    path: the file.
    before: the file's entry in the manifest, or None.
    now: the entry that the file would get now, or None.
  """
  if before is None or now is None:
    raise errors.UserError('--out', str(path), 'no other files of this kind')
  changes = structs.differences(before['made_of'], now['made_of'])
  if changes:
    allowed = f'a file made of the same; this one differs in {changes[0]}'
    raise errors.UserError('--out', str(path), allowed)
  images, count = before['images'], array_records.count(path, '--out')
  if images not in (None, count):
    place = f'{path}: {count} images'
    raise errors.UserError('--out', place, f'{images} images, {_AGAIN}')


def _write(target: pathlib.Path, shard: Shard) -> int:
  """Writes a whole file or none and returns its number of images."""
  if target.is_file():
    return array_records.count(target, '--out')
  fresh, count = target.with_name(target.name + _UNFINISHED), 0
  try:
    # One record a group, to be read at random; JPEGs are compressed already.
    writer = array_record_module.ArrayRecordWriter(
      str(fresh), 'group_size:1,uncompressed'
    )
    try:
      for record in shard.read():
        writer.write(record)
        count += 1
    except BaseException:
      with contextlib.suppress(RuntimeError):
        writer.close()
      raise
    writer.close()
    storage.sync(fresh)
    if shard.images not in (None, count):
      field, path = shard.source
      allowed = f'{shard.images} images, as {TEXTS[2]} says'
      raise errors.UserError(field, f'{path}: {count} images', allowed)
    os.replace(fresh, target)
  except RuntimeError as error:  # of the writer, for example for a full disk
    reason = str(error).partition(';')[0]
    allowed = f'a place that can be written to ({reason})'
    raise errors.UserError('--out', str(target), allowed) from None
  finally:
    fresh.unlink(missing_ok=True)
  return count
