"""The metrics, profiles and lines that a run writes."""

import pathlib
import re

import pytest
import tiny
import xplane
from tensorboard.backend.event_processing import event_accumulator

from bignas_jax.runs import config as config_lib
from bignas_jax.runs import config_record, metrics
from bignas_jax.system import files
from bignas_jax.training import loop

DOCS = pathlib.Path(__file__).parents[2] / 'docs' / 'watching.md'
ROLES = ('biggest', 'smallest', 'random')
PARTS = ('stem', 'stage1', 'head', 'classifier')
OF_TRAINING = {
  *(f'train/{n}_{r}' for r in ROLES for n in ('loss', 'top1', 'grad_norm')),
  *(f'train/resolution_{role}' for role in ROLES),
  *('train/agreement_smallest', 'train/agreement_random'),
  *('train/grad_norm', 'train/weight_norm', 'lr', 'images_per_s'),
  *(f'train/weight_norm_{part}' for part in PARTS),
  *('time/step_s', 'time/step_max_s', 'time/input_wait', 'time/left_s'),
  'machine/host_peak_bytes',
}
OF_EVALUATION = {
  f'eval/{role}/top{k}' for role in ('biggest', 'smallest') for k in (1, 5)
}
OF_SOME_MACHINES = {'machine/device_peak_bytes'}
# Those of the architecture that a policy has learnt.
OF_SOME_POLICIES = {
  *('eval/most_probable/top1', 'eval/most_probable/top5'),
  *('train/second_loss_random', 'train/second_top1_random'),
}


def _config(**changes):
  return tiny.config(space=tiny.QUICK_TWO, **changes)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('watched')
  config = _config(profile=config_lib.Profile(at=(3, 4), steps=2))
  loop.train(config, workdir)
  return workdir


def test_tensorboard_finds_every_promised_tag(run):
  board = event_accumulator.EventAccumulator(str(run)).Reload()
  tags = set(board.Tags()['scalars'])
  assert tags - OF_SOME_MACHINES == OF_TRAINING | OF_EVALUATION
  lines = metrics.read(run)
  for tag in tags:
    wanted = [(line['step'], line[tag]) for line in lines if tag in line]
    found = [(event.step, event.value) for event in board.Scalars(tag)]
    assert [step for step, _ in found] == [step for step, _ in wanted]
    assert [v for _, v in found] == pytest.approx([v for _, v in wanted])


def test_numbers_are_plausible(run):
  for line in metrics.read(run)[:6]:
    assert 8 <= line['train/resolution_random'] <= 12
    assert line['train/resolution_biggest'] == 12
    assert 0 <= line['train/agreement_smallest'] <= 1
    assert 0 <= line['time/input_wait'] <= 1
    assert 0 < line['time/step_s'] <= line['time/step_max_s'] < 60
    squares = sum(line[f'train/weight_norm_{part}'] ** 2 for part in PARTS)
    assert squares == pytest.approx(line['train/weight_norm'] ** 2, rel=1e-4)
  assert metrics.read(run)[5]['time/left_s'] == 0


def test_the_card_accounts_for_all_time(run):
  card = files.read_json(run / 'run.json')
  seconds = card['seconds']
  assert sum(seconds.values()) == pytest.approx(3600 * card['hours'], abs=0.02)
  parts = 'training', 'compiling', 'saving', 'evaluating', 'other'
  assert all(seconds[name] > 0 for name in parts)
  assert seconds['repeated'] == card['repeated_steps'] == 0
  assert 0 < card['goodput'] < 1


def test_every_name_of_the_account_is_explained(run):
  card, text = files.read_json(run / 'run.json'), DOCS.read_text()
  assert [n for n in card['seconds'] if f'`{n}`' not in text] == []


def test_every_tag_is_explained():
  tags = OF_TRAINING | OF_EVALUATION | OF_SOME_MACHINES | OF_SOME_POLICIES
  text = DOCS.read_text()
  told = re.findall(
    r'`((?:train|eval|time|machine)/\w\S*|lr|images_per_s)`', text
  )
  patterns = [
    name.replace('ROLE', f'({"|".join(ROLES)})')
    .replace('PART', r'[a-z]+\d*')
    .replace('/...', r'/top\d')
    for name in told
  ]
  unknown = [t for t in tags if not any(re.fullmatch(p, t) for p in patterns)]
  assert unknown == []
  made_up = [
    p for p in patterns if not any(re.fullmatch(p, tag) for tag in tags)
  ]
  assert made_up == []


@pytest.fixture(scope='module')
def profile(run):
  """Where TensorBoard's plugin looks: plugins/profile/NAME/HOST.xplane.pb."""
  (path,) = run.glob('plugins/profile/*/*.xplane.pb')
  assert path.parent.name == 'step_3', 'step 4 is in the same capture'
  return path


def test_profile_holds_the_chosen_steps(profile):
  assert xplane.steps(profile) == [3, 4]


def test_profile_names_what_ran_by_child_and_stage(profile):
  scopes, ran = xplane.scopes(profile), xplane.ran(profile)
  programs = {program for program, _ in ran}
  assert {'jit_biggest', 'jit_smallest', 'jit_update'} <= programs
  assert programs <= set(scopes)
  random = {p for p in programs if p.startswith('jit_random_')}
  assert random and random <= {'jit_random_8', 'jit_random_12'}
  for program in programs - {'jit_update'}:
    role = program.split('_')[1]
    # All that it contains: what is quick, a busy machine may not have recorded.
    named = [name for name in scopes[program].values() if name]
    for part in PARTS:
      forward = [n for n in named if role in n.split('/') and f'/{part}' in n]
      assert forward, f'{program} shows nothing of {part}'
      assert any('transpose' in name for name in forward)
    for part in 'images', 'measures':
      assert any(f'/{part}/' in name for name in named)
    # XLA's own copies have no name, or that of all that is on one device.
    recorded = {
      op: scopes[program][op]
      for p, op in ran
      if p == program and not op.startswith('copy')
    }
    outside = [
      f'{op}: {name}'
      for op, name in recorded.items()
      if name and role not in name.split('/')
    ]
    assert len(outside) < 0.05 * len(recorded), '\n'.join(outside)


def test_what_is_profiled_may_change(run):
  """The rest may not; and a finished run is not profiled again."""
  again = _config(profile=config_lib.Profile(at=(5,)))
  assert config_record.sha256(again) == config_record.sha256(_config())
  loop.train(again, run)
  assert len(list(run.glob('plugins/profile/*'))) == 1
