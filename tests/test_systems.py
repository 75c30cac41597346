"""The config of each system: its values, and how configs differ."""

import dataclasses
import importlib
import json
import pathlib
import re

import pytest
from etils import epath

from bignas_jax.runs import config as config_lib
from bignas_jax.runs import warm_start
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning, zoo
from bignas_jax.training import states
from configs import (
  auto_slim,
  bn_nas,
  fp_nas,
  mutual_net,
  once_for_all,
  rep_nas,
  rs_net,
  slimmable,
  us_net,
)

PAGE = pathlib.Path(__file__).parents[1] / 'docs' / 'systems.md'
SYSTEMS = (
  'slimmable',
  'us_net',
  'auto_slim',
  'mutual_net',
  'rs_net',
  'once_for_all',
  'attentive_nas',
  'alpha_net',
  'bn_nas',
  'rep_nas',
  'mdenas',
  'parsec',
  'fp_nas',
)


@pytest.mark.parametrize('variant', ['', 'small'])
@pytest.mark.parametrize('name', SYSTEMS)
def test_every_config_is_right(name, variant):
  config = importlib.import_module(f'configs.{name}').get_config(variant)
  assert config_lib.check(config) == config
  roles = config_lib.policy(config).roles
  assert config.rule.regularised in roles


def test_headers_have_the_costs_of_the_page():
  table = PAGE.read_text().partition('## On a pod')[2]
  hours = dict(re.findall(r'^\|.*?`(\w+)`.*\| ([\d.]+) \|$', table, re.M))
  assert hours.keys() - {'imagenet'} == {*SYSTEMS}
  for name in {'imagenet', *SYSTEMS}:
    module = importlib.import_module(f'configs.{name}')
    header = ' '.join((module.__doc__ or '').split())
    said = re.findall(r'about ([\d.]+) h on 64 TPUv3 chips', header)
    assert said == [hours[name]], name


@pytest.mark.parametrize('variant', ['retrain', 'small_retrain'])
@pytest.mark.parametrize('name', ['mdenas', 'parsec', 'fp_nas'])
def test_what_was_learnt_can_be_trained_alone(name, variant, tmp_path):
  module = importlib.import_module(f'configs.{name}')
  learnt = module.get_config(variant.removesuffix('retrain').rstrip('_'))
  policy = config_lib.policy(learnt)
  best = policy.learnt(policy.init(0))
  states.keep_learnt(epath.Path(tmp_path), {'most_probable': best})
  config = module.get_config(variant)
  config.arch = str(tmp_path / 'most_probable.json')
  config = config_lib.check(warm_start.resolve(config))
  assert config_lib.space(config) == pinning.pin(config_lib.space(learnt), best)
  assert config.data.second == 0 < learnt.data.second


@pytest.mark.parametrize('variant', ['retrain', 'small_retrain'])
def test_what_a_search_chose_can_be_trained_alone(variant, tmp_path):
  searched = bn_nas.get_config(variant.removesuffix('retrain').rstrip('_'))
  space = config_lib.space(searched)
  best = arch_lib.sample(space, arch_lib.generator(0))
  file = tmp_path / 'best.json'
  file.write_text(json.dumps({'arch': arch_lib.to_dict(best), 'step': 300}))
  config = bn_nas.get_config(variant)
  config.arch = str(file)
  config = config_lib.check(warm_start.resolve(config))
  assert config_lib.space(config) == pinning.pin(space, best)


def test_mutual_net_at_one_resolution_is_us_net():
  """So all of their steps are the same, bit for bit."""
  config, other = mutual_net.get_config('small'), us_net.get_config('small')
  space = dataclasses.replace(config.space, train_resolution=(28,))
  config = dataclasses.replace(config, space=space)
  ours, theirs = config_lib.policy(config), config_lib.policy(other)
  for step in range(20):
    children = ours.sample({}, 0, step, None)
    assert children == theirs.sample({}, 0, step, None)
  # And so are their programs: all that these depend on is equal.
  assert ours._replace(sample=theirs.sample) == theirs
  assert config.smallest_resolution == 'drawn'
  assert dataclasses.replace(config, smallest_resolution='smallest') == other


def test_rep_nas_shares_kernels_as_the_paper_does():
  config = rep_nas.get_config('shared')
  assert config_lib.check(config) == config
  usual = dataclasses.replace(config, space=rep_nas.get_config().space)
  assert usual == rep_nas.get_config()
  for stage in config.space.stages:
    assert stage.shared_kernel and stage.zero_start


def test_fp_nas_chooses_a_width_for_each_layer():
  """Its small variant, of the published results, for each stage."""
  space = config_lib.space(fp_nas.get_config())
  assert {stage.depth for stage in space.stages} == {(1,)}
  assert config_lib.space(fp_nas.get_config('retrain')) == space
  small = config_lib.space(fp_nas.get_config('small'))
  assert [(s.width, s.depth) for s in small.stages] == [
    *(((16, 24), (1,)), ((24, 32), (2,)))
  ]
  assert arch_lib.count(small) == 2048


def test_slimmable_trains_the_four_published_widths():
  policy = config_lib.policy(slimmable.get_config())
  assert policy.roles == ('w100', 'w075', 'w050', 'w025')
  widths = [policy.static[role].width[-1] for role in policy.roles]
  assert widths == [1024, 768, 512, 256]


def test_rs_net_says_the_papers_loss():
  rule = rs_net.rule(['r3', 'r2', 'r1'])
  edges = {(e.teacher, e.student): (e.loss, e.weight) for e in rule.edges}
  assert len(edges) == len(rule.edges) == 4 + 3 + 3
  label = {edge: how for edge, how in edges.items() if edge[0] == 'label'}
  assert {student for _, student in label} == {'r3', 'r2', 'r1', 'mean'}
  others = edges.keys() - label.keys()
  assert all(edges[edge] == ('kl', 2 / 4) for edge in others)
  # Only bigger images teach, and the mean teaches all.
  assert others == {
    *(('mean', role) for role in ('r3', 'r2', 'r1')),
    *(('r3', 'r2'), ('r3', 'r1'), ('r2', 'r1')),
  }


def test_the_teacher_of_once_for_all_is_the_biggest_network():
  config = warm_start.resolve(once_for_all.get_config('teacher'))
  space = config_lib.space(config_lib.check(config))
  ofa = zoo.get('ofa_mbv3')
  assert space == pinning.pin(ofa, arch_lib.biggest(ofa))


def test_once_for_all_searches_as_published():
  search = once_for_all.get_config().search
  assert (search.predictor, search.proposals) == ('mlp', 'evolution')
  assert (search.population, search.predicted_population) == (16_000, 100)
  assert (search.generations, search.mutation) == (500, 0.1)
  assert (search.parent_share, search.mutant_share) == (0.25, 0.5)


def test_auto_slim_is_trained_again_as_long_as_us_net():
  """By the command in its header."""
  steps = re.findall(r'--config\.steps=(\d+)', auto_slim.__doc__ or '')
  assert steps == [str(us_net.get_config().steps)]


def test_phases_of_once_for_all_grow():
  """Kernel sizes, then depths, then expand ratios; all children at the end."""
  config = once_for_all.get_config()
  policy, space = config_lib.policy(config), zoo.get('ofa_mbv3')
  starts, first = [], 0
  for phase in config.phases:
    starts.append(first)
    first += phase.steps
  assert policy.resorts == {starts[3], starts[4]}

  def met(field, start):
    archs = [
      child.arch
      for step in range(start, start + 40)
      for child in policy.sample({}, 0, step, None)
    ]
    return {value for arch in archs for value in getattr(arch, field)[1:]}

  assert met('depth', starts[0]) == {4}
  assert met('depth', starts[1]) == {3, 4}
  assert met('depth', starts[2]) == {2, 3, 4}
  assert met('expand_ratio', starts[0]) == {6}
  assert met('expand_ratio', starts[3]) - {3} == {4, 6}  # 3: of no block
  assert met('kernel_size', starts[0]) == {3, 5, 7}
  (*_, last) = policy.sample({}, 0, starts[4], None)
  assert arch_lib.contains(space, last.arch)
