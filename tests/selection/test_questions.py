"""Questions that searches are asked: names, files, and going on with them."""

import json

import pytest
from etils import epath

from bignas_jax.selection import questions
from bignas_jax.values import errors

ASKED = {
  'strategy': 'nsga2',
  'limits': {'max_macs': 1e6, 'min_latency_ms': 0.25},
  'settings': {'evaluations': 6, 'seed': 0},
  'latency': None,
  'step': 900,
}


def test_names_are_readable_and_tell_questions_apart():
  name = questions.name(ASKED)
  assert name.startswith('nsga2-max_macs_1000000-min_latency_ms_0.25-')
  others = [
    ASKED | {'limits': {}},
    ASKED | {'limits': {'max_macs': 1e6 + 1e-3, 'min_latency_ms': 0.25}},
    ASKED | {'settings': {'evaluations': 6, 'seed': 1}},
    ASKED | {'latency': {'device': 'a'}},
    ASKED | {'step': 901},
  ]
  names = {questions.name(asked) for asked in others}
  assert len(names | {name}) == 1 + len(others)
  again = json.loads(json.dumps(dict(reversed(ASKED.items()))))
  assert questions.name(again) == name, 'of the order of the fields'


def test_the_longest_name_is_one_on_every_file_system():
  fields = ('macs', 'params', 'activation_bytes', 'file_bytes', 'latency_ms')
  limits = {f'{end}_{f}': 1.23456789012e-300 for f in fields for end in 'ab'}
  name = questions.name(
    ASKED | {'strategy': 'coarse_to_fine'} | {'limits': limits}
  )
  assert len(name) < 150 and '/' not in name


def test_what_was_known_stays_until_there_is_an_answer(tmp_path):
  directory, other = epath.Path(tmp_path), ASKED | {'step': 901}
  assert questions.begin(directory, ASKED, 7) == 7
  assert questions.begin(directory, other, 8) == 8
  questions.finish(directory, other, {'answer': 'other'})
  assert questions.begin(directory, ASKED, 9) == 7
  questions.finish(directory, ASKED, {'answer': 'mine'})
  assert questions.begin(directory, ASKED, 10) == 10
  found = {
    name: json.loads((tmp_path / name).read_text())['answer']
    for name in (
      'best.json',
      f'results/{questions.name(ASKED)}.json',
      f'results/{questions.name(other)}.json',
    )
  }
  assert list(found.values()) == ['mine', 'mine', 'other']


@pytest.mark.parametrize('content', ['{}', '[]', '{"known": "3"}', '{', ''])
def test_a_damaged_note_is_named(tmp_path, content):
  directory = epath.Path(tmp_path)
  questions.begin(directory, ASKED, 7)
  (path,) = (tmp_path / 'begun').iterdir()
  path.write_text(content)
  with pytest.raises(errors.UserError) as caught:
    questions.begin(directory, ASKED, 7)
  assert str(path) in str(caught.value) and '\n' not in str(caught.value)
