"""Configs of random values: refused in one line, or they train.

What a field may be is read from its annotation, so that a new field is tried
without a word here.
"""

import dataclasses
import math
import pathlib
import shutil
import tempfile
import typing
from typing import Any, Literal

import hypothesis
import hypothesis.strategies as st
import jax
import pytest
import tiny
from etils import epath

from bignas_jax.methods import loss_graph, programs
from bignas_jax.policies import sampling
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import warm_start
from bignas_jax.runs.config import Config
from bignas_jax.training import loop
from bignas_jax.values import annotations, errors, structs

_SPAN = 4  # of whole numbers above the least one that is right
_ALONE = dataclasses.replace(
  tiny.QUICK,
  name='one',
  stem_width=(8,),
  head_width=(16,),
  stages=(dataclasses.replace(tiny.QUICK.stages[0], width=(8,)),),
)


@st.composite
def _edges(draw) -> list[loss_graph.Edge]:
  """A loss graph: each role learns from the label or from earlier ones."""
  earlier, found = ['label'], []
  for student in 'biggest', 'smallest', 'random':
    some = st.lists(st.sampled_from(earlier), min_size=1, unique=True)
    for teacher in draw(some):
      weight = draw(st.floats(0.1, 2))
      edge = loss_graph.Edge(student=student, teacher=teacher, weight=weight)
      found.append(edge)
    earlier.append(student)
  return found


# Right values that cannot be read from annotations: what has to be there, has
# to be small, or makes sense beside the others.
_RIGHT: dict[str, st.SearchStrategy] = {
  'space': st.sampled_from([tiny.QUICK, _ALONE]),
  'arch': st.sampled_from(['', 'biggest', 'smallest']),
  'policy': st.sampled_from(sampling.NAMES),
  'init_from': st.just(''),
  'init_sha256': st.just(''),
  'scores.by': st.just('loss'),
  'scores.archive': st.just(''),
  'classes': st.sampled_from([0, 10, 12]),
  'image_size': st.sampled_from([0, 8, 9, 12]),
  'data.name': st.just('mnist5k'),
  'data.directory': st.just(''),
  'data.held_out': st.integers(1, 3999),
  'data.augment': st.sampled_from(['affine', 'crop', 'none', 'randaugment']),
  'data.mean': st.tuples(st.floats(-1, 1)),
  'data.std': st.lists(st.floats(0.1, 2), min_size=1, max_size=1),
  'data.worker': st.just('thread'),
  'steps': st.just(2),
  'batch_size': st.sampled_from([4, 8, 12, 16]),
  'rule.edges': _edges(),
  'rule.regularised': st.sampled_from(['biggest', 'smallest', 'random']),
  'eval_batch_size': st.sampled_from([4, 100, 200]),
  'calibration.images': st.sampled_from([8, 16]),
  'calibration.batch_size': st.sampled_from([4, 8, 16]),
  'bn_group_size': st.sampled_from([0, 0, 2, 4, 8]),
  'schedule.peak': st.floats(0, 0.05),
  'layout.axes': st.sampled_from([('data',), ('a', 'b')]),
  'layout.sizes': st.sampled_from([(-1,), (4,), (2, 2), (2, -1)]),
  'layout.rules': st.sampled_from([(), (('ema|opt', 'data'),), (('', 'b'),)]),
}


def _base() -> Config:
  return tiny.config(
    space=tiny.QUICK,
    steps=2,
    batch_size=4,
    eval_every=2,
    calibration=config_lib.Calibration(images=8, batch_size=8),
  )


def _fields(kind: type = Config, path: str = '') -> dict[str, Any]:
  """Annotations of all fields that are no dataclasses, by path."""
  found = {}
  for name, inner in annotations.fields(kind).items():
    where = f'{path}.{name}'.removeprefix('.')
    if annotations.has_fields(inner):
      found |= _fields(inner, where)
    else:
      found[where] = inner
  return found


FIELDS = _fields()


def _changed(changes: dict[str, Any]) -> Config:
  config = _base()
  for path, value in changes.items():
    outer, _, last = path.rpartition('.')
    setattr(structs.get(config, outer) if outer else config, last, value)
  return config


def _bounds(kind: Any) -> tuple[Any, Any]:
  meta, _ = annotations.range_and_type(kind)
  if meta is None:
    return None, None
  low = meta.ge if meta.ge is not None else meta.gt
  return low, meta.le if meta.le is not None else meta.lt


# Right ones.


def _right(kind: Any) -> st.SearchStrategy:
  """Values that an annotation allows, small ones."""
  _, plain = annotations.range_and_type(kind)
  low, high = _bounds(kind)
  if typing.get_origin(plain) is Literal:
    return st.sampled_from(typing.get_args(plain))
  if annotations.is_tuple(plain):
    return st.lists(_right(typing.get_args(plain)[0]), max_size=2)
  if plain is bool:
    return st.booleans()
  if plain is int:
    low = 0 if low is None else low
    return st.integers(low, low + _SPAN if high is None else min(high, low + 4))
  if plain is float:
    least = -2.0 if low is None else low + 0.01
    return st.floats(least, least + 3 if high is None else high - 0.01)
  if plain is str:
    return st.text(max_size=5)
  assert annotations.has_fields(plain), plain
  fields = annotations.fields(plain)
  return st.builds(plain, **{name: _right(k) for name, k in fields.items()})


_ANY_RIGHT = {
  path: _RIGHT[path] if path in _RIGHT else _right(kind)
  for path, kind in FIELDS.items()
}


@st.composite
def _right_changes(draw) -> dict[str, Any]:
  paths = draw(
    st.lists(st.sampled_from(sorted(FIELDS)), max_size=5, unique=True)
  )
  return {path: draw(_ANY_RIGHT[path]) for path in paths}


def _described(changes: dict[str, Any]) -> Any:
  """What the programs of such a config depend on; None: it is refused."""
  try:
    config = config_lib.check(warm_start.resolve(_changed(changes)))
    return config_lib.setup(config)
  except errors.UserError as error:
    assert '\n' not in str(error)
    return None


@hypothesis.settings(max_examples=8)
@hypothesis.given(_right_changes())
def test_programs_of_right_values_can_be_traced(changes):
  setup = _described(changes)
  if setup is not None:
    for program in programs.all_programs(setup):
      jax.eval_shape(program.function, *program.arguments)


def _trained(changes: dict[str, Any]) -> str:
  """How it went: `trained`, or why not, in one line."""
  directory = pathlib.Path(tempfile.mkdtemp())
  try:
    result = loop.train(_changed(changes), epath.Path(directory / 'run'))
    assert result['step'] == 2
    return 'trained'
  except errors.UserError as error:
    assert '\n' not in str(error)
    assert not (directory / 'run').exists()
    return str(error)
  finally:
    shutil.rmtree(directory)


# Each has what no other has.
_FEW = [
  {'data.mean': [0.1], 'schedule.name': 'cosine', 'ema_decay': 0.5},
  {'space': _ALONE, 'policy': 'alone', 'optimizer.name': 'sgd'},
]


@pytest.mark.parametrize('changes', _FEW)
def test_right_values_train(changes):
  assert _trained(changes) == 'trained'


@pytest.mark.slow
def test_many_right_values_train(capsys):
  """At least 40 configs of several changed fields train two steps."""
  counts: dict[str, int] = {}

  @hypothesis.settings(
    max_examples=100,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=[hypothesis.Phase.generate],
  )
  @hypothesis.given(_right_changes())
  def run(changes):
    told = _trained(changes)
    key = told if told == 'trained' else told.partition(':')[0]
    counts[key] = counts.get(key, 0) + 1

  run()
  with capsys.disabled():
    print(counts)
  assert counts['trained'] >= 40


# Wrong ones.

_ANYTHING = st.sampled_from(
  [
    *(None, True, -1, 0, 1.5, 10**400, math.nan, math.inf, -math.inf, b'x'),
    *('', 'none', '1', [], ['x'], [[1]], {}, {'x': 1}, {1, 2}, object, 1j),
  ]
)


def _wrong(kind: Any) -> st.SearchStrategy:
  """Values that an annotation does not allow."""
  _, plain = annotations.range_and_type(kind)
  low, high = _bounds(kind)
  if len(annotations.alternatives(kind)) > 1:
    return st.sampled_from([None, 3, ['x'], {'x': 1}, 'nowhere'])
  if typing.get_origin(plain) is Literal:
    names = typing.get_args(plain)
    return _ANYTHING.filter(lambda v: v not in names if _hashable(v) else True)
  if annotations.is_tuple(plain):
    inner = _wrong(typing.get_args(plain)[0])
    not_lists = _ANYTHING.filter(lambda v: not isinstance(v, list))
    return st.one_of(not_lists, st.lists(inner, min_size=1, max_size=2))
  if plain is bool:
    return _ANYTHING.filter(lambda v: type(v) is not bool)
  if plain is str:
    return _ANYTHING.filter(lambda v: not isinstance(v, str))
  if annotations.has_fields(plain):
    return st.one_of(
      _ANYTHING.filter(lambda v: not isinstance(v, dict)), st.just({'x': 1})
    )
  outside = [x for x in _outside(plain, low, high) if x is not None]
  others = _ANYTHING.filter(lambda v: not _is_number(plain, v, low, high))
  return st.one_of(others, st.sampled_from(outside)) if outside else others


def _outside(kind: type, low: Any, high: Any) -> list[Any]:
  step = 1 if kind is int else 0.5
  return [
    None if low is None else kind(low - step),
    None if high is None else kind(high + step),
  ]


def _is_number(kind: type, value: Any, low: Any, high: Any) -> bool:
  """Whether a value may be right."""
  right = (int,) if kind is int else (int, float)
  if type(value) not in right or not abs(value) < 10**300:
    return False
  above = low is None or value >= low
  return above and (high is None or value <= high)


def _hashable(value: Any) -> bool:
  return not isinstance(value, list | dict | set)


_ANY_WRONG = {path: _wrong(kind) for path, kind in FIELDS.items()}


@st.composite
def _one_wrong(draw) -> tuple[dict[str, Any], str]:
  """Some right changes and a wrong one, and the path of that."""
  changes = draw(_right_changes())
  path = draw(st.sampled_from(sorted(FIELDS)))
  return changes | {path: draw(_ANY_WRONG[path])}, path


def _assert_refused(changes: dict[str, Any], path: str) -> None:
  with tempfile.TemporaryDirectory() as name:
    run = epath.Path(name) / 'run'
    with pytest.raises(errors.UserError) as refused:
      loop.train(_changed(changes), run)
    line = str(refused.value)
    assert '\n' not in line and len(line) < 600
    assert line.startswith(path), line
    assert not run.exists()


@hypothesis.settings(max_examples=150)
@hypothesis.given(_one_wrong())
def test_a_wrong_value_is_one_line_that_names_the_field(found):
  _assert_refused(*found)


@pytest.mark.slow
@hypothesis.settings(max_examples=2000)
@hypothesis.given(_one_wrong())
def test_many_wrong_values_are_one_line_each(found):
  _assert_refused(*found)


@pytest.mark.parametrize('path', sorted(FIELDS))
def test_each_field_refuses_what_it_is_not(path):
  """None of all: no field of a config may be missing."""
  if type(None) not in annotations.alternatives(FIELDS[path]):
    _assert_refused({path: None}, path)


@pytest.mark.parametrize('path', sorted(FIELDS))
def test_each_field_takes_what_is_right_by_its_annotation(path):
  """But for what has to fit other fields: some of several values."""
  taken = []

  @hypothesis.settings(max_examples=5, database=None)
  @hypothesis.given(_ANY_RIGHT[path])
  def look(value):
    taken.append(_described({path: value}) is not None)

  look()
  assert any(taken)
