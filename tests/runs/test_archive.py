"""The archive of evaluated children: each line is whole, or is not there."""

import subprocess
import sys

import hypothesis
import pytest
import tiny
from etils import epath
from hypothesis import strategies as st

from bignas_jax.runs import archive
from bignas_jax.runs.archive import Archive, Entry
from bignas_jax.spaces import arch, zoo
from bignas_jax.values import errors

SPACE = zoo.MNIST
CHILD = arch.smallest(SPACE)
ENTRIES = [
  Entry(CHILD, 3, 2, 0.5, 499, 512, 0, 'random', 10),
  Entry(arch.biggest(SPACE), 30, 20, 0.625, 500, 512, 1, 'nsga2', 20),
  Entry(CHILD, 3, 2, 0.1 + 0.2, 500, 512, 12345, 'a, "b"', 123, 0.875),
]


def written(path, entries=ENTRIES):
  """An archive's file, and its lines with their ends."""
  for entry in entries:
    opened(path).append(entry)
  return path.read_bytes().splitlines(keepends=True)


def opened(path):
  return Archive(epath.Path(path), SPACE)


def refused(path) -> str:
  with pytest.raises(errors.UserError) as caught:
    opened(path)
  assert str(path) in str(caught.value) and '\n' not in str(caught.value)
  return str(caught.value)


@pytest.fixture
def path(tmp_path):
  return tmp_path / 'search' / 'archive.csv'


def test_it_is_read_back(path):
  lines = written(path)
  assert opened(path).entries == ENTRIES
  assert len(lines) == 1 + len(ENTRIES)


@pytest.mark.parametrize('headed', [True, False])
def test_a_file_of_before_top5_is_read_and_goes_on(path, headed):
  """With the columns that it has."""
  path.parent.mkdir()
  columns = Entry._fields[:-1]
  lines = [archive._line(columns)] if headed else []
  lines.append(archive._line([arch.to_json(CHILD), *ENTRIES[0][1:-1]]))
  path.write_bytes(b''.join(lines))
  found = opened(path)
  assert found.entries == ENTRIES[:1] and found.entries[0].top5 is None
  found.append(ENTRIES[2])
  assert opened(path).entries == [ENTRIES[0], ENTRIES[2]._replace(top5=None)]
  assert path.read_bytes().startswith(archive._line(columns))


def test_an_empty_file_gets_its_header(path):
  path.parent.mkdir()
  path.write_bytes(b'')  # what a full disk leaves
  lines = written(path)
  assert lines[0].startswith(b'arch,macs,')
  assert opened(path).entries == ENTRIES


def test_a_file_without_its_header_gets_it(path, capsys):
  lines = written(path)
  path.write_bytes(b''.join(lines[1:]))
  assert opened(path).entries == ENTRIES
  opened(path).append(ENTRIES[0])
  assert path.read_bytes() == b''.join([*lines, lines[1]])
  assert capsys.readouterr().err == ''


@hypothesis.given(cut=st.integers(0, 10**6))
def test_no_cut_is_ever_another_number(tmp_path_factory, cut):
  """Wherever a file is cut, whole lines stay, and nothing else is read."""
  path = tmp_path_factory.mktemp('cut') / 'archive.csv'
  content = b''.join(written(path))
  left = content[: cut % len(content)]
  path.write_bytes(left)
  found = opened(path)
  whole = left.count(b'\n') - 1
  assert found.entries == ENTRIES[: max(0, whole)]
  found.append(ENTRIES[2])
  assert opened(path).entries == [*ENTRIES[: max(0, whole)], ENTRIES[2]]
  if whole > 0:
    kept = content.splitlines(keepends=True)[: 1 + whole]
    assert path.read_bytes().startswith(b''.join(kept))


@pytest.mark.parametrize(
  'rest', [b'{"resolution": 28, "w', b'\0' * 200, b'\xff\xfe\n', b'half,a\r\n']
)
def test_a_last_line_that_is_not_whole_is_left_out_in_one_line(
  path, capsys, rest
):
  lines = written(path)
  path.write_bytes(b''.join(lines) + rest)
  found = opened(path)
  assert found.entries == ENTRIES
  told = capsys.readouterr().err
  assert told.count('\n') == 1 and 'archive.csv: the last line' in told
  assert path.read_bytes() == b''.join(lines) + rest, 'reading changes nothing'
  found.append(ENTRIES[1])
  assert path.read_bytes() == b''.join([*lines, lines[2]])
  assert opened(path).entries == [*ENTRIES, ENTRIES[1]]
  assert capsys.readouterr().err == ''


def test_other_columns_stay_and_ours_are_found_in_any_order(path):
  """As a spreadsheet may leave them: line ends, order, a note."""
  path.parent.mkdir()
  names = ['note', *reversed(Entry._fields)]
  cells = dict(zip(Entry._fields, ENTRIES[0], strict=True))
  cells |= {'note': 'a "note", mine', 'arch': arch.to_json(CHILD)}
  lines = [archive._line(names), archive._line(cells[name] for name in names)]
  path.write_bytes(b''.join(lines).replace(b'\r', b''))
  found = opened(path)
  assert found.entries == ENTRIES[:1]
  found.append(ENTRIES[1])
  assert opened(path).entries == ENTRIES[:2]


def test_blank_lines_are_none(path):
  lines = written(path)
  path.write_bytes(b'\r\n'.join([*lines, b'']))
  assert opened(path).entries == ENTRIES


@pytest.mark.parametrize(
  ('name', 'value', 'words'),
  [
    ('arch', 'x', ''),
    ('arch', '{"resolution": 28}', 'keys'),
    ('arch', '[' * 100_000, ''),
    ('macs', 'x', ''),
    ('macs', '-3', 'macs: got -3; allowed: a whole number >= 0'),
    ('macs', '1.5', 'macs'),
    ('params', '', ''),
    ('top1', 'nan', ''),
    ('top1', 'NaN', 'top1'),
    ('top1', 'Infinity', 'top1'),
    ('top1', '1.5', 'top1: got 1.5; allowed: 0 <= number <= 1'),
    ('images', 'true', 'images'),
    ('order', '"5"', 'order'),
    ('step', '1_0', ''),
    ('step', '9' * 5000, ''),
  ],
)
def test_a_damaged_line_is_named(path, name, value, words):
  lines = written(path)
  cells = {**ENTRIES[1]._asdict(), 'arch': arch.to_json(CHILD), name: value}
  lines[2] = archive._line(cells.values())
  path.write_bytes(b''.join(lines))
  told = refused(path)
  assert 'archive.csv line 3: got' in told and words in told
  assert 'mend or delete the line' in told


def test_bytes_that_are_no_text_are_named_by_line(path):
  lines = written(path)
  lines[2] = lines[2].replace(b'nsga2', b'\xff')
  path.write_bytes(b''.join(lines))
  assert 'archive.csv line 3' in refused(path)


def test_children_of_another_space_are_named_though_they_come_last(path):
  lines = written(path)
  other = arch.to_json(arch.smallest(zoo.BIGNAS))
  cells = {**ENTRIES[1]._asdict(), 'arch': other}
  path.write_bytes(b''.join(lines[:2]) + archive._line(cells.values()))
  told = refused(path)
  assert 'line 3' in told and 'arch.width' in told


@pytest.mark.parametrize(
  'header', [b'arch,macs\n', b'a,b,c\n', b'\xff\n', b'\0\n', b'{}\n']
)
def test_other_columns_than_ours_are_named(path, header):
  path.parent.mkdir()
  path.write_bytes(header + b'1,2\n')
  told = refused(path)
  assert 'archive.csv line 1' in told and 'the columns arch, macs' in told


def test_a_directory_of_that_name_is_named(path):
  path.mkdir(parents=True)
  assert 'directory' in refused(path)


# In a process of its own: the limit is the process's.
_APPEND_WITHOUT_ROOM = """
import resource, sys
import test_archive
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
archive = test_archive.opened(sys.argv[1])
before = len(archive.entries)
try:
  archive.append(test_archive.ENTRIES[2])
except OSError as error:
  assert error.errno and error.filename == sys.argv[1]
  assert len(archive.entries) == before
  sys.exit(9)
"""


@pytest.mark.parametrize('there', [0, 2])
def test_a_full_disk_leaves_what_was_there(path, there):
  before = b''.join(written(path, ENTRIES[:there])) if there else b''
  room = str(len(before) + 30)
  done = subprocess.run(
    [sys.executable, '-c', _APPEND_WITHOUT_ROOM, path, room],
    env=tiny.environment(),
    check=False,
  )
  assert done.returncode == 9
  assert (path.read_bytes() if path.exists() else b'') == before
