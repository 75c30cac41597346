"""Files that `torch.save` wrote, read without PyTorch.

Both formats are read: the zip file of PyTorch 1.6 and later, and the stream of
pickles before it, in which most published weights are. Nothing that a file
names is imported or called (`pickles`): tensors become arrays, and objects of
other classes become `pickles.Call`.
"""

import dataclasses
import io
import os
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from bignas_jax.conversion import pickles
from bignas_jax.system import files
from bignas_jax.values import errors

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_ALLOWED = 'a whole file that torch.save wrote'
_MOST_AXES = 32
_DTYPES = {
  'FloatStorage': np.float32,
  'DoubleStorage': np.float64,
  'HalfStorage': np.float16,
  'BFloat16Storage': ml_dtypes.bfloat16,
  'LongStorage': np.int64,
  'IntStorage': np.int32,
  'ShortStorage': np.int16,
  'CharStorage': np.int8,
  'ByteStorage': np.uint8,
  'BoolStorage': np.bool_,
}
_REBUILD = {'_rebuild_tensor', '_rebuild_tensor_v2'}


class File(NamedTuple):
  """The content of a file that `torch.save` wrote.

  Attributes:
    value: nested dicts and lists, with `Tensor` for tensors.
    unknown: names of the classes and functions that were not called.
  """

  value: Any
  unknown: tuple[str, ...]


@dataclasses.dataclass(eq=False)
class _Storage:
  """Numbers that tensors are views of; they are read after the tensors."""

  dtype: np.dtype
  size: int
  values: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
  """A tensor: a view of a storage.

  Attributes:
    storage: the numbers.
    offset: position of the first entry.
    shape: sizes of the axes.
    strides: steps of the axes, in entries.
  """

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]

  @property
  def dtype(self) -> np.dtype:
    """Returns the type of the entries."""
    return self.storage.dtype

  def array(self) -> np.ndarray:
    """Returns a copy of the entries."""
    values = self.storage.values
    assert values is not None, 'storages are read with the file'
    steps = [stride * values.itemsize for stride in self.strides]
    view = np.lib.stride_tricks.as_strided(
      values[self.offset :], self.shape, steps, writeable=False
    )
    return view.copy()


def read(path: os.PathLike) -> File:
  """Returns the content of a file that `torch.save` wrote.

  Raises:
    UserError: the file cannot be read, is no such file or is damaged, or holds
      what no weights need.
  """
  content = files.read_bytes(path)
  try:
    if content.startswith(b'PK'):
      return _zip(content)
    return _stream(content)
  except (pickles.Wrong, zipfile.BadZipFile) as error:
    raise errors.UserError(str(path), str(error), _ALLOWED) from None


class _Tensors:
  """The storages of a file, by key, and the values of described calls."""

  def __init__(self):
    self.storages: dict[str, _Storage] = {}
    self.unknown: dict[str, None] = {}

  def load(self, file: io.BytesIO) -> Any:
    return pickles.load(file, self.storage, self.called)

  def storage(self, identifier: Any) -> _Storage:
    """Returns the storage that a persistent identifier describes."""
    if not isinstance(identifier, tuple) or len(identifier) not in (5, 6):
      raise pickles.Wrong('a persistent identifier that is no storage')
    word, kind, key, _, size, *view = identifier
    right = word == 'storage' and isinstance(kind, pickles.Name)
    if not right or view not in ([], [None]) or not _is_size(size):
      raise pickles.Wrong('a persistent identifier that is no storage')
    if kind.name not in _DTYPES or not isinstance(key, str):
      raise pickles.Wrong(f'a storage of {kind}')
    new = _Storage(np.dtype(_DTYPES[kind.name]), size)
    old = self.storages.setdefault(key, new)
    if (old.dtype, old.size) != (new.dtype, new.size):
      raise pickles.Wrong(f'two descriptions of storage {key[:40]}')
    return old

  def called(self, call: pickles.Call) -> Any:
    """Returns the value of a call that weights need, or the call itself."""
    name, arguments = call.function, call.arguments
    if isinstance(name, pickles.Name) and isinstance(arguments, tuple):
      if name == ('collections', 'OrderedDict'):
        return _ordered(arguments)
      if name.module == 'torch._utils' and name.name in _REBUILD:
        return _tensor(arguments)
      if name == ('torch._utils', '_rebuild_parameter') and arguments:
        return arguments[0]
    if isinstance(name, pickles.Name):
      self.unknown[str(name)[:200]] = None
    return call


def _ordered(arguments: tuple[Any, ...]) -> dict[Any, Any]:
  """Returns the dict that an OrderedDict is made of: nothing, or pairs."""
  if not arguments:
    return {}
  (pairs,) = arguments
  return {str(key): value for key, value in pairs}


def _tensor(arguments: tuple[Any, ...]) -> Tensor:
  """Returns a tensor, which lies within its storage."""
  storage, offset, shape, strides = arguments[:4]
  numbers = shape, strides
  whole = isinstance(storage, _Storage) and _is_size(offset)
  whole = whole and all(isinstance(n, tuple) for n in numbers)
  whole = whole and all(_is_size(n) for n in (*shape, *strides))
  if not whole or len(shape) != len(strides) or len(shape) > _MOST_AXES:
    raise pickles.Wrong('a tensor without a shape')
  last = sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
  if 0 not in shape and offset + last >= storage.size:
    raise pickles.Wrong('a tensor that is larger than its storage')
  # Steps of 0 would make a small file a large array.
  if np.prod(shape, dtype=object) > max(storage.size, 1):
    raise pickles.Wrong('a tensor that is larger than its storage')
  return Tensor(storage, offset, shape, strides)


def _is_size(value: Any) -> bool:
  return type(value) is int and 0 <= value < 2**48


def _stream(content: bytes) -> File:
  """Reads pickles one after the other, and then the storages."""
  file, tensors = io.BytesIO(content), _Tensors()
  if pickles.load(file) != _MAGIC:
    raise pickles.Wrong('another kind of file')
  if pickles.load(file) != _PROTOCOL:
    raise pickles.Wrong('another version of the format')
  system = pickles.load(file)
  if not isinstance(system, dict) or not system.get('little_endian'):
    raise pickles.Wrong('a file of a big-endian machine')
  value, keys = tensors.load(file), pickles.load(file)
  if not isinstance(keys, list) or {*map(type, keys)} > {str}:
    raise pickles.Wrong('storages without names')
  for key in keys:
    if key not in tensors.storages:
      raise pickles.Wrong(f'a storage that no tensor has, {key[:40]}')
    storage = tensors.storages[key]
    if int.from_bytes(file.read(8), 'little') != storage.size:
      raise pickles.Wrong(f'another size of storage {key[:40]}')
    storage.values = _numbers(key, storage, file.read)
  return _whole(value, tensors)


def _zip(content: bytes) -> File:
  """Reads `data.pkl` and the storages beside it in the folder `data`."""
  tensors = _Tensors()
  with zipfile.ZipFile(io.BytesIO(content)) as archive:
    names = archive.namelist()
    inside = [name for name in names if name.rpartition('/')[2] == 'data.pkl']
    if len(inside) != 1:
      raise pickles.Wrong('a zip file without data.pkl')
    root = inside[0].removesuffix('data.pkl')
    if f'{root}byteorder' in names:
      order = _entry(archive, f'{root}byteorder')
      if order.strip() != b'little':
        raise pickles.Wrong('a file of a big-endian machine')
    value = tensors.load(io.BytesIO(_entry(archive, inside[0])))
    for key, storage in tensors.storages.items():
      entry = io.BytesIO(_entry(archive, f'{root}data/{key}'))
      storage.values = _numbers(key, storage, entry.read)
  return _whole(value, tensors)


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
  """Returns a member of an archive, which PyTorch does not compress."""
  try:
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED:
      raise pickles.Wrong(f'a compressed member, {name[:40]}')
    return archive.read(entry)
  except (KeyError, EOFError, NotImplementedError, RuntimeError) as error:
    raise pickles.Wrong(f'no member {name[:40]} ({error})') from None


def _numbers(
  key: str, storage: _Storage, read_: Callable[[int], bytes]
) -> np.ndarray:
  size = storage.size * storage.dtype.itemsize
  content = read_(size)
  if len(content) < size:
    raise pickles.Wrong(f'storage {key[:40]} is cut off')
  return np.frombuffer(content, storage.dtype)


def _whole(value: Any, tensors: _Tensors) -> File:
  missing = [k for k, s in tensors.storages.items() if s.values is None]
  if missing:
    raise pickles.Wrong(f'storage {missing[0][:40]} is missing')
  return File(value, tuple(tensors.unknown))
