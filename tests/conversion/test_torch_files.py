"""Files of PyTorch, read without it; nothing in them is ever called."""

import argparse
import collections
import io
import os
import pickle
import pickletools
import zipfile

import hypothesis
import hypothesis.strategies as st
import ml_dtypes  # noqa: F401 (NumPy then knows bfloat16)
import numpy as np
import pytest
import torch_writer

from bignas_jax.conversion import pickles, torch_files
from bignas_jax.values import errors

FORMATS = [torch_writer.stream, torch_writer.archive]


def read(tmp_path, content):
  path = tmp_path / 'weights.pth'
  path.write_bytes(content)
  return torch_files.read(path)


@pytest.mark.parametrize('protocol', [2, 4, 5])
@pytest.mark.parametrize('write', FORMATS)
def test_arrays_of_every_type_are_read(tmp_path, write, protocol):
  rng = np.random.default_rng(0)
  arrays = collections.OrderedDict(
    (kind, rng.integers(0, 2, (2, 3)).astype(kind))
    for kind in torch_writer.KINDS
  )
  arrays['scalar'] = np.asarray(rng.normal())
  arrays['empty'] = np.zeros((0, 4), np.float32)
  tensors = collections.OrderedDict(
    (name, torch_writer.view(array)) for name, array in arrays.items()
  )
  value = {'state_dict': tensors, 'epoch': 3, 'names': ['a', ('b', 1.5, None)]}
  found = read(tmp_path, write(value, protocol))
  assert found.unknown == ()
  assert found.value['epoch'] == 3
  assert found.value['names'] == ['a', ('b', 1.5, None)]
  assert list(found.value['state_dict']) == list(arrays)
  for name, array in arrays.items():
    ours = found.value['state_dict'][name].array()
    assert ours.dtype == array.dtype
    np.testing.assert_array_equal(ours, array)


@pytest.mark.parametrize('write', FORMATS)
def test_tensors_may_be_views_and_parameters(tmp_path, write):
  base = torch_writer.view(np.arange(12.0))
  transposed = torch_writer.View(base.storage, 2, (3, 2), (1, 4))
  parameter = torch_writer.Parameter(transposed)
  found = read(tmp_path, write([base, transposed, parameter])).value
  assert found[0].storage is found[1].storage
  expected = np.arange(12.0)[2:].reshape(-1)[[[0, 4], [1, 5], [2, 6]]]
  np.testing.assert_array_equal(found[1].array(), expected)
  np.testing.assert_array_equal(found[2].array(), expected)


# Objects of classes, and what calls something when it is unpickled.


class Attack:
  def __init__(self, function, *arguments):
    self._call = function, arguments

  def __reduce__(self):
    return self._call


@pytest.mark.parametrize('write', FORMATS)
@pytest.mark.parametrize('protocol', [2, 4])
def test_objects_are_named_and_never_made(tmp_path, write, protocol):
  made = tmp_path / 'made'
  value = {
    'args': argparse.Namespace(resolution=192),
    'attack': Attack(os.mkdir, str(made)),
    'nested': [Attack(eval, f'open({str(made)!r}, "w")')],
    'weight': torch_writer.view(np.ones(2)),
  }
  found = read(tmp_path, write(value, protocol))
  assert not made.exists()
  named = set(found.unknown)
  assert {'posix.mkdir', 'argparse.Namespace'} & named
  assert any(name.endswith('.eval') for name in named)
  assert isinstance(found.value['attack'], pickles.Call)
  np.testing.assert_array_equal(found.value['weight'].array(), 1)


def test_state_of_an_object_is_kept():
  value = argparse.Namespace(a=1, b=[2])
  for protocol in range(2, 6):
    call = pickles.load(io.BytesIO(pickle.dumps(value, protocol)))
    assert call.state == {'a': 1, 'b': [2]}


PLAIN = st.recursive(
  st.none()
  | st.booleans()
  | st.integers()
  | st.floats(allow_nan=False)
  | st.text()
  | st.binary(),
  lambda inner: (
    st.lists(inner)
    | st.tuples(inner, inner)
    | st.dictionaries(st.text() | st.integers(), inner)
  ),
)


@hypothesis.given(PLAIN, st.sampled_from([2, 3, 4, 5]))
def test_plain_values_are_what_python_reads(value, protocol):
  pickled = pickle.dumps(value, protocol)
  if protocol == 2:  # bytes are a call there
    hypothesis.assume(pickle.loads(pickled) == value)
    names = [op.name for op, _, _ in pickletools.genops(pickled)]
    hypothesis.assume('REDUCE' not in names)
  assert pickles.load(io.BytesIO(pickled)) == value


# Damage.

WHOLE = {
  'model': collections.OrderedDict(
    a=torch_writer.view(np.arange(6.0).reshape(2, 3)),
    b=torch_writer.view(np.ones(3, np.int64)),
  ),
  'args': argparse.Namespace(lr=0.1),
}
CONTENTS = [write(WHOLE) for write in FORMATS]


def outcome(content, path):
  """Whether a file is read; else it is refused in one line that names it."""
  path.write_bytes(content)
  try:
    torch_files.read(path)
  except errors.UserError as error:
    assert str(error).startswith(f'{path}: ') and '\n' not in str(error)
    return False
  return True


@pytest.mark.parametrize('content', CONTENTS, ids=['stream', 'archive'])
def test_a_cut_file_is_refused(tmp_path, content):
  path = tmp_path / 'cut.pth'
  assert outcome(content, path)
  assert not any(outcome(content[:n], path) for n in range(len(content)))


def test_an_escape_that_python_never_writes_is_damage():
  with pytest.raises(pickles.Wrong, match='damaged'):
    pickles.load(io.BytesIO(b"S'\\}'\n."))


@hypothesis.given(st.data())
def test_any_changed_byte_is_read_or_refused(tmp_path_factory, data):
  content = bytearray(data.draw(st.sampled_from(CONTENTS)))
  for _ in range(data.draw(st.integers(1, 4))):
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255))
  outcome(bytes(content), tmp_path_factory.getbasetemp() / 'changed.pth')


@hypothesis.given(st.binary(max_size=60))
def test_any_pickle_is_read_or_refused(tmp_path_factory, tail):
  head = torch_writer.stream({})[: -len(pickle.dumps({}, 2))]
  outcome(head + tail, tmp_path_factory.getbasetemp() / 'any.pth')


TENSORS = {
  'beyond': ((2, 4), (3, 1), 0),
  'offset': ((2, 3), (3, 1), 1),
  'negative': ((2, 3), (-3, 1), 3),
  'repeated': ((1000, 1000), (0, 0), 0),
  'no text': (('2', 3), (3, 1), 0),
  'lengths': ((2, 3), (3,), 0),
}


@pytest.mark.parametrize('case', TENSORS)
def test_a_tensor_lies_within_its_storage(tmp_path, case):
  shape, strides, offset = TENSORS[case]
  whole = torch_writer.view(np.arange(6.0))
  wrong = torch_writer.View(whole.storage, offset, shape, strides)
  for write in FORMATS:
    with pytest.raises(errors.UserError, match='a tensor'):
      read(tmp_path, write([whole, wrong]))


def test_lengths_that_a_file_claims_reserve_nothing(tmp_path):
  """A text of 2^62 bytes, a memo of 2^31 entries, a key that is a list."""
  for opcodes, text in (
    (b'\x80\x04\x8d' + (2**62).to_bytes(8, 'little'), 'damaged'),
    (b'\x80\x02Nr\xff\xff\xff\x7f0j\xff\xff\xff\x7f.', 'another kind'),
    (b'\x80\x02}]Ns.', 'a key of type list'),
    (b'\x80\x02c__builtin__\neval\n(S"1"\ntR.', 'another kind'),
    (b'\x82\x01.', 'the opcode EXT1'),
    (b'(.', 'a mark'),
  ):
    with pytest.raises(errors.UserError, match=text):
      read(tmp_path, opcodes)


def test_a_compressed_member_is_refused(tmp_path):
  """Or a small file could become a large one."""
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as out:
    out.writestr('x/data.pkl', pickle.dumps({}, 2))
  with pytest.raises(errors.UserError, match='compressed'):
    read(tmp_path, file.getvalue())


def test_another_file_is_refused(tmp_path):
  for content in (b'', b'PK', b'GIF89a', pickle.dumps({'a': 1})):
    with pytest.raises(errors.UserError, match='a whole file that'):
      read(tmp_path, content)
  with pytest.raises(errors.UserError, match='No such file'):
    torch_files.read(tmp_path / 'none.pth')
