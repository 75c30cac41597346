"""`benchmark claims`: what arms train, and that nothing is trained twice."""

import dataclasses
import json

import pytest
import tiny
from etils import epath

from bignas_jax import benchmark, cli
from bignas_jax.claims import arms as arms_lib
from bignas_jax.claims import plan as plan_lib
from bignas_jax.claims import verdicts
from bignas_jax.claims.arms import ARMS
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import config_record, directory, metrics
from bignas_jax.runs.config import Schedule
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning
from bignas_jax.training import loop
from bignas_jax.values import errors, structs
from configs import cifar10, mnist

CONFIG = """
import test_trials


def get_config():
  return test_trials.config()
"""


def config(**changes):
  """A tiny run whose rate reaches its floor."""
  schedule = Schedule(peak=0.02, warmup_steps=2, decay_steps=0.02)
  return tiny.config(
    **{'space': tiny.QUICK, 'schedule': schedule, 'steps': 3, 'eval_every': 3}
    | changes
  )


@pytest.fixture
def ask(tmp_path, monkeypatch):
  """Returns a function that runs the command, and returns its status."""
  monkeypatch.syspath_prepend(str(tmp_path))
  (tmp_path / 'config.py').write_text(CONFIG)

  def run(*arguments):
    usual = f'--config={tmp_path}/config.py', f'--out={tmp_path}/out'
    return cli.status(
      benchmark.main, ['claims', *usual, '--children=3', *arguments]
    )

  return run


class Trainer:
  """The trainer, which stops before a run as SIGTERM does, after `left`."""

  def __init__(self, monkeypatch, left):
    self.left, self.workdirs, train = left, [], loop.train

    def training(config, workdir):
      if self.left == 0:
        raise errors.Preempted(str(workdir))
      self.left -= 1
      self.workdirs.append('/'.join(workdir.parts[-2:]))
      return train(config, workdir)

    monkeypatch.setattr(loop, 'train', training)


# What an arm may change: paths of fields in `config.json`.
CHANGED = {
  'baseline': [],
  'scales_of_one': ['zero_scales'],
  'no_floor': ['schedule.floor'],
  'all_regularised': ['rule.regularised'],
  'labels': ['rule.edges[1].teacher', 'rule.edges[2].teacher'],
}


@pytest.mark.parametrize(
  'base',
  [config(), mnist.get_config('claims'), cifar10.get_config('claims')],
  ids=['tiny', 'mnist', 'cifar10'],
)
@pytest.mark.parametrize('name', ARMS)
def test_an_arm_differs_in_what_it_says(name, base):
  arms_lib.check(base, name)
  space = config_lib.space(base)
  child = arch_lib.smallest(space)
  own = arms_lib.config_of(base, name, 4, child, 'package')
  if not own.init_from:  # which has to be there
    assert config_lib.check(own) == own
  seeded = dataclasses.replace(base, seed=4)
  there, here = map(config_record.to_dict, (seeded, own))
  if ARMS[name].alone is None:
    lines = structs.differences(there, here)
    assert [line.split(' ')[0] for line in lines] == CHANGED[name]
    return
  assert config_lib.space(own) == pinning.pin(space, child)
  assert own.policy == 'alone' and own.seed == 4
  assert [edge.teacher for edge in own.rule.edges] == ['label']
  same = 'data', 'batch_size', 'calibration', 'image_size', 'optimizer'
  assert [there[field] for field in same] == [here[field] for field in same]
  assert own.init_from == ('package' if name == 'finetuned' else '')
  assert (own.steps < base.steps) == (name == 'finetuned')
  assert (own.schedule.peak < base.schedule.peak) == (name == 'finetuned')


@pytest.mark.parametrize(
  ('override', 'claim', 'words'),
  [
    ('policy=alone', 'a', "policy, for arm baseline: got 'alone'"),
    ('schedule.decay_steps=3', 'b', 'falls below the floor 0.05 in 3 steps'),
    ('schedule.name=cosine', 'b', 'schedule.name, for arm no_floor'),
    ('rule.dropout=0', 'c', 'rule.dropout, for arm all_regularised'),
    ('zero_scales=false', 'a', 'zero_scales, for arm scales_of_one'),
    ('data.held_out=0', 'g', 'data.held_out, for arm scratch'),
    ('seed=1', 'x', "--claims: got 'x'; allowed: one of a, b, c"),
    ('seed=1', 'a --arms=labels', "--arms: got 'labels'; allowed: one of"),
    ('seed=1', 'a --train_images=3501', '--train_images: got 3501'),
    ('seed=1', 'a --seeds=0', '--seeds=0'),
  ],
)
def test_what_cannot_be_compared(ask, tmp_path, capsys, override, claim, words):
  assert ask(f'--config.{override}', *f'--claims={claim}'.split()) == 2
  message = capsys.readouterr().err.strip()
  assert words in message and '\n' not in message
  assert not (tmp_path / 'out').exists()


def test_a_config_that_cannot_try_one_claim_can_try_others():
  base = config(schedule=Schedule(peak=0.1, warmup_steps=0, decay_steps=3))
  for name in set(ARMS) - {'no_floor'}:
    arms_lib.check(base, name)
  with pytest.raises(errors.UserError, match='decay_steps'):
    arms_lib.check(base, 'no_floor')


def test_a_directory_of_something_else_is_left_alone(ask, tmp_path, capsys):
  out = tmp_path / 'out'
  out.mkdir()
  (out / 'notes.txt').write_text('mine')
  assert ask('--claims=d') == 2
  assert '--out' in capsys.readouterr().err
  assert [path.name for path in out.iterdir()] == ['notes.txt']


def test_a_part_of_the_images_is_the_same_for_all_seeds(tmp_path):
  plan = plan_lib.make(config(seed=7), epath.Path(tmp_path), 3, '', 100)
  assert plan.identity['train']['images'] == 100
  assert plan.config.data.second == 3500 - 100 and plan.config.seed == 0
  assert len({*plan.archs}) == 3


def measure(workdir, top1):
  """Writes what a finished run has, as the command reads it."""
  workdir.mkdir(parents=True)
  (workdir / 'children.json').write_text(json.dumps({'top1': top1}))


def test_what_is_finished_is_not_trained_again(
  ask, tmp_path, capsys, monkeypatch
):
  """Two runs of six are missing; the table says so, and has the others."""
  Trainer(monkeypatch, left=0)
  asked = ('--claims=d',)
  assert ask(*asked) == errors.PREEMPTED
  out = tmp_path / 'out'
  for seed in range(3):
    top1 = {'smallest': 0.5 + 0.01 * seed, 'random': 0.6}
    measure(out / f'baseline/{seed}', top1)
  measure(out / 'labels/0', {'smallest': 0.4, 'random': 0.6})
  capsys.readouterr()
  assert ask(*asked) == errors.PREEMPTED
  assert f'{out}/labels/1' in capsys.readouterr().err
  result = json.loads((out / 'claims.json').read_text())
  assert result['missing'] == ['labels, seed 1', 'labels, seed 2']
  assert [row['seeds'] for row in result['claims']] == [[0], [0]]
  for seed in (1, 2):
    measure(out / f'labels/{seed}', {'smallest': 0.4, 'random': 0.6})
  assert ask(*asked) == 0
  result = json.loads(capsys.readouterr().out)
  assert result == json.loads((out / 'claims.json').read_text())
  verdict = [row['verdict'] for row in result['claims']]
  assert verdict == ['shows', 'does not show'] and not result['missing']
  assert '| shows |' in (out / 'claims.md').read_text()

  path = out / 'labels/2/children.json'
  path.write_text('{"top1": {"smallest": 4}}')
  assert ask(*asked) == 2
  assert str(path) in capsys.readouterr().err

  # Another config, or other children, would mix two experiments.
  for other in '--config.steps=4', '--config.search.mutants=5', '--children=4':
    assert ask(*asked, other) == 2
    assert '--out' in capsys.readouterr().err


@pytest.mark.slow
def test_all_claims_are_tried(ask, tmp_path, capsys, monkeypatch):
  """All arms; stopped after five runs, the command goes on with the sixth."""
  trainer = Trainer(monkeypatch, left=5)
  asked = '--seeds=1', '--train_images=300'
  assert ask(*asked) == errors.PREEMPTED
  trainer.left = -1
  capsys.readouterr()
  assert ask(*asked) == 0
  result = json.loads(capsys.readouterr().out)
  assert trainer.workdirs == [f'{arm}/0' for arm in ARMS]
  assert result['missing'] == []
  rows = {(row['claim'], row['children']): row for row in result['claims']}
  wanted = [
    (letter, child)
    for letter, claim in verdicts.CLAIMS.items()
    for child in claim.children
  ]
  assert [*rows] == wanted
  for row in rows.values():
    assert row['seeds'] == [0] and row['verdict'] == 'not enough seeds'

  # The numbers are those of the runs, which are ordinary ones.
  out = tmp_path / 'out'
  for arm in ARMS:
    of_run = directory.load_config(out / arm / '0')
    assert of_run.data.second == 3200
  *_, last = metrics.read(epath.Path(out / 'baseline/0'))
  smallest = rows['e', 'smallest']
  assert smallest['first']['values'][0] == last['eval/smallest/top1']
  assert smallest['first']['values'] != smallest['second']['values']
  searched = json.loads((out / 'baseline/0/searches.json').read_text())
  evaluated = searched['held_out']['chosen_by_random_search']['evaluated']
  assert evaluated >= searched['held_out']['chosen']['evaluated']
  slices = rows['f', 'chosen']['first']['values']
  assert slices == rows['g', 'chosen']['first']['values']
  tuned = directory.load_config(out / 'finetuned/0')
  package = out / 'baseline/0/children/chosen/child.json'
  child = json.loads(package.read_text())
  assert child['arch'] == searched['arch'] and tuned.init_sha256
