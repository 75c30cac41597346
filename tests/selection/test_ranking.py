"""`benchmark ranking`: taus are Kendall's, and no child is trained twice."""

import dataclasses
import json

import numpy as np
import pytest
import scipy.stats
import tiny
from etils import epath

from bignas_jax import benchmark, cli
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import config_record
from bignas_jax.runs import directory as directory_lib
from bignas_jax.selection import rank_correlation, ranking, trained_alone
from bignas_jax.selection.trained_alone import Recipe
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning
from bignas_jax.training import loop
from bignas_jax.values import errors
from configs import bn_nas, mutual_net, rs_net, us_net

# One layer of four operations.
SPACE = dataclasses.replace(
  tiny.QUICK,
  stem_width=(8,),
  stages=(
    dataclasses.replace(
      tiny.QUICK.stages[0],
      width=(8,),
      kernel_size=(3, 5),
      expand_ratio=(1, 2),
      separate_weights=True,
    ),
  ),
  head_width=(16,),
  per_block=True,
)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run of one step, of whose space only the biggest child is trained."""
  config = tiny.config(space=SPACE, policy='alone', steps=1, eval_every=1)
  workdir = tmp_path_factory.mktemp('run')
  loop.train(config, workdir)
  return workdir


class Trainer:
  """The trainer, which stops before a run as SIGTERM does, after `left`."""

  def __init__(self, monkeypatch):
    self.left, self.configs, train = 9, [], loop.train

    def training(config, workdir):
      if self.left == 0:
        raise errors.Preempted('here')
      self.left -= 1
      self.configs.append(config)
      return train(config, workdir)

    monkeypatch.setattr(loop, 'train', training)


def test_a_killed_ranking_goes_on(trained, capsys, monkeypatch):
  trainer = Trainer(monkeypatch)
  asked = 'ranking', f'--workdir={trained}', '--children=3'
  asked += '--steps=3', '--rate=0.3'
  trainer.left = 1
  assert cli.status(benchmark.main, asked) == errors.PREEMPTED
  text = (trained / 'ranking/children.jsonl').read_text()
  assert text.count('\n') == 1
  assert not (trained / 'ranking.json').exists()
  trainer.left = 2
  capsys.readouterr()
  assert cli.status(benchmark.main, asked) == 0
  result = json.loads(capsys.readouterr().out)
  assert json.loads((trained / 'ranking.json').read_text()) == result
  assert (trained / 'ranking/children.jsonl').read_text().startswith(text)

  # What is reported is what was trained, and what the supernet says.
  spaces = [config_lib.space(config) for config in trainer.configs]
  rows = result['children']
  for row, space, line in zip(rows, spaces, _lines(trained), strict=True):
    arch = arch_lib.from_dict(SPACE, row['arch'])
    assert space == pinning.pin(SPACE, arch)
    assert (line.arch, line.top1) == (row['arch'], row['top1'])
    own = row['indicators']
    assert (own['macs'], own['params']) == (row['macs'], row['params'])
  assert {'calibrated_top1', 'batch_norm_scales', 'macs', 'params'} == {
    *result['indicators']
  }
  top1 = [row['top1'] for row in rows]
  assert len({*top1}) > 1
  of_macs = rank_correlation.kendall([row['macs'] for row in rows], top1)
  assert result['indicators']['macs'] == of_macs

  archs = [arch_lib.from_dict(SPACE, row['arch']) for row in rows]
  config, recipe = directory_lib.load_config(trained), Recipe(3, 0.3)
  directory = epath.Path(trained / ranking.FOLDER)
  again = trained_alone.accuracies(directory, config, archs, recipe)
  assert again == top1, 'nothing is left to train'


def _lines(workdir):
  return trained_alone.read(workdir / 'ranking' / trained_alone.LINES)


@pytest.mark.parametrize(
  ('arguments', 'text'),
  [
    (['--children=2'], '--children=2'),
    (['--children=5'], 'fewer; the space has 4'),
    (['--children=3', '--rate=0'], '--rate=0'),
  ],
)
def test_what_cannot_be_ranked(trained, capsys, arguments, text):
  asked = ['ranking', f'--workdir={trained}', *arguments]
  assert cli.status(benchmark.main, asked) == 2
  assert text in capsys.readouterr().err


def test_a_damaged_line_is_named(tmp_path):
  path = tmp_path / 'children.jsonl'
  path.write_text('{"arch": {}, "steps": 2}\n')
  with pytest.raises(errors.UserError, match=r'jsonl line 1: .* delete'):
    trained_alone.read(path)


def test_fewer_children_are_the_first_ones():
  space = us_net.get_config('small').space
  ten = ranking.drawn(space, 10, seed=3)
  assert len({*ten}) == 10
  assert ranking.drawn(space, 4, seed=3) == ten[:4]
  assert ranking.drawn(space, 4, seed=4) != ten[:4]


@pytest.mark.parametrize('system', [bn_nas, mutual_net, rs_net, us_net])
def test_a_child_of_any_system_can_be_trained_alone(system):
  """It sees the label alone, on the same data, and all of it is trained."""
  config = system.get_config('small')
  (arch,) = ranking.drawn(config_lib.space(config), 1, seed=0)
  own = trained_alone.config_of(config, arch, Recipe(steps=30, rate=0.01))
  assert config_lib.check(own) == own
  assert config_lib.space(own) == pinning.pin(config_lib.space(config), arch)
  assert own.data == config.data and own.optimizer.trains == 'all'
  assert [e.teacher for e in own.rule.edges] == ['label']
  assert own.image_size == config_lib.image_size(config)
  # A tenth of the steps has a tenth of the warm-up.
  assert own.schedule.warmup_steps == config.schedule.warmup_steps / 10
  other = trained_alone.config_of(config, arch, Recipe(steps=31, rate=0.01))
  assert config_record.sha256(other) != config_record.sha256(own)


def test_the_rate_of_some_parameters_is_not_that_of_all():
  config = bn_nas.get_config('small')
  with pytest.raises(errors.UserError, match='--rate'):
    ranking.recipe_of(config, None, None)
  assert ranking.recipe_of(config, 5, 0.1) == (5, 0.1)
  config = us_net.get_config('small')
  expected = config.steps, config.schedule.peak
  assert ranking.recipe_of(config, None, None) == expected


# Kendall's tau.


def test_tau_counts_pairs():
  assert rank_correlation.kendall([1, 2, 3], [5, 6, 9])['tau'] == 1
  assert rank_correlation.kendall([1, 2, 3], [9, 6, 5])['tau'] == -1
  nothing = rank_correlation.kendall([1, 1, 1], [9, 6, 5])
  assert nothing == dict.fromkeys(('tau', 'low', 'high', 'p'))


def test_resamples_are_taus_of_drawn_children():
  """The sums over pairs are those of children drawn one by one, with ties."""
  rng = np.random.default_rng(0)
  values, truth = rng.integers(4, size=(2, 7)).astype(float)
  taus = rank_correlation.resampled(values, truth)
  times = np.random.default_rng(0).multinomial(7, np.full(7, 1 / 7), 100)
  for tau, row in zip(taus, times, strict=False):
    drawn = np.repeat(np.arange(7), row)
    expected = scipy.stats.kendalltau(values[drawn], truth[drawn]).statistic
    assert tau == pytest.approx(expected, nan_ok=True)


def test_the_interval_holds_the_truth_as_often_as_it_says():
  """Of normal numbers of correlation r, tau is 2 asin(r) / pi."""
  rng, r, held = np.random.default_rng(0), 0.7, 0
  truth = 2 / np.pi * np.arcsin(r)
  for _ in range(60):
    a, b = rng.normal(size=(2, 30))
    found = rank_correlation.kendall(a, r * a + np.sqrt(1 - r * r) * b)
    held += found['low'] <= truth <= found['high']
  assert held >= 51  # of 60 at 95 %: fewer have a probability below 1e-3
