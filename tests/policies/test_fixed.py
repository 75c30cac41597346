"""A list of children, each a program of its own: what slimmable training is."""

import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import pytest
import steps
import tiny

from bignas_jax.methods import losses, programs
from bignas_jax.methods.loss_graph import LABEL, Edge, Rule
from bignas_jax.policies import fixed, policies
from bignas_jax.policies.fixed import NamedArch
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import metrics, warm_start
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning
from bignas_jax.spaces.stage import Stage
from bignas_jax.supernet import network
from bignas_jax.system import mesh as mesh_lib
from bignas_jax.training import loop
from bignas_jax.values import errors

SPACE = steps.BASE
WIDE, NARROW = arch_lib.biggest(SPACE), arch_lib.smallest(SPACE)
CHILDREN = (
  NamedArch(role='w100', arch='biggest'),
  NamedArch(role='w50', arch=arch_lib.to_json(NARROW)),
)
# Each width learns from the label.
RULE = Rule(
  edges=tuple(Edge(student=one.role, teacher=LABEL) for one in CHILDREN),
  regularised='w100',
  dropout=0.0,
  weight_decay=0.0,
  label_smoothing=0.0,
)


# The narrow child has no block of its first stage, and blocks of two kernel
# sizes in its last.
CONV = Stage(
  width=(8,),
  depth=(0, 2),
  kernel_size=(3,),
  expand_ratio=(1,),
  block='conv',
  activation='relu',
  shortcut='identity',
)
OPTIONAL = dataclasses.replace(
  SPACE,
  name='optional',
  stem_width=(8,),
  per_block=True,
  stages=(
    CONV,
    dataclasses.replace(CONV, width=(8, 16), depth=(1,), stride=2),
    Stage(width=(16,), depth=(2,), kernel_size=(3, 5), expand_ratio=(1,)),
  ),
)


def config(**changes):
  fields = {'space': SPACE, 'policy': 'fixed', 'children': CHILDREN}
  return tiny.config(**fields | {'rule': RULE} | changes)


def test_every_step_trains_the_list():
  policy = fixed.fixed(SPACE, CHILDREN)
  assert policy.roles == ('w100', 'w50')
  assert policy.static == {'w100': WIDE, 'w50': NARROW}
  children = policy.sample({}, 0, 0, None)
  assert children == policy.sample({}, 1, 7, None)
  assert policies.is_of(policy, children)
  assert policies.evaluated(policy, SPACE) == policy.static


@pytest.mark.parametrize(
  ('children', 'field', 'allowed'),
  [
    ((), 'children', 'at least one'),
    ((NamedArch(role='0.5', arch='biggest'),), 'children[0].role', 'letters'),
    ((NamedArch(role='label', arch='biggest'),), 'children[0].role', 'label'),
    ((*CHILDREN, CHILDREN[0]), 'children[2].role', 'no other child'),
    ((NamedArch(role='a', arch='bigest'),), 'children[0]', 'mean biggest'),
    ((NamedArch(role='a', arch='{"x": 1}'),), 'children[0]', 'the keys'),
    (
      (NamedArch(role='a', arch=arch_lib.to_json(WIDE).replace('16', '9')),),
      'children[0]: arch.width',
      'one of 8, 16',
    ),
  ],
)
def test_a_wrong_entry_is_named(children, field, allowed):
  with pytest.raises(errors.UserError) as refused:
    config_lib.check(warm_start.resolve(config(children=children)))
  assert str(refused.value).startswith(field), refused.value
  assert allowed in str(refused.value)


def test_a_rule_for_other_children_is_refused():
  with pytest.raises(errors.UserError, match=r'rule\.regularised'):
    config_lib.check(config(rule=Rule()))


def test_a_file_is_read_once_when_the_config_is_resolved(tmp_path):
  file = tmp_path / 'child.json'
  file.write_text(json.dumps({'arch': arch_lib.to_dict(NARROW)}))
  children = CHILDREN[0], NamedArch(role='w50', arch=str(file))
  found = warm_start.resolve(config(children=children))
  file.unlink()
  assert config_lib.policy(found).static == {'w100': WIDE, 'w50': NARROW}
  assert found == warm_start.resolve(config())


def test_a_step_is_the_sum_over_widths_that_learn_from_the_label():
  space = OPTIONAL
  narrow = dataclasses.replace(
    arch_lib.smallest(space), kernel_size=(3, 3, 3, 5, 3)
  )
  archs = arch_lib.biggest(space), narrow
  listed = tuple(
    dataclasses.replace(one, arch=arch_lib.to_json(arch))
    for one, arch in zip(CHILDREN, archs, strict=True)
  )
  own = config(space=space, children=listed)
  setup = config_lib.setup(own, mesh_lib.create(jax.devices()[:1]))
  names = [program.name for program in programs.all_programs(setup)]
  assert names == ['w100', 'w50', 'update']
  children = setup.policy.sample({}, 0, 0, None)
  params, batch, gradient, _ = steps.ran(setup, children)

  def total(params):
    terms = []
    for arch in archs:
      own = network.slice_child(space, {'params': params}, arch)
      net = network.Supernet(pinning.pin(space, arch))
      images = setup.model.images(batch['image'], arch.resolution)
      labels = jnp.asarray(batch['label'])
      terms.append(losses.cross_entropy(net.apply(own, images), labels).mean())
    return sum(terms)

  wanted = jax.jit(jax.grad(total))(params)
  chex.assert_trees_all_close(gradient, wanted, rtol=1e-3, atol=2e-5)


def test_a_run_is_evaluated_and_resumed_by_its_own_names(tmp_path):
  recovery = config_lib.Recovery(window=1)
  short = config(steps=2, eval_every=2, recovery=recovery)
  result = loop.train(short, tmp_path)
  assert {'eval/w100/top1', 'eval/w50/top1'} <= set(result)
  line = metrics.read(tmp_path)[0]
  assert {'train/loss_w100', 'train/top1_w50'} <= set(line)
  assert not any('biggest' in name for name in line)
  assert loop.train(short, tmp_path) == result
  other = dataclasses.replace(short, children=CHILDREN[::-1])
  with pytest.raises(errors.UserError, match='children'):
    loop.train(other, tmp_path)
