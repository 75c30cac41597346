"""The pages of docs/howto, run: their files train and search one supernet."""

import dataclasses
import importlib
import json
import os
import pathlib
import re
import runpy
import sys
import types

import numpy as np
import pytest

import bignas_jax
from bignas_jax import evaluate, main, search
from bignas_jax.data import image_source, sources
from bignas_jax.methods.loss_graph import Edge
from bignas_jax.policies import own
from bignas_jax.policies.policies import Child, Policy
from bignas_jax.runs import config as config_lib
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces.space import Space
from bignas_jax.strategies import table
from bignas_jax.values import errors, functions

PAGES = sorted((pathlib.Path(__file__).parents[1] / 'docs/howto').glob('*.md'))
COMMAND = re.compile(r'^python -m bignas_jax\.(\w+) (.*)$', re.M)


@pytest.fixture(scope='module')
def project(tmp_path_factory):
  """A folder with the files of all pages, in which commands are started."""
  root, before = tmp_path_factory.mktemp('project'), pathlib.Path.cwd()
  (root / 'mine').mkdir()
  for page in PAGES:
    for block in re.findall(r'```python\n(.*?)```', page.read_text(), re.S):
      name = block.splitlines()[0].removeprefix('# ')
      (root / name).write_text(block)
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(root))
    os.chdir(root)
    runpy.run_path('mine/make_digits.py')
    yield root
    os.chdir(before)
  for name in [n for n in sys.modules if n.partition('.')[0] == 'mine']:
    del sys.modules[name]


@pytest.fixture(scope='module')
def run(project):
  """The supernet that the commands of README.md train and search."""
  text = next(p for p in PAGES if p.stem == 'README').read_text()
  results = {}
  for name, arguments in COMMAND.findall(text):
    command = {'main': main, 'search': search}[name]
    results[name] = command.main(arguments.split())
  return types.SimpleNamespace(workdir=project / 'runs/mine', results=results)


def test_the_files_train_and_search_a_supernet(run):
  config = json.loads((run.workdir / 'config.json').read_text())['config']
  assert config['policy'] == 'mine.policy:cheaper'
  assert config['data']['name'] == 'mine.digits:read'
  assert config['space']['name'] == 'mine'
  losses = (run.workdir / 'metrics.jsonl').read_text()
  assert 'train/loss_random' in losses
  assert 'train/loss_smallest' not in losses  # the policy trains none
  found = run.results['search']
  assert found['strategy'] == 'mine.strategy:climb'
  assert found['evaluated'] == 4
  assert found['costs']['macs'] <= 9000


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.stem)
def test_commands_of_a_page_name_files_and_functions_of_the_pages(
  page, project
):
  for _, arguments in COMMAND.findall(page.read_text()):
    for file in re.findall(r'--config=(\S+)', arguments):
      spec = file.removesuffix('.py').replace('/', '.')
      config = functions.load('', f'{spec}:get_config', (), config_lib.Config)()
      for policy in re.findall(r'--config\.policy=(\S+)', arguments):
        config = dataclasses.replace(config, policy=policy)
      config_lib.check(config)
    for strategy in re.findall(r'--strategy=(\S+)', arguments):
      assert callable(table.get(strategy))


def test_the_page_of_weights_makes_a_child_that_is_evaluated(project, capsys):
  runpy.run_path('mine/make_weights.py')
  made = runpy.run_path('mine/weights.py')
  assert f'{made["child"].info["macs"]} MACs' in capsys.readouterr().out
  images = made['images'][:2]
  logits = bignas_jax.load_child('mine/child')(images)
  np.testing.assert_allclose(logits, made['child'](images), rtol=1e-5)
  assert evaluate.main(['--child=mine/child'])['images'] == 297
  del made['params']['stem']['bn']['bias']
  with pytest.raises(errors.UserError) as refused:
    bignas_jax.make_supernet(
      made['space'], made['params'], mean=[0.0], std=[1.0]
    )
  assert str(refused.value) in _text('weights')


def test_the_page_of_rules_shows_the_error_of_a_wrong_rule(project):
  config = importlib.import_module('mine.rule').get_config()
  edges = (
    Edge(student='biggest', teacher='label'),
    Edge(student='smallest', teacher='random'),
    Edge(student='random', teacher='biggest'),
  )
  wrong = dataclasses.replace(config.rule, edges=edges)
  with pytest.raises(errors.UserError) as refused:
    config_lib.check(dataclasses.replace(config, rule=wrong))
  assert str(refused.value) in _text('rule')


def _text(page):
  """The text of a page."""
  return next(p for p in PAGES if p.stem == page).read_text()


@pytest.mark.parametrize(
  ('call', 'page'),
  [
    (lambda: table.get('mine.strategy:clim'), 'strategy'),
    (lambda: own.load(_space(), 'mine.polici:cheaper'), 'policy'),
    (lambda: image_source.load('subprocess:call', 'x', 1), 'data_source'),
  ],
)
def test_a_wrong_name_gives_the_error_of_its_page(project, call, page):
  with pytest.raises(errors.UserError) as refused:
    call()
  assert str(refused.value) in _text(page)


def _space() -> Space:
  return importlib.import_module('mine.space').SPACE


def _policy(children, **fields):
  """A policy whose steps have these children."""
  roles = ('a', 'b')
  return Policy(roles, {}, lambda *_: next(children), **fields)


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    (lambda one, two: [[one, two], [two, one]], 'in this order'),
    (lambda one, two: [[one, two], [one, two._replace(weight=2.0)]], 'weigh'),
    (lambda one, two: [[one]], "got \\['a'\\]"),
    (lambda one, two: [[one, two], [one, one._replace(role='b')]], 'resumed'),
    (
      lambda one, two: [
        [one, two._replace(arch=dataclasses.replace(two.arch, depth=(7,)))]
      ],
      r'b: arch.depth',
    ),
  ],
)
def test_children_of_a_policy_are_checked(project, monkeypatch, change, words):
  space = _space()
  one = Child('a', arch_lib.smallest(space))
  two = Child('b', arch_lib.biggest(space))
  steps = iter(change(one, two))
  made = lambda _: _policy(steps)  # noqa: E731
  monkeypatch.setattr(functions, 'load', lambda *_: made)
  with pytest.raises(errors.UserError, match=words):
    own.load(space, 'mine.policy:x')


def test_a_source_is_read_and_checked(project, monkeypatch):
  data = sources.Data(
    name='mine.digits:read',
    directory='mine/digits.npz',
    held_out=300,
    augment='none',
    mean=(0.1,),
    std=(0.3,),
  )
  splits = sources.load(data, 1)
  sizes = len(splits.train), len(splits.held_out), len(splits.test)
  assert sizes == (1200, 300, 297)
  train, test = image_source.load(data.name, data.directory, 1)
  assert isinstance(train, image_source.ArraySource)
  assert isinstance(test, image_source.ArraySource)
  empty, labels = train.subset([]), dataclasses.replace(test, classes=('0',))
  floats = dataclasses.replace(train, images=train.images / 255)
  for pair, words in (
    ((train, empty), 'at least one'),
    ((floats, test), 'uint8'),
    ((train, labels), 'a label from 0 to 0'),
    ((train, dataclasses.replace(test, classes=(*'ABCDEFGHIJ',))), 'classes'),
  ):
    monkeypatch.setattr(functions, 'load', lambda *_, p=pair: lambda *_: p)
    with pytest.raises(errors.UserError, match=words):
      image_source.load(data.name, data.directory, 1)
