"""The files of a package for model hubs: what they say, and whose they are."""

import dataclasses
import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import tiny
import yaml
from etils import epath

from bignas_jax.deploy import card, package
from bignas_jax.values import errors

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden/run_0_1_0/children/best'


@pytest.fixture
def made(tmp_path):
  """A package that was written now, of the child of an old one."""
  child = package.load(epath.Path(GOLDEN))
  package.save(epath.Path(tmp_path / 'child'), child)
  return tmp_path / 'child'


def front(directory):
  _, text, _ = (directory / card.README).read_text().split('---\n', 2)
  return yaml.safe_load(text)


def test_a_hub_reads_the_card(made):
  found, info = front(made), json.loads((made / 'child.json').read_text())
  assert found['license'] == 'unknown'
  assert (found['library_name'], found['metrics']) == (
    'bignas_jax',
    ['accuracy'],
  )
  assert {'jax', info['space']} <= set(found['tags'])
  (index,) = found['model-index']
  (result,) = index['results']
  assert result['dataset'] == {'name': 'mnist5k', 'type': 'mnist5k'} | {
    'split': info['accuracy']['split']
  }
  values = {one['type']: one['value'] for one in result['metrics']}
  assert values['accuracy'] == info['accuracy']['top1']
  text = (made / card.README).read_text()
  assert f'{info["accuracy"]["top1"]:.2%} top-1' in text
  config = json.loads((made / card.CONFIG).read_text())
  assert config['num_classes'] == info['classes']
  size = info['input']['resolution']
  assert config['pretrained_cfg']['input_size'] == [1, size, size]


@pytest.mark.parametrize(
  ('name', 'fields'),
  [
    ('CC BY-NC 4.0', {'license': 'cc-by-nc-4.0'}),
    ('MIT', {'license': 'mit'}),
    ('mine: "own"', {'license': 'other', 'license_name': 'mine: "own"'}),
  ],
)
def test_the_licence_is_that_of_the_weights(tmp_path, name, fields):
  child = package.load(epath.Path(GOLDEN))
  info = child.info | {'origin': {'file': 'w.pth', 'license': name}}
  child = dataclasses.replace(child, info=info)
  package.save(epath.Path(tmp_path / 'child'), child)
  found = front(tmp_path / 'child')
  assert {k: found.get(k) for k in fields} == fields


def test_a_licence_that_is_given_replaces_that_of_the_weights(tmp_path):
  child = package.load(epath.Path(GOLDEN))
  info = child.info | {'origin': {'license': 'MIT'}, 'license': 'Apache-2.0'}
  package.save(
    epath.Path(tmp_path / 'child'), dataclasses.replace(child, info=info)
  )
  assert front(tmp_path / 'child')['license'] == 'apache-2.0'


def test_the_lines_of_the_card_run(made):
  (program,) = re.findall(
    r'```python\n(.*?)```', (made / card.README).read_text(), re.S
  )
  assert len(program.strip().splitlines()) <= 5
  done = subprocess.run(
    [sys.executable, '-c', program],
    cwd=made,
    env=tiny.environment(),
    capture_output=True,
    text=True,
  )
  assert re.fullmatch(r'\[\d+\]\n', done.stdout), done.stderr


def test_an_unchanged_package_is_replaced_and_an_edited_card_is_not(made):
  child = package.load(epath.Path(made))
  package.save(epath.Path(made), child)
  assert sorted(path.name for path in made.iterdir()) == [
    *('README.md', 'child.json', 'config.json', 'model.safetensors'),
  ]
  for name in (card.README, card.CONFIG):
    before = (made / name).read_text()
    (made / name).write_text(before + '\nmine\n')
    with pytest.raises(errors.UserError, match=f'with {name} in it'):
      package.save(epath.Path(made), child)
    assert (made / name).read_text().endswith('mine\n')
    assert package.load(epath.Path(made)).arch == child.arch
    (made / name).write_text(before)


def test_an_old_package_is_loaded_and_gets_a_card(tmp_path):
  old = shutil.copytree(GOLDEN, tmp_path / 'old')
  (old / card.README).write_text('mine')
  child = package.load(epath.Path(old))
  with pytest.raises(errors.UserError, match='README'):
    package.save(epath.Path(old), child)
  (old / card.README).unlink()
  package.save(epath.Path(old), child)
  assert front(old)['library_name'] == 'bignas_jax'


def test_a_changed_bit_of_the_weights_is_noticed(made):
  path = made / 'model.safetensors'
  content = bytearray(path.read_bytes())
  content[-9] ^= 1
  path.write_bytes(content)
  with pytest.raises(errors.UserError, match='undamaged weights') as caught:
    package.load(epath.Path(made))
  assert '\n' not in str(caught.value)


def test_little_is_said_of_what_is_not_known():
  made = card.files({'class_names': ['a', '\N{CJK UNIFIED IDEOGRAPH-732B}']})
  text = made[card.README].decode()
  assert 'None' not in text and text.count('---\n') == 2
  label = json.loads(made[card.CONFIG])['label_names'][1]
  assert label == '\N{CJK UNIFIED IDEOGRAPH-732B}'
