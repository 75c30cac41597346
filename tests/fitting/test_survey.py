"""What is found out about images, and what is asked of a person instead."""

import numpy as np
import photos
import pytest

from bignas_jax.data import sources
from bignas_jax.fitting import recipe, rules, survey
from bignas_jax.values import errors

CLASSES = 'ant', 'bee', 'cat'


@pytest.fixture
def flat(tmp_path):
  return photos.write(tmp_path / 'flat', CLASSES, 20)


def test_a_folder_of_classes_alone_is_cut(flat, capsys):
  (flat / 'notes.txt').write_text('not an image')
  (flat / 'bee' / 'broken.jpg').write_bytes(b'junk')
  found = survey.look(str(flat))
  assert (found.classes, found.train, found.test) == (3, 49, 12)
  assert found.cut and (found.side, found.channels) == (9, 3)
  assert (found.looked_at, found.damaged) == (61, 1)
  assert found.fewest >= 12 and found.most <= 20
  assert 'notes.txt' in capsys.readouterr().err
  text = ' '.join(survey.sentences(found))
  assert '61 images of 3 classes' in text and 'no test folder: 12' in text
  choice = rules.choose(found, 1.0, cores=2)
  config = recipe.config(found, choice, rules.Length(10, 1.0, 0.0, ''))
  splits = sources.load(config.data, choice.space.channels)
  numbers = [len(splits.train) + len(splits.held_out), len(splits.test)]
  assert numbers == [49, 12]
  names = {s.name(i) for s in splits[:3] for i in range(len(s))}
  assert len(names) == 61, 'no image is in two splits'


def test_folders_of_their_own_stay(tmp_path):
  photos.write(tmp_path / 'train', CLASSES, 12, gray=True, suffix='.png')
  photos.write(tmp_path / 'val', CLASSES, 3, gray=True, suffix='.png')
  found = survey.look(str(tmp_path))
  assert (found.train, found.test, found.cut) == (36, 9, False)
  assert (found.fewest, found.most, found.channels) == (12, 12, 1)
  assert len(found.mean) == 1
  assert found.mean[0] == pytest.approx((40 + 115 + 190) / 3 / 255, abs=0.02)
  assert found.std[0] == pytest.approx(np.std([40, 115, 190]) / 255, abs=0.02)


def test_folders_that_are_not_read_are_named(tmp_path, capsys):
  for name, each in (('train', 14), ('test', 3), ('val', 3), ('.old', 3)):
    photos.write(tmp_path / name, CLASSES, each)
  assert survey.look(str(tmp_path)).test == 9
  assert 'nothing is read from val beside train' in capsys.readouterr().err
  (tmp_path / 'test').rename(tmp_path / 'valid')
  (tmp_path / 'val').rename(tmp_path / 'more')
  assert survey.look(str(tmp_path)).cut
  assert 'from more, valid beside train' in capsys.readouterr().err
  survey.look(str(tmp_path / 'train'))
  assert 'nothing is read' not in capsys.readouterr().err


def _empty(folder):
  (folder / 'dog').mkdir()


def _one_class(folder):
  for name in CLASSES[1:]:
    for path in (folder / name).iterdir():
      path.unlink()
    (folder / name).rmdir()


def _broken(folder):
  for path in sorted(folder.glob('*/*.jpg'))[::4]:
    path.write_bytes(b'junk')


def _few(folder):
  for path in sorted(folder.glob('*/*.jpg'))[::2]:
    path.unlink()


def _too_deep(folder):
  (folder / 'dog' / 'images').mkdir(parents=True)


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    (_empty, 'flat/dog.*images in it'),
    (_one_class, r"at least two classes, not only \['ant'\]"),
    (_broken, 'damaged; of 60 looked at 15 are, such as .*ant/000.jpg'),
    (_few, 'at least 30 images to train on; there are 24'),
    (_too_deep, 'is there a folder too many'),
  ],
)
def test_what_cannot_be_trained_on_is_one_line(flat, change, words):
  change(flat)
  with pytest.raises(errors.UserError, match=words) as refused:
    survey.look(str(flat))
  assert str(refused.value).startswith('--images: ')
  assert '\n' not in str(refused.value)


@pytest.mark.parametrize('images', ['', 'no/such/folder', 'tfds:'])
def test_what_is_no_place_of_images_is_one_line(images):
  with pytest.raises(errors.UserError, match=r'^--images: ') as refused:
    survey.look(images)
  assert '\n' not in str(refused.value)


def test_a_cut_is_refused_where_there_are_test_images(tmp_path, flat):
  data = survey.opened('')
  data.directory, data.test_images = str(flat), 60
  with pytest.raises(errors.UserError, match='0 to 59, of 60 images'):
    sources.load(data, 3)
  photos.write(tmp_path / 'train', CLASSES, 2)
  photos.write(tmp_path / 'test', CLASSES, 2)
  data.directory = str(tmp_path)
  with pytest.raises(errors.UserError, match='0, where there are train/'):
    sources.load(data, 3)
  data.name = 'mnist5k'
  with pytest.raises(errors.UserError, match=r'data\.test_images.*0, for'):
    sources.load(data, 3)
