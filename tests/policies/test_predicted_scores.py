"""Candidates that are compared by a predictor, learnt from another run."""

import pytest
import steps
import tiny
from etils import epath

from bignas_jax.methods import programs
from bignas_jax.policies.attentive import Scores, attentive
from bignas_jax.runs import archive, directory, external, warm_start
from bignas_jax.runs import config as config_lib
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import zoo
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.training import loop
from bignas_jax.values import errors

SPACE = steps.BASE


def written(path, archs, space=SPACE):
  """An archive of these children; wider ones are better."""
  file = archive.Archive(epath.Path(path), space)
  for number, arch in enumerate(archs):
    top1 = 0.5 + sum(arch.width) / 1000
    file.append(archive.Entry(arch, 1, 1, top1, 500, 64, number, 'random', 6))
  return str(path)


@pytest.fixture
def path(tmp_path):
  return written(tmp_path / 'archive.csv', arch_lib.every(SPACE))


def config(path, **changes):
  fields = {'space': SPACE, 'policy': 'best_up', 'candidates': 5, 'steps': 4}
  scores = Scores(by='predictor', archive=path)
  fields |= {'eval_every': 4, 'scores': scores}
  return tiny.config(**fields | changes)


@pytest.mark.parametrize('name', ['best_up', 'worst_up'])
def test_the_candidate_of_the_best_or_worst_prediction_is_trained(path, name):
  resolved = warm_start.resolve(config(path, policy=name))
  setup = config_lib.setup(config_lib.check(resolved), mesh_lib.create())
  assert resolved.scores.children == arch_lib.count(SPACE)
  names = [program.name for program in programs.all_programs(setup)]
  assert names == ['biggest', 'smallest', 'random@8', 'update']
  asked = []

  def wide(archs):
    asked.extend(archs)
    return [-float(sum(arch.width)) for arch in archs]

  choice = name.removesuffix('_up')
  by_width = attentive(SPACE, choice, 5, 2)
  for step in range(10):
    children = setup.policy.sample({}, 0, step, None)
    assert children == by_width.sample({}, 0, step, wide)
  assert len({arch.width for arch in asked}) > 2


def test_only_the_first_children_of_the_file_count(path, tmp_path):
  scores = external.learnt_from(Scores(by='predictor', archive=path), SPACE)
  before = external.predicted(scores, SPACE, 0)
  written(path, [arch_lib.smallest(SPACE)])
  after = external.predicted(scores, SPACE, 0)
  archs = list(arch_lib.every(SPACE))
  assert before(archs) == after(archs) and len(set(after(archs))) > 2
  other = written(tmp_path / 'other.csv', [*archs[1:], archs[0]])
  scores.archive = other
  with pytest.raises(errors.UserError, match=r'scores\.archive.*sha256'):
    external.predicted(scores, SPACE, 0)


def test_a_wrong_file_or_field_is_named(path, tmp_path):
  short = written(tmp_path / 'short.csv', [arch_lib.smallest(SPACE)])
  mnist = arch_lib.smallest(zoo.MNIST), arch_lib.biggest(zoo.MNIST)
  foreign = written(tmp_path / 'foreign.csv', mnist, zoo.MNIST)
  (tmp_path / 'text.csv').write_text('no archive\n' * 3)
  for changes, field, allowed in (
    ({'path': str(tmp_path / 'none.csv')}, 'scores.archive', 'search/archive'),
    ({'path': str(tmp_path)}, 'scores.archive', 'search/archive'),
    ({'path': short}, 'scores.archive', 'at least 2 of them, not 1'),
    ({'path': foreign}, 'scores.archive', 'of space tiny'),
    ({'path': str(tmp_path / 'text.csv')}, 'scores.archive', 'the columns'),
    ({'path': ''}, 'scores.archive', 'a file'),
    ({'scores': Scores(archive=path)}, 'scores.archive', 'nothing for loss'),
    ({'policy': 'sandwich'}, 'scores.by', 'loss, for policy sandwich'),
  ):
    with pytest.raises(errors.UserError, match=allowed) as refused:
      fields = {'path': path} | changes
      config_lib.check(warm_start.resolve(config(**fields)))
    assert refused.value.field == field and '\n' not in str(refused.value)


@pytest.mark.usefixtures('compiled_once')
def test_a_resumed_run_chooses_as_the_whole_one(path, tmp_path, monkeypatch):
  """The file has moved and grown since; without it, no run goes on."""
  result = loop.train(config(path), tmp_path / 'whole')
  step, calls = programs.step, []

  def ending(*arguments):
    calls.append(arguments[-1])
    if len(calls) == 4:
      raise KeyboardInterrupt
    return step(*arguments)

  monkeypatch.setattr(programs, 'step', ending)
  again = tmp_path / 'again'
  with pytest.raises(KeyboardInterrupt):
    loop.train(config(path), again)
  moved = str(tmp_path / 'moved.csv')
  epath.Path(path).rename(moved)
  written(moved, [arch_lib.smallest(SPACE)] * 3)
  with pytest.raises(errors.UserError, match=r'scores\.archive'):
    loop.train(config(path), again)
  assert loop.train(config(moved), again) == result | {'workdir': str(again)}
  assert tiny.numbers(again) == tiny.numbers(tmp_path / 'whole')
  assert directory.load_config(again).scores.archive == path
