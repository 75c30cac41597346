"""ImageNet in small: prepared from archives, read as the splits of a run."""

import dataclasses
import io
import json
import pathlib
import pickle
import re
import resource
import struct
import tarfile

import numpy as np
import PIL.Image
import pytest
import scipy.io
from array_record.python import array_record_module

from bignas_jax import cli, prepare
from bignas_jax.data import (
  array_records,
  decode,
  pipeline,
  prepare_imagenet,
  sources,
)
from bignas_jax.values import errors
from configs import imagenet

encode = array_records.encode_example
CLASSES = ('n01440764', 'n01443537', 'n15075141')
IDS = (3, 1, 2)  # the devkit numbers them in another order
TRAIN, VAL = 7, 2  # images a class
NAME = 'imagenet2012'
SHARD = f'{NAME}-test.array_record-00000-of-00001'


def config(directory, **changes) -> sources.Data:
  fields = {'directory': str(directory), 'held_out': 6} | changes
  return dataclasses.replace(imagenet.get_config().data, **fields)


def jpeg(label: int, number: int, kind='JPEG') -> bytes:
  """An image that tells which one it is."""
  rng = np.random.RandomState(100 * label + number)
  pixels = rng.randint(0, 256, (24 + number, 32, 3), np.uint8)
  out = io.BytesIO()
  PIL.Image.fromarray(pixels).save(out, kind)
  return out.getvalue()


def tar(path, files: dict[str, bytes], mode='w') -> bytes:
  out = io.BytesIO()
  with tarfile.open(fileobj=out, mode=mode) as archive:
    for name, content in files.items():
      entry = tarfile.TarInfo(name)
      entry.size = len(content)
      archive.addfile(entry, io.BytesIO(content))
  if path is not None:
    path.write_bytes(out.getvalue())
  return out.getvalue()


@pytest.fixture(scope='module')
def archives(tmp_path_factory) -> dict[str, pathlib.Path]:
  """The original archives, with three classes."""
  root = tmp_path_factory.mktemp('archives')
  paths = {name: root / f'{name}.tar' for name in ('train', 'val', 'devkit')}
  inner = {}
  for label, name in reversed(list(enumerate(CLASSES))):
    files = {f'{name}_{i}.JPEG': jpeg(label, i) for i in reversed(range(TRAIN))}
    inner[f'{name}.tar'] = tar(None, files)
  tar(paths['train'], inner)
  labels = [0, 1, 2] * VAL
  files = {
    f'ILSVRC2012_val_{i + 1:08}.JPEG': jpeg(label, 50 + i)
    for i, label in enumerate(labels)
  }
  tar(paths['val'], dict(reversed(files.items())))
  synsets = np.array(
    [
      *((i, name, 0, TRAIN) for i, name in zip(IDS, CLASSES, strict=True)),
      (4, 'n00001740', 3, 0),  # an inner node
    ],
    [
      *(('ILSVRC2012_ID', 'i4'), ('WNID', 'O')),
      *(('num_children', 'i4'), ('num_train_images', 'i4')),
    ],
  )
  meta = io.BytesIO()
  scipy.io.savemat(meta, {'synsets': synsets})
  truth = ''.join(f'{IDS[label]}\n' for label in labels)
  devkit = {
    'ILSVRC2012_devkit_t12/data/meta.mat': meta.getvalue(),
    'ILSVRC2012_devkit_t12/data/'
    'ILSVRC2012_validation_ground_truth.txt': truth.encode(),
  }
  tar(paths['devkit'], devkit, 'w:gz')
  return paths


@pytest.fixture(scope='module')
def prepared(archives, tmp_path_factory) -> pathlib.Path:
  """TFDS's layout: DIRECTORY/imagenet2012/VERSION."""
  root = tmp_path_factory.mktemp('prepared')
  out = root / 'imagenet2012' / '5.1.0'
  counts = prepare_imagenet.from_tars(**archives, out=out, per_shard=4)
  assert counts == {'train': TRAIN * 3, 'validation': VAL * 3}
  return root


def names(source) -> list[str]:
  return [source.name(i).split()[-1] for i in range(len(source))]


def test_archives_become_the_splits_of_the_papers_config(prepared):
  splits = sources.load(config(prepared), channels=3)
  assert [len(split) for split in splits] == [15, 6, 6, 0]
  assert splits.train.classes == CLASSES
  files = prepared / 'imagenet2012' / '5.1.0'
  assert (
    len(list(files.glob('imagenet2012-train.array_record-*-of-00005'))) == 5
  )
  for split, first in zip(splits[:3], (0, 0, 50), strict=True):
    for index in range(len(split)):
      image, label = split[index]
      name = names(split)[index]
      if first:
        number = int(name.split('_')[2].split('.')[0]) - 1
        assert label == number % 3
        number += first
      else:
        assert name.startswith(CLASSES[label])
        number = int(name.split('_')[1].split('.')[0])
      expected = decode.open_image(jpeg(label, number), 3)
      np.testing.assert_array_equal(
        decode.decode(image), decode.decode(expected)
      )
  assert not set(names(splits.train)) & set(names(splits.held_out))


def test_a_folder_of_the_same_files_has_the_same_held_out_images(
  prepared, tmp_path
):
  for split, count, first in (('train', TRAIN, 0), ('val', VAL, 50)):
    for label, name in enumerate(CLASSES):
      (tmp_path / split / name).mkdir(parents=True)
      for i in range(count):
        path = tmp_path / split / name / f'{name}_{i}.JPEG'
        path.write_bytes(jpeg(label, first + i))
  folder = sources.load(config(tmp_path, name='image_folder'), channels=3)
  records = sources.load(config(prepared), channels=3)
  for one, two in (
    (folder.train, records.train),
    (folder.held_out, records.held_out),
  ):
    assert [pathlib.Path(n).name for n in names(one)] == names(two)


def test_batches_of_records_do_not_depend_on_who_makes_them(prepared):
  """Any number of threads, here or in a process that got them pickled."""
  made = []
  for workers, prefetch in ((1, 0), (1, 2), (3, 4)):
    splits = sources.load(config(prepared, workers=workers), channels=3)
    batches = pipeline.train_batches(
      splits.train,
      config(prepared, workers=workers),
      batch_size=4,
      resolution=16,
      seed=3,
    )
    stream = batches.prepared(2, prefetch)
    made.append([next(stream) for _ in range(6)])
    carried = pickle.loads(pickle.dumps(batches))
    made.append([carried[step] for step in range(2, 8)])
  for other in made[1:]:
    for one, two in zip(made[0], other, strict=True):
      assert one.keys() == two.keys() == {'image', 'label'}
      for name in one:
        np.testing.assert_array_equal(one[name], two[name])


def tfrecord(records) -> bytes:
  """Lengths, data, and sums that nobody checks."""
  return b''.join(
    struct.pack('<QI', len(r), 0) + r + struct.pack('<I', 0) for r in records
  )


@pytest.fixture
def tfrecords(tmp_path) -> pathlib.Path:
  root = tmp_path / 'tfds'
  root.mkdir()
  number = 0
  for split, shards in (('train', 3), ('validation', 1), ('test', 1)):
    for i in range(shards):
      records = []
      for _ in range(4 + i):
        label = -1 if split == 'test' else number % 3
        records.append(
          encode(f'{number}.JPEG', jpeg(number % 3, number), label)
        )
        number += 1
      name = f'imagenet2012-{split}.tfrecord-{i:05}-of-{shards:05}'
      (root / name).write_bytes(tfrecord(records))
  (root / 'label.labels.txt').write_text('\n'.join(CLASSES) + '\n')
  (root / 'dataset_info.json').write_text('{"fileFormat": "tfrecord"}')
  return root


def test_tfrecords_keep_their_order_and_their_files(
  tfrecords, tmp_path, capsys
):
  out = tmp_path / 'out'
  command = [f'--tfrecords={tfrecords}', f'--out={out}']
  assert cli.status(prepare.main, command) == 0
  result = json.loads(capsys.readouterr().out)
  assert result['images'] == {'test': 4, 'train': 15, 'validation': 4}
  assert json.loads((out / 'dataset_info.json').read_text()) == {
    'fileFormat': 'array_record'
  }
  train, test = array_records.read(str(out), 'imagenet2012', 3)
  assert names(train) + names(test) == [f'{i}.JPEG' for i in range(19)]
  assert [test[i][1] for i in range(4)] == [i % 3 for i in range(15, 19)]
  # What is there is not written again.
  before = {
    path: path.stat().st_mtime_ns for path in out.glob('*array_record*')
  }
  first = next(iter(before))
  first.unlink()
  assert cli.status(prepare.main, command) == 0
  after = {path: path.stat().st_mtime_ns for path in out.glob('*array_record*')}
  assert after.keys() == before.keys()
  assert [p for p in before if after[p] != before[p]] == [first]


def test_a_truncated_tfrecord_is_named_and_leaves_nothing(tfrecords, tmp_path):
  path = next(tfrecords.glob('*train*00001-of*'))
  path.write_bytes(path.read_bytes()[:-100])
  out = tmp_path / 'out'
  with pytest.raises(errors.UserError, match=path.name):
    prepare_imagenet.from_tfrecords(tfrecords, out)
  assert not (out / path.name.replace('tfrecord', 'array_record')).exists()


@pytest.mark.parametrize(
  ('break_it', 'text'),
  [
    (lambda root: (root / 'label.labels.txt').unlink(), 'label.labels.txt'),
    (lambda root: shard(root, 'train', 2).unlink(), 'all 5 files of train'),
    (
      lambda root: shard(root, 'train', 2).write_bytes(b'no'),
      '00002-of-00005.*whole',
    ),
    (lambda root: cut(shard(root, 'validation', 0)), 'a whole ArrayRecord'),
    (
      lambda root: [p.unlink() for p in root.glob('*validation*')],
      'validation.*and so on',
    ),
  ],
)
def test_incomplete_files_are_named(archives, tmp_path, break_it, text):
  prepare_imagenet.from_tars(**archives, out=tmp_path, per_shard=4)
  break_it(tmp_path)
  with pytest.raises(errors.UserError, match=text) as error:
    sources.load(config(tmp_path), channels=3)
  assert error.value.field == 'data.directory'


def shard(root, split, index) -> pathlib.Path:
  return sorted(root.glob(f'imagenet2012-{split}.*'))[index]


def cut(path: pathlib.Path) -> None:
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
  ('directory', 'text'),
  [
    ('', 'as ArrayRecord in it'),
    ('/nowhere', 'as ArrayRecord'),
    ('gs://b/d', 'mounted'),
  ],
)
def test_a_directory_without_imagenet_is_an_error(directory, text):
  with pytest.raises(errors.UserError, match=text):
    sources.load(config(directory), channels=3)


def test_one_bad_record_is_damaged(tmp_path):
  """No example, of no class, named in no known letters, or with other bits."""
  name = array_records.shard('imagenet2012', 'train', 0, 1)
  path = tmp_path / name
  records = [
    encode('a.JPEG', jpeg(0, 0), 0),
    b'\xff\xffno example',
    encode('b.JPEG', jpeg(0, 1), 2),
    encode('c.JPEG', jpeg(0, 2), -1),
    encode('?.JPEG', jpeg(0, 3), 1).replace(b'?', b'\xff'),
    encode('d.JPEG', jpeg(0, 4), 1),
    encode('e.JPEG', jpeg(0, 5), 1),
  ]
  writer = array_record_module.ArrayRecordWriter(
    str(path), 'group_size:1,uncompressed'
  )
  for record in records:
    writer.write(record)
  writer.close()
  content = path.read_bytes()
  path.write_bytes(content.replace(b'd.JPEG', b'D.JPEG'))
  other = array_records.shard('imagenet2012', 'validation', 0, 1)
  path.with_name(other).write_bytes(content)
  (tmp_path / 'label.labels.txt').write_text('a\nb\n')
  train, test = array_records.read(str(tmp_path), 'imagenet2012', 3)
  assert [train.name(i) for i in range(len(train))] == [
    *('record 0 a.JPEG', 'record 1', 'record 2 b.JPEG', 'record 3 c.JPEG'),
    *('record 4 \\xff.JPEG', 'record 5', 'record 6 e.JPEG'),
  ]
  for index, text in (
    (1, r'tf\.train\.Example'),
    (2, 'label 2 of 2 classes'),
    (3, 'label -1'),
    (5, 'hash mismatch'),
  ):
    with pytest.raises(decode.Damaged, match=text):
      train[index]
  assert [train[i][1] for i in (0, 4, 6)] == [0, 1, 1]
  # All of a file may go.
  path.with_name(other).unlink()
  with pytest.raises(decode.Damaged, match='No such file'):
    test[0]


@pytest.mark.parametrize(
  'options',
  [[], ['--train=a.tar'], ['--tfrecords=a', '--train=a.tar']],
)
def test_prepare_wants_archives_or_tfrecords(options, capsys, tmp_path):
  assert cli.status(prepare.main, [*options, f'--out={tmp_path / "o"}']) == 2
  assert '--train, --val and --devkit' in capsys.readouterr().err
  assert not (tmp_path / 'o').exists()


def test_prepare_names_a_wrong_archive(archives, capsys, tmp_path):
  paths = archives | {'val': archives['train']}
  options = [f'--{name}={path}' for name, path in paths.items()]
  assert cli.status(prepare.main, [*options, f'--out={tmp_path / "o"}']) == 2
  assert '3 images; allowed: 6 images' in capsys.readouterr().err.replace(
    "'", ''
  )


# What is not whole, or not what was begun.


def prepared_from(paths, out) -> int:
  options = [f'--{name}={path}' for name, path in paths.items()]
  return cli.status(prepare.main, [*options, f'--out={out}'])


def files_of(directory) -> dict[str, bytes]:
  return {p.name: p.read_bytes() for p in directory.iterdir()}


def without_end(path, members: int, copy) -> pathlib.Path:
  """A copy of a tar file that ends with a whole member."""
  with tarfile.open(path) as archive:
    last = archive.getmembers()[members - 1]
  end = last.offset_data + -(-last.size // 512) * 512
  copy.write_bytes(path.read_bytes()[:end])
  return copy


def with_members(path, change, copy) -> pathlib.Path:
  """A copy whose members are `change`d, as a list of names and contents."""
  with tarfile.open(path) as archive:
    found = [(m.name, archive.extractfile(m).read()) for m in archive]
  out = io.BytesIO()
  with tarfile.open(fileobj=out, mode='w') as archive:
    for name, content in change(found):
      entry = tarfile.TarInfo(name)
      entry.size = len(content)
      archive.addfile(entry, io.BytesIO(content))
  copy.write_bytes(out.getvalue())
  return copy


def cut_copy(part):
  def change(path, copy):
    content = path.read_bytes()
    copy.write_bytes(content[: int(len(content) * part)])
    return copy

  return change


@pytest.mark.parametrize(
  ('name', 'change', 'text'),
  [
    ('train', cut_copy(0.02), 'a whole tar file'),
    ('train', cut_copy(0.66), 'a whole tar file.*unexpected end'),
    ('train', lambda p, c: without_end(p, 2, c), 'breaks off after n01443537'),
    ('val', cut_copy(0.5), 'a whole tar file'),
    ('val', lambda p, c: without_end(p, 6, c), 'a whole tar file.*breaks off'),
    ('devkit', cut_copy(0.5), 'a whole tar file'),
    ('devkit', cut_copy(0), 'a whole tar file'),
    ('devkit', lambda p, c: p.with_name('val.tar'), 'with meta.mat'),
    ('train', lambda p, c: p.parent, 'a whole tar file.*directory'),
    ('train', lambda p, c: p.with_name('none'), r'\(No such file'),
    (
      'train',
      lambda p, c: with_members(p, lambda m: m[1:], c),
      'all 3 classes of the devkit; 1 have none, such as n15075141',
    ),
    (
      'train',
      lambda p, c: with_members(p, lambda m: [*m, m[0]], c),
      'n15075141.tar.*each once',
    ),
    (
      'train',
      lambda p, c: with_members(
        p, lambda m: [(m[0][0], tar(None, {'a.JPEG': b'a'})), *m[1:]], c
      ),
      '1 images of n15075141.*7 images, as the devkit says',
    ),
    (
      'train',
      lambda p, c: with_members(p, lambda m: [(m[0][0], b''), *m[1:]], c),
      'n15075141.tar.*a whole tar file',
    ),
  ],
)
def test_an_archive_that_is_not_whole_is_one_line(
  archives, tmp_path, capsys, name, change, text
):
  paths = archives | {name: change(archives[name], tmp_path / 'broken.tar')}
  assert prepared_from(paths, tmp_path / 'out') == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert re.search(f'--{name}: got .*{paths[name].name}.*{text}', line)
  assert not (tmp_path / 'out').exists()


def test_a_directory_goes_on_with_its_own_archives_only(
  archives, tmp_path, capsys
):
  """What is there is counted; what is made of others stays as it is."""
  other = with_members(
    archives['val'],
    lambda m: [(name, jpeg(0, i)) for i, (name, _) in enumerate(m)],
    tmp_path / 'other.tar',
  )
  out = tmp_path / 'out'
  prepare_imagenet.from_tars(**archives, out=out, per_shard=4)
  whole = files_of(out)
  lost = shard(out, 'train', 3)
  lost.unlink()
  lost.with_name(lost.name + '.new').write_bytes(b'of a run that was killed')
  counts = prepare_imagenet.from_tars(**archives, out=out, per_shard=4)
  assert counts == {'train': TRAIN * 3, 'validation': VAL * 3}
  assert files_of(out) == whole
  # Of other images, of as many a file, of other archives that are moved.
  for changes, text in (
    ({'val': other}, r'made of the same.*sha256'),
    ({'per_shard': 3}, 'no other files of this kind'),
  ):
    with pytest.raises(errors.UserError, match=text) as error:
      prepare_imagenet.from_tars(
        **archives | {'out': out, 'per_shard': 4} | changes
      )
    assert error.value.field == '--out'
    assert files_of(out) == whole
  moved = tmp_path / 'moved.tar'
  moved.write_bytes(archives['train'].read_bytes())
  paths = archives | {'train': moved}
  assert prepare_imagenet.from_tars(**paths, out=out, per_shard=4) == counts
  # A file of more images is whole in itself, but not ours.
  few = shard(out, 'validation', 0)
  train = shard(out, 'train', 1).read_bytes()
  few.write_bytes(train)
  with pytest.raises(errors.UserError, match=f'{few.name}: 4 images.*3 images'):
    prepare_imagenet.from_tars(**archives, out=out, per_shard=4)
  assert few.read_bytes() == train
  cut(few)
  with pytest.raises(errors.UserError, match=f'{few.name}.*a whole ArrayRec'):
    prepare_imagenet.from_tars(**archives, out=out, per_shard=4)


@pytest.mark.parametrize('name', ['label.labels.txt', SHARD])
def test_files_without_a_manifest_are_left_alone(archives, tmp_path, name):
  (tmp_path / name).write_text('mine')
  with pytest.raises(errors.UserError, match=f'prepared.json.*{name}') as error:
    prepare_imagenet.from_tars(**archives, out=tmp_path)
  assert error.value.field == '--out'
  assert files_of(tmp_path) == {name: b'mine'}


def test_a_place_without_room_is_one_line(archives, tmp_path, capsys):
  """Before the work where it can be known, and in the middle of it."""
  (tmp_path / 'file').write_text('mine')
  for out in (tmp_path / 'file', tmp_path / 'file' / 'out'):
    paths = archives | {'train': tmp_path / 'not looked at'}
    assert prepared_from(paths, out) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --out: got '{out}'; allowed: a ")
  limit = resource.getrlimit(resource.RLIMIT_FSIZE)
  try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
    assert prepared_from(archives, tmp_path / 'out') == 2
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
  (line,) = capsys.readouterr().err.splitlines()
  assert 'imagenet2012-train' in line and 'File too large' in line
  assert not list((tmp_path / 'out').glob('*array_record*'))
  assert prepared_from(archives, tmp_path / 'out') == 0
  assert len(array_records.read(str(tmp_path / 'out'), NAME, 3)[0]) == 21


def test_tfrecords_are_all_there_and_as_many_as_they_say(tfrecords, tmp_path):
  def refused(text):
    with pytest.raises(errors.UserError, match=text) as error:
      prepare_imagenet.from_tfrecords(tfrecords, tmp_path / 'out')
    assert error.value.field == '--tfrecords'

  (split,) = tfrecords.glob('*validation*')
  info = {'splits': [{'name': 'validation', 'shardLengths': ['5']}]}
  (tfrecords / 'dataset_info.json').write_text(json.dumps(info))
  refused(f'{split.name}: 4 images.*5 images, as dataset_info.json says')
  assert not list((tmp_path / 'out').glob('*validation*'))
  content = split.read_bytes()
  split.write_bytes(b'\xff' * 100)
  refused(f'{split.name}.*a whole TFRecord file')
  split.write_bytes(content)
  next(tfrecords.glob('*train*00001-of*')).unlink()
  refused('all 3 files of train.*00001-of-00003 is missing')


def test_a_name_of_a_class_may_have_spaces(prepared, tmp_path):
  for path in (prepared / 'imagenet2012' / '5.1.0').iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  text = 'great white shark\ntench\r\n\n cock \n'
  (tmp_path / 'label.labels.txt').write_text(text)
  shard(tmp_path, 'train', 0).with_name(
    'imagenet2012-train.array_record-00000-of-00005.new'
  ).write_bytes(b'of a run that is preparing')
  train, _ = array_records.read(str(tmp_path), 'imagenet2012', 3)
  assert train.classes == ('great white shark', 'tench', 'cock')
  (tmp_path / 'label.labels.txt').write_bytes(b'\xff\n')
  with pytest.raises(errors.UserError, match=r'label\.labels\.txt'):
    array_records.read(str(tmp_path), 'imagenet2012', 3)
