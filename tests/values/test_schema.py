"""Types, choices and ranges: one check, which names the field."""

import dataclasses
import math
from typing import Annotated, Any, Literal

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from bignas_jax.values import errors, schema


@dataclasses.dataclass(kw_only=True)
class Inner:
  """What a field may be."""

  steps: schema.Natural = 1
  share: schema.Share = 0.0
  name: Literal['sgd', 'rmsprop'] = 'sgd'
  sizes: tuple[Annotated[int, schema.Meta(ge=8)], ...] = ()
  pairs: tuple[tuple[str, str], ...] = ()
  flag: bool = False
  limit: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
  """A field that is text or a dataclass, as a config's space is."""

  inner: Inner
  space: str | Inner = ''


RIGHT = [
  {'inner': {}},
  {'inner': {'steps': 2, 'share': 0, 'sizes': [8, 9], 'limit': -1.5}},
  {'inner': {'pairs': [['a', 'b']], 'name': 'rmsprop'}, 'space': 'mnist'},
  {'inner': {}, 'space': {'steps': 3}},
]
WRONG = [
  ({}, 'inner: got .nothing.; allowed: an Inner'),
  ({'inner': 3}, 'inner: got 3'),
  ({'inner': {'steps': 0}}, 'inner.steps: got 0; .*a whole number >= 1'),
  ({'inner': {'steps': 1.0}}, 'inner.steps: got 1.0; .*whole number'),
  ({'inner': {'steps': True}}, 'inner.steps: got True'),
  ({'inner': {'steps': '3'}}, 'inner.steps: got .3.'),
  ({'inner': {'steps': 2**31}}, 'inner.steps: got 2147483648'),
  ({'inner': {'share': 1}}, 'inner.share: got 1; allowed: 0 <= number < 1'),
  ({'inner': {'share': math.nan}}, 'inner.share: got nan'),
  ({'inner': {'limit': math.inf}}, 'inner.limit: got inf; .*finite'),
  ({'inner': {'name': 'sdg'}}, r'one of rmsprop, sgd \(did you mean sgd'),
  ({'inner': {'sizes': [8, 7]}}, r'inner.sizes\[1\]: got 7'),
  ({'inner': {'sizes': 8}}, 'inner.sizes: got 8; allowed: a tuple'),
  ({'inner': {'pairs': [['a']]}}, r'inner.pairs\[0\]'),
  ({'inner': {'flag': 1}}, 'inner.flag: got 1; allowed: True or False'),
  ({'inner': {'step': 1}}, 'inner.step: .* did you mean steps|inner.step'),
  ({'inner': {}, 'space': {'x': 1}}, 'space.x: got .a field.'),
  ({'inner': {}, 'space': {'steps': 0}}, 'space.steps: got 0'),
  ({'inner': {}, 'space': 3}, 'space: got 3; allowed: text or an Inner'),
]


@pytest.mark.parametrize('value', RIGHT)
def test_what_is_right_becomes_a_typed_value_and_plain_again(value):
  found = schema.convert(Outer, value)
  again = schema.convert(Outer, schema.plain(found))
  assert again == found
  assert isinstance(found.inner, Inner) and isinstance(found.inner.sizes, tuple)


@pytest.mark.parametrize(('value', 'message'), WRONG)
def test_what_is_wrong_is_named_with_what_is_allowed(value, message):
  with pytest.raises(errors.UserError, match=message) as caught:
    schema.convert(Outer, value)
  assert '\n' not in str(caught.value)


def test_the_outermost_field_has_the_name_that_it_is_given():
  with pytest.raises(errors.UserError, match=r'^--search.steps: got 0'):
    schema.convert(Inner, {'steps': 0}, '--search')


def test_numbers_of_numpy_are_numbers():
  value = Inner(
    steps=np.int64(3), share=np.float32(0.5), sizes=[8, np.int32(9)]
  )
  found = schema.check(value)
  assert found == Inner(steps=3, share=0.5, sizes=(8, 9))
  assert type(found.steps) is int and type(found.share) is float


def test_arrays_are_tuples_and_sets_are_nothing():
  assert schema.check(Inner(sizes=np.array([8, 9]))).sizes == (8, 9)
  for some in ({8, 9}, {1, 2}):
    with pytest.raises(errors.UserError, match=r'^sizes: .* a tuple'):
      schema.check(Inner(sizes=some))


def test_the_place_in_a_file_is_named():
  with pytest.raises(
    errors.UserError, match=r'^run\.json: inner\.steps: got 0'
  ):
    schema.convert(Outer, {'inner': {'steps': 0}}, 'run.json:')


def test_what_has_no_end_is_refused():
  endless = []
  endless.append(endless)
  with pytest.raises(errors.UserError, match='lists in lists'):
    schema.convert(tuple[Any, ...], endless, 'sizes')


@dataclasses.dataclass(frozen=True)
class Own:
  """One that checks itself."""

  size: int

  def __post_init__(self):
    if self.size % 8:
      raise errors.UserError('own.size', self.size, 'a multiple of 8')


@dataclasses.dataclass(frozen=True)
class Receipt:
  """As that of an export."""

  formats: dict[str, Inner] = dataclasses.field(default_factory=dict)
  own: Own = Own(8)


def test_values_of_a_dict_are_named():
  right = schema.convert(Receipt, {'formats': {'a': {'steps': 1}}})
  assert right == Receipt({'a': Inner(steps=1)})
  for wrong, words in (
    ({'a': {'steps': 1}, 'b.c': {'steps': 'x'}}, 'formats.b.c.steps: got'),
    ({'a': {}, 'b': []}, 'formats.b: got'),
    ({'a': {'step': 1}}, r'formats.a.step: .*mean steps'),
    ([], 'formats: got .* a JSON object, each value an Inner'),
  ):
    with pytest.raises(errors.UserError, match=words):
      schema.convert(Receipt, {'formats': wrong})


def test_other_fields_may_be_left_out():
  value = {'version': math.nan, 'formats': {'a': {'step': 1}}}
  with pytest.raises(errors.UserError, match='version: got'):
    schema.convert(Receipt, value)
  found = schema.convert(Receipt, value, others=True)
  assert found == Receipt({'a': Inner()})


def test_what_a_dataclass_says_of_itself_is_told_with_its_place():
  with pytest.raises(errors.UserError, match=r'^own.size: got 7'):
    schema.convert(Receipt, {'own': {'size': 7}})
  with pytest.raises(errors.UserError, match=r'^a\.json: own.size: got 7'):
    schema.convert(Receipt, {'own': {'size': 7}}, 'a.json:')
  with pytest.raises(errors.UserError, match=r'^a\.json: own.size: got 7'):
    schema.convert(Own, {'size': 7}, 'a.json: own')
  with pytest.raises(errors.UserError, match=r'^a\.json: own.size: got 7'):
    schema.convert(Own, {'size': 7}, 'a.json:')


_ANYTHING = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
  lambda inner: (
    st.lists(inner, max_size=2)
    | st.dictionaries(st.sampled_from(['inner', 'space', 'steps']), inner)
  ),
  max_leaves=4,
)


@hypothesis.given(_ANYTHING)
def test_anything_is_right_or_one_line(value):
  for kind in (Outer, Inner):
    try:
      found = schema.convert(kind, value)
    except errors.UserError as error:
      assert '\n' not in str(error)
    else:
      assert schema.convert(kind, schema.plain(found)) == found
