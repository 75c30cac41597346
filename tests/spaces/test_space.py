"""The spaces against the papers' tables, and what a malformed space says."""

import dataclasses
import json

import pytest

from bignas_jax.spaces import stage as stage_lib
from bignas_jax.spaces import zoo
from bignas_jax.spaces.stage import SqueezeExcite, Stage
from bignas_jax.values import errors

SPACES = list(zoo.SPACES.values())


def steps(first, last):
  return tuple(range(first, last + 1, 8))


def columns(space):
  """The stages, column by column, as the papers' tables print them."""
  fields = ('width', 'depth', 'kernel_size', 'expand_ratio', 'stride')
  return [tuple(getattr(s, f) for f in fields) for s in space.stages]


def upto(last, first=1):
  return tuple(range(first, last + 1))


def test_bignas_is_the_papers_table():
  space = zoo.BIGNAS
  assert space.resolution == (192, 224, 256, 288, 320)
  assert space.train_resolution == (192, 224, 288, 320)
  assert space.stem_width == steps(32, 40)
  assert columns(space) == [
    (steps(16, 24), upto(2), (3,), (1,), 1),
    (steps(24, 32), upto(3, 2), (3,), (6,), 2),
    (steps(40, 48), upto(3, 2), (3, 5), (6,), 2),
    (steps(80, 88), upto(4, 2), (3, 5), (6,), 2),
    (steps(112, 128), upto(6, 2), (3, 5), (6,), 1),
    (steps(192, 216), upto(6, 2), (3, 5), (6,), 2),
    (steps(320, 352), upto(2), (3, 5), (6,), 1),
  ]
  assert space.head_width == steps(1280, 1408)
  assert (space.head_expand, space.padding) == (None, 'same')
  assert space.bn_epsilon == 1e-3
  rule = SqueezeExcite(
    of='input',
    ratio=0.25,
    rounding='floor',
    activation='swish',
    gate='sigmoid',
  )
  assert [stage.se for stage in space.stages] == [rule] * 7


def test_attentive_nas_is_the_papers_table():
  space = zoo.ATTENTIVE_NAS
  assert space.resolution == space.train_resolution == (192, 224, 256, 288)
  assert space.stem_width == (16, 24)
  assert columns(space) == [
    ((16, 24), upto(2), (3, 5), (1,), 1),
    ((24, 32), upto(5, 3), (3, 5), (4, 5, 6), 2),
    ((32, 40), upto(6, 3), (3, 5), (4, 5, 6), 2),
    ((64, 72), upto(6, 3), (3, 5), (4, 5, 6), 2),
    ((112, 120, 128), upto(8, 3), (3, 5), (4, 5, 6), 1),
    ((192, 200, 208, 216), upto(8, 3), (3, 5), (6,), 2),
    ((216, 224), upto(2), (3, 5), (6,), 1),
  ]
  assert space.head_width == (1792, 1984)
  assert (space.head_expand, space.padding) == (6, 'symmetric')
  assert space.bn_epsilon == 1e-5
  rule = SqueezeExcite(
    of='hidden',
    ratio=0.25,
    rounding='round_to_8',
    activation='relu',
    gate='hard_sigmoid',
  )
  with_se = [False, False, True, False, True, True, True]
  assert [s.se for s in space.stages] == [rule if w else None for w in with_se]


def test_mnist_exercises_every_dimension():
  space = zoo.MNIST
  assert set(space.train_resolution) < set(space.resolution)
  for field in ('width', 'depth', 'kernel_size', 'expand_ratio'):
    assert any(len(getattr(stage, field)) > 1 for stage in space.stages), field
  assert {1, 2} <= {stage.stride for stage in space.stages}
  assert len(space.stem_width) > 1
  assert len(space.head_width) > 1


def test_get():
  assert [zoo.get(space.name) for space in SPACES] == SPACES
  assert zoo.get(SPACES[0]) is SPACES[0]
  with pytest.raises(errors.UserError, match='did you mean mnist') as caught:
    zoo.get('mnits')
  assert caught.value.field == 'space'
  for name in zoo.SPACES:
    assert name in str(caught.value)


@pytest.mark.parametrize(
  ('value', 'expected'),
  [
    (1, 1),  # below 4 the rule gives odd numbers; it is the reference code's
    (3, 9),
    (4, 8),
    (8, 8),
    (11, 16),  # 8 would lose more than a tenth
    (12, 16),
    (20, 24),
    (27, 32),
    (28, 32),
    (35, 32),
    (36, 40),
    (96.0, 96),
    (108, 112),
    (666, 664),
  ],
)
def test_round_to_8(value, expected):
  assert stage_lib.round_to_8(value) == expected


def test_hidden_width_follows_the_active_input_width():
  stage = zoo.ATTENTIVE_NAS.stages[1]
  assert stage_lib.hidden_width(stage, 16, 8, 5) == 80
  assert stage_lib.hidden_width(stage, 24, 8, 5) == 120
  assert stage_lib.hidden_width(stage, 12, 8, 5) == 64  # 60, to a multiple of 8
  first = zoo.ATTENTIVE_NAS.stages[0]
  assert not first.has_expand
  assert stage_lib.hidden_width(first, 24, 8, 1) == 24
  kept = dataclasses.replace(stage, expand_ratio=(1,), expand_conv=True)
  assert kept.has_expand
  assert stage_lib.hidden_width(kept, 24, 8, 1) == 24


def test_squeeze_width_of_either_rule():
  efficient = zoo.BIGNAS.stages[0].se
  mobile = zoo.ATTENTIVE_NAS.stages[2].se
  assert efficient is not None
  assert mobile is not None
  # Of the block's input, whatever the hidden width; never 0.
  assert stage_lib.squeeze_width(efficient, 30, 180) == 7
  assert stage_lib.squeeze_width(efficient, 30, 1000) == 7
  assert stage_lib.squeeze_width(efficient, 3, 18) == 1
  # Of the hidden width, whatever the input.
  assert stage_lib.squeeze_width(mobile, 24, 96) == 24
  assert stage_lib.squeeze_width(mobile, 99, 120) == 32  # 30
  assert stage_lib.squeeze_width(mobile, 24, 144) == 40  # 36


SPACE = zoo.MNIST
BAD_CHOICES = [
  (),
  8,
  None,
  [8, 16],
  (16, 8),
  (8, 8),
  (8.0,),
  (True,),
  ('8',),
  (0,),
  (-8,),
]


@pytest.mark.parametrize('choices', BAD_CHOICES, ids=repr)
@pytest.mark.parametrize('field', ['resolution', 'stem_width', 'head_width'])
def test_malformed_choices_of_a_space(field, choices):
  if field == 'head_width' and choices == ():  # there is no head
    assert dataclasses.replace(SPACE, head_width=()).head_width == ()
    return
  with pytest.raises(errors.UserError) as caught:
    dataclasses.replace(SPACE, **{field: choices})
  assert_names(caught.value, f'space.{field}')


@pytest.mark.parametrize('choices', BAD_CHOICES, ids=repr)
@pytest.mark.parametrize(
  'field', ['width', 'depth', 'kernel_size', 'expand_ratio']
)
def test_malformed_choices_of_a_stage(field, choices):
  if (field, choices) == ('expand_ratio', (0,)):
    return  # a block of its shortcut alone
  stage = dataclasses.replace(SPACE.stages[1], **{field: choices})
  with pytest.raises(errors.UserError) as caught:
    dataclasses.replace(SPACE, stages=(SPACE.stages[0], stage))
  assert_names(caught.value, f'space.stages[1].{field}')


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('resolution', (4, 24, 32)),
    ('train_resolution', (24, 25)),
    ('train_resolution', (32, 24)),
    ('train_resolution', [24]),
    ('train_resolution', (24.0,)),
    ('stages', ()),
    ('stages', SPACE.stages[0]),
    ('stages', list(SPACE.stages)),
    ('stem_stride', 0),
    ('stem_stride', 3),
    ('padding', 'valid'),
    ('padding', None),
    ('channels', 0),
    ('channels', 1.0),
    ('classes', '10'),
    ('classes', 1),
    ('classes', True),
    ('head_expand', 0),
    ('head_expand', 1.5),
    ('bn_epsilon', 0),
    ('bn_epsilon', -1e-3),
    ('bn_epsilon', float('nan')),
    ('bn_epsilon', '1e-3'),
  ],
  ids=repr,
)
def test_malformed_space(field, value):
  with pytest.raises(errors.UserError) as caught:
    dataclasses.replace(SPACE, **{field: value})
  assert_names(caught.value, f'space.{field}')


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('kernel_size', (3, 4, 5)),
    ('stride', 0),
    ('stride', 3),
    ('stride', '2'),
    ('se', 0.25),
    ('se', 'input'),
  ],
  ids=repr,
)
def test_malformed_stage(field, value):
  stage = dataclasses.replace(SPACE.stages[0], **{field: value})
  with pytest.raises(errors.UserError) as caught:
    dataclasses.replace(SPACE, stages=(*SPACE.stages, stage))
  assert_names(caught.value, f'space.stages[{len(SPACE.stages)}].{field}')


def test_a_stage_is_a_stage():
  with pytest.raises(errors.UserError) as caught:
    dataclasses.replace(SPACE, stages=({'width': (8,)},))
  assert_names(caught.value, 'space.stages[0]')


def assert_names(error: errors.UserError, field: str):
  """One line: the field first, then the value, then what is allowed."""
  assert error.field == field
  text = str(error)
  assert text.startswith(f'{field}: got ')
  assert '; allowed: ' in text
  assert '\n' not in text


def test_all_resolutions_are_trained_unless_told():
  space = dataclasses.replace(SPACE, train_resolution=())
  assert space.train_resolution == SPACE.resolution


def test_a_space_is_a_value():
  again = dataclasses.replace(SPACE)
  assert again == SPACE
  assert hash(again) == hash(SPACE)
  assert dataclasses.replace(SPACE, classes=11) != SPACE
  with pytest.raises(dataclasses.FrozenInstanceError):
    SPACE.classes = 11
  with pytest.raises(TypeError):
    Stage((8,), (1,), (3,), (1,))


@pytest.mark.parametrize('space', SPACES, ids=lambda s: s.name)
def test_a_space_is_plain_data(space):
  json.dumps(dataclasses.asdict(space))


@pytest.mark.parametrize(
  ('block', 'field', 'value'),
  [
    ('basic', 'kernel_size', (3, 5)),
    ('bottleneck', 'kernel_transform', True),
    ('separable', 'se', SqueezeExcite()),
    ('preactivated', 'shortcut', 'identity'),
  ],
)
def test_a_kind_of_block_refuses_what_it_has_not(block, field, value):
  stage = dataclasses.replace(zoo.get('resnet18').stages[0], block=block)
  stage = dataclasses.replace(stage, **{field: value})
  with pytest.raises(errors.UserError, match=f'for block {block}'):
    dataclasses.replace(zoo.get('resnet18'), stages=(stage,))


R50 = zoo.get('ofa_resnet50')


@pytest.mark.parametrize(
  ('field', 'value', 'allowed'),
  [
    ('depth', (0,), 'at least one block'),
    ('stride', 2, '1, where'),
    ('width', (24,), 'the widths before it'),
    ('block', 'preactivated', 'another block'),
    ('expand_ratio', (1, 2), 'space.per_block'),
  ],
)
def test_a_stage_that_may_be_left_out_keeps_its_input(field, value, allowed):
  changes = {field: value}
  if field == 'block':
    changes['shortcut'] = 'projected'
  stage = dataclasses.replace(R50.stages[0], **changes)
  with pytest.raises(errors.UserError, match=allowed) as caught:
    dataclasses.replace(
      R50, stages=(stage, *R50.stages[1:]), per_block=field != 'expand_ratio'
    )
  assert_names(caught.value, f'space.stages[0].{field}')


def test_preactivated_blocks_end_without_a_head():
  with pytest.raises(errors.UserError, match='preactivated') as caught:
    dataclasses.replace(zoo.get('wrn_28_10'), head_width=(128,))
  assert_names(caught.value, 'space.head_width')
