"""Reading of the original ImageNet archives, with checks for completeness."""

import collections
import contextlib
import pathlib
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, NamedTuple

import scipy.io

from bignas_jax.data import array_records
from bignas_jax.values import errors

# Errors of reading a file that is cut off, or is no tar file.
_BROKEN = (tarfile.TarError, zlib.error, EOFError, OSError)
_META, _TRUTH = 'meta.mat', 'ILSVRC2012_validation_ground_truth.txt'


class Member(NamedTuple):
  """An image inside a tar file."""

  name: str
  label: int
  offset: int
  size: int


class Devkit(NamedTuple):
  """The facts that the development kit gives on the images.

  Attributes:
    classes: names of the classes, sorted as TFDS numbers them.
    of_val: class of each image of the validation archive, sorted by file name.
    images: number of training images of each class; empty if the kit does not
      say.
  """

  classes: list[str]
  of_val: list[str]
  images: dict[str, int]


def devkit(path: pathlib.Path) -> Devkit:
  """Reads ILSVRC2012_devkit_t12.tar.gz.

  Raises:
    UserError: the file is missing, incomplete or not what it should be.
  """
  with _whole('--devkit', path), tarfile.open(path) as archive:
    inside = {
      pathlib.PurePosixPath(member.name).name: archive.extractfile(member)
      for member in _entries(archive)
      if member.isfile()
    }
    meta, truth = inside.get(_META), inside.get(_TRUTH)
    if meta is None or truth is None:
      allowed = f'ILSVRC2012_devkit_t12.tar.gz, with {_META} and {_TRUTH} in it'
      raise errors.UserError('--devkit', str(path), allowed)
    return _described(path, meta, truth)


def _described(path: pathlib.Path, meta: IO[bytes], truth: IO[bytes]) -> Devkit:
  # MatReadError is no ValueError.
  wrong = (ValueError, LookupError, TypeError, scipy.io.matlab.MatReadError)
  try:
    synsets = scipy.io.loadmat(meta, squeeze_me=True)['synsets']
    # The leaves are the classes; inner nodes of WordNet follow them.
    leaves = [s for s in synsets if s['num_children'] == 0]
    names = {int(s['ILSVRC2012_ID']): str(s['WNID']) for s in leaves}
    images = {}
    if 'num_train_images' in synsets.dtype.names:
      images = {str(s['WNID']): int(s['num_train_images']) for s in leaves}
    of_val = [names[int(line)] for line in truth.read().split()]
  except wrong as error:
    allowed = f'a devkit whose {_META} and {_TRUTH} can be read ({error})'
    raise errors.UserError('--devkit', str(path), allowed) from None
  return Devkit(sorted(names.values()), of_val, images)


def train(path: pathlib.Path, kit: Devkit) -> list[Member]:
  """Reads the positions of the images in ILSVRC2012_img_train.tar.

  Returns:
    All images, sorted by class, then by name.

  Raises:
    UserError: the file is missing or incomplete, or its classes or its number
      of images of a class are not those of the devkit.
  """
  labels = {name: label for label, name in enumerate(kit.classes)}
  num_images: collections.Counter[str] = collections.Counter()
  members = []
  with _whole('--train', path), tarfile.open(path) as outer:
    for entry in _entries(outer):
      if not entry.isfile():
        continue
      name = pathlib.PurePosixPath(entry.name).stem
      if name not in labels or num_images[name]:
        place = f'{path}: {entry.name}'
        allowed = 'the classes of the devkit, each once'
        raise errors.UserError('--train', place, allowed)
      inside = _inside(outer, entry, path, labels[name])
      num_images[name] = len(inside)
      members += inside
  _check_num_images(path, kit, num_images)
  return sorted(members, key=lambda m: (m.label, m.name))


def _inside(
  outer: tarfile.TarFile,
  entry: tarfile.TarInfo,
  path: pathlib.Path,
  label: int,
) -> list[Member]:
  """Returns the images of a class, from a tar file inside the tar file."""
  file = outer.extractfile(entry)
  place = f'{path}: {entry.name}'
  with _whole('--train', place), tarfile.open(fileobj=file) as inner:
    return [
      Member(m.name, label, entry.offset_data + m.offset_data, m.size)
      for m in _entries(inner)
      if m.isfile()
    ]


def _check_num_images(
  path: pathlib.Path, kit: Devkit, num_images: collections.Counter[str]
) -> None:
  missing = [name for name in kit.classes if not num_images[name]]
  if missing:
    allowed = f'images of all {len(kit.classes)} classes of the devkit; '
    allowed += f'{len(missing)} have none, such as {missing[0]}'
    raise errors.UserError('--train', str(path), allowed)
  for name, images in kit.images.items():
    if num_images[name] != images:
      place = f'{path}: {num_images[name]} images of {name}'
      allowed = f'{images} images, as the devkit says'
      raise errors.UserError('--train', place, allowed)


def val(path: pathlib.Path, kit: Devkit) -> list[Member]:
  """Reads the positions of the images in ILSVRC2012_img_val.tar.

  Returns:
    All images, sorted by class, then by name.

  Raises:
    UserError: the file is missing or incomplete, or its number of images is not
      that of the devkit.
  """
  with _whole('--val', path), tarfile.open(path) as archive:
    entries = [m for m in _entries(archive) if m.isfile()]
  if len(entries) != len(kit.of_val):
    place = f'{path}: {len(entries)} images'
    raise errors.UserError('--val', place, f'{len(kit.of_val)} images')
  entries.sort(key=lambda m: m.name)
  members = [
    Member(m.name, kit.classes.index(name), m.offset_data, m.size)
    for m, name in zip(entries, kit.of_val, strict=True)
  ]
  return sorted(members, key=lambda m: (m.label, m.name))


def read(
  field: str, path: pathlib.Path, members: Iterable[Member]
) -> Iterator[bytes]:
  """Yields images as serialised examples.

  Args:
    field: the user's option that names the archive, for the message.
    path: the archive.
    members: the images to read.

  Raises:
    UserError: the archive ends before an image does.
  """
  with _whole(field, path), path.open('rb') as file:
    for member in members:
      file.seek(member.offset)
      image = file.read(member.size)
      if len(image) < member.size:
        raise EOFError(f'{member.name} is cut off')
      yield array_records.encode_example(member.name, image, member.label)


def _entries(archive: tarfile.TarFile) -> list[tarfile.TarInfo]:
  """Returns all entries, after checking that the archive has its end mark.

  The check is needed because tarfile also stops silently at the end of a cut
  file and at a block that is no header. The end mark is a block of zeros.

  Raises:
    tarfile.ReadError: the archive breaks off.
  """
  entries = list(archive)
  file = archive.fileobj
  assert file is not None
  file.seek(archive.offset)
  block = file.read(tarfile.BLOCKSIZE)
  if len(block) < tarfile.BLOCKSIZE or block.strip(tarfile.NUL):
    last = f' after {entries[-1].name}' if entries else ''
    raise tarfile.ReadError(f'it breaks off{last}')
  return entries


@contextlib.contextmanager
def _whole(field: str, place: object) -> Iterator[None]:
  """Turns reading errors in the context into UserErrors that name the file."""
  try:
    yield
  except _BROKEN as error:
    reason = getattr(error, 'strerror', None) or str(error)
    first = reason.partition(':\n')[0]  # tarfile lists all that it tried
    allowed = f'a whole tar file of ILSVRC2012 ({first})'
    raise errors.UserError(field, str(place), allowed) from None
