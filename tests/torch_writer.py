"""Writes files as `torch.save` does, of NumPy arrays and without PyTorch."""

import collections
import io
import pickle
import struct
import sys
import types
import zipfile

import numpy as np

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {'protocol_version': PROTOCOL, 'little_endian': True, 'type_sizes': {}}
KINDS = {
  'float32': 'FloatStorage',
  'float64': 'DoubleStorage',
  'float16': 'HalfStorage',
  'bfloat16': 'BFloat16Storage',
  'int64': 'LongStorage',
  'int32': 'IntStorage',
  'int16': 'ShortStorage',
  'int8': 'CharStorage',
  'uint8': 'ByteStorage',
  'bool': 'BoolStorage',
}


def _rebuild_tensor_v2(*_):
  raise AssertionError('called')


def _rebuild_parameter(*_):
  raise AssertionError('called')


class View:
  """A tensor: its storage, an array of one axis, and what it shows of it."""

  def __init__(self, storage, offset, shape, strides):
    self.storage = storage
    self._view = offset, shape, strides

  def __reduce__(self):
    arguments = self.storage, *self._view, False, collections.OrderedDict()
    return _rebuild_tensor_v2, arguments


class Parameter:
  def __init__(self, view):
    self._view = view

  def __reduce__(self):
    return _rebuild_parameter, (self._view, True, collections.OrderedDict())


def view(array):
  """A tensor with a storage of its own."""
  array = np.asarray(array)
  strides = tuple(step // array.itemsize for step in array.strides)
  return View(_Storage(np.ascontiguousarray(array)), 0, array.shape, strides)


class _Storage:
  def __init__(self, array):
    self.values = array.reshape(-1)


def _modules():
  """Modules whose members are pickled as PyTorch's, by name."""
  torch, utils = types.ModuleType('torch'), types.ModuleType('torch._utils')
  for name in KINDS.values():
    setattr(torch, name, type(name, (), {'__module__': 'torch'}))
  for function in _rebuild_tensor_v2, _rebuild_parameter:
    function.__module__ = 'torch._utils'
    setattr(utils, function.__name__, function)
  return {'torch': torch, 'torch._utils': utils}


MODULES = _modules()


class _Pickler(pickle.Pickler):
  def __init__(self, file, legacy, protocol):
    super().__init__(file, protocol)
    self._legacy = legacy
    self.storages = []

  def persistent_id(self, obj):
    if not isinstance(obj, _Storage):
      return None
    if obj not in self.storages:
      self.storages.append(obj)
    key = str(self.storages.index(obj))
    kind = getattr(MODULES['torch'], KINDS[str(obj.values.dtype)])
    place = 'storage', kind, key, 'cpu', obj.values.size
    return (*place, None) if self._legacy else place


def _pickled(value, legacy, protocol):
  file = io.BytesIO()
  pickler = _Pickler(file, legacy, protocol)
  kept = {name: sys.modules.get(name) for name in MODULES}
  sys.modules.update(MODULES)
  try:
    pickler.dump(value)
  finally:
    for name, module in kept.items():
      del sys.modules[name]
      if module is not None:
        sys.modules[name] = module
  return file.getvalue(), pickler.storages


def stream(value, protocol=2):
  """The bytes of a file of PyTorch before 1.6."""
  pickled, storages = _pickled(value, True, protocol)
  keys = [str(i) for i in range(len(storages))]
  heads = [pickle.dumps(head, 2) for head in (MAGIC, PROTOCOL, SYSTEM)]
  body = [
    struct.pack('<q', s.values.size) + s.values.tobytes() for s in storages
  ]
  return b''.join([*heads, pickled, pickle.dumps(keys, 2), *body])


def archive(value, protocol=2):
  """The bytes of a file of PyTorch 1.6 or later."""
  pickled, storages = _pickled(value, False, protocol)
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w') as out:
    out.writestr('weights/data.pkl', pickled)
    out.writestr('weights/byteorder', 'little')
    for i, storage in enumerate(storages):
      out.writestr(f'weights/data/{i}', storage.values.tobytes())
    out.writestr('weights/version', '3\n')
  return file.getvalue()
