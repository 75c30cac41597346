"""From a folder of images to children, interrupted and started again."""

import dataclasses
import itertools
import json
import shutil

import chex
import photos
import pytest
import tiny
from etils import epath

from bignas_jax import cli, fit
from bignas_jax.deploy import onnx
from bignas_jax.fitting import (
  budget,
  config_text,
  fitting,
  packages,
  rules,
  sizes,
  timings,
  trial,
)
from bignas_jax.fitting.rules import Size
from bignas_jax.fitting.trial import Measured
from bignas_jax.fitting.wishes import Wishes
from bignas_jax.perf import child_latency
from bignas_jax.runs import checkpoints, config_file, directory
from bignas_jax.runs import config as config_lib
from bignas_jax.selection import recommended
from bignas_jax.supernet import network
from bignas_jax.system import stopping
from bignas_jax.training import loop
from bignas_jax.values import errors

pytestmark = pytest.mark.usefixtures('small')


@pytest.fixture(scope='module')
def small():
  """Lets `fit` choose among tiny spaces, which compile in seconds."""
  with pytest.MonkeyPatch.context() as patch:
    space = dataclasses.replace(tiny.QUICK, name='quick')
    patch.setitem(sizes.SPACES, 'quick', space)
    patch.setattr(rules, 'SIZES', (Size('quick', 8, 0, 0, 0),))
    yield


@pytest.fixture(scope='module')
def images(tmp_path_factory):
  folder = tmp_path_factory.mktemp('images') / 'mine'
  return photos.write(folder, ('dark', 'light', 'middle'), 16)


def _asked(images, **bounds):
  return fitting.Asked(str(images), 0.1, Wishes([], bounds))


def _params(workdir):
  config = directory.load_config(workdir)
  shapes = network.shapes(config_lib.space(config))
  return checkpoints.read_entry(workdir, config.steps, shapes, 'params')


class _StopsAfter(stopping.StopRequest):
  """As if a signal had come during step `after`."""

  def __init__(self, after: int):
    self._left = after + 1

  def due(self) -> bool:
    self._left -= 1
    return self._left <= 0


@pytest.fixture(scope='module')
def fitted(images, tmp_path_factory):
  """What was stopped in training, in the search, and then ended."""
  workdir = epath.Path(tmp_path_factory.mktemp('fit')) / 'run'
  asked = _asked(images, max_macs=[7500, 10**9])
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(stopping, 'StopRequest', lambda: _StopsAfter(7))
    with pytest.raises(errors.Preempted, match='saved step 7 of 20'):
      fitting.fit(asked, workdir)
  begun = json.loads((workdir / 'fit.json').read_text())
  text = (workdir / 'config.py').read_text()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(fitting.packages, 'make', _stopped)
    with pytest.raises(errors.Preempted):
      fitting.fit(asked, workdir)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(fitting, '_in_time', lambda clock: True)
    result = fitting.fit(asked, workdir)
  assert (workdir / 'config.py').read_text() == text
  return workdir, begun, result


def _stopped(*_):
  raise errors.Preempted('by a test')


def test_it_goes_on_and_ends_as_an_ordinary_run(fitted, tmp_path):
  """The config trains to the same parameters with `main`, uninterrupted."""
  workdir, begun, result = fitted
  assert result['step'] == 20 and 'eval/biggest/top1' in result
  config = config_file.load(str(workdir / 'config.py'))
  loop.train(config, tmp_path / 'again')
  chex.assert_trees_all_equal(_params(workdir), _params(tmp_path / 'again'))
  ended = json.loads((workdir / 'fit.json').read_text())
  assert ended['measured'] == begun['measured']
  phases = ended['spent_s']
  assert {'look', 'measure', 'train', 'search', 'children'} <= phases.keys()
  assert phases['measure'] == begun['spent_s']['measure'], 'measured once'
  assert phases['train'] > begun['spent_s']['train'] > 0


def test_each_limit_gets_an_exported_child(fitted):
  workdir, _, result = fitted
  small, large = result['recommended']
  assert small['macs'] <= 7500
  held_out = large['accuracy']['float32']['held_out']
  assert held_out['top1'] >= small['accuracy']['float32']['held_out']['top1']
  for entry in (small, large):
    assert (workdir / entry['file']).name == 'model.onnx'
    assert (workdir / entry['file']).is_file()
    assert entry['accuracy']['float32']['test']['images'] == 10
    int8 = workdir / entry['int8_file']
    manifest = json.loads((int8.parent / 'export.json').read_text())
    made = manifest['formats']['onnx']['int8']
    assert int8.stat().length == made['bytes']
    accuracy = entry['accuracy']['int8']['test']
    assert accuracy == {'top1': made['top1'], 'top5': None, 'images': 10}
    report = (workdir / 'report.html').read_text().replace('<wbr>', '')
    assert entry['int8_file'] in report


def test_values_to_edit_are_printed(fitted, tmp_path, capsys, monkeypatch):
  """Where the config is written, which is also said."""
  config = config_file.load(str(fitted[0] / 'config.py'))
  monkeypatch.setattr(fitting, '_chosen', lambda *_: (config, []))
  fitting._config(_asked('mine'), epath.Path(tmp_path), None)
  said = capsys.readouterr().err
  assert str(tmp_path / 'config.py') in said
  assert (
    'steps = 20 (' in said and f'held_out = {config.data.held_out} (' in said
  )


def _without_int8(workdir):
  """Returns the entries of a run whose children are in float32 only."""
  path = workdir / 'search' / 'recommended.json'
  entries = json.loads(path.read_text())['recommended']
  return [entry | {'int8_file': None} for entry in entries]


def test_without_time_there_is_no_int8_file_and_a_line(fitted, capsys):
  workdir, *_ = fitted
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(packages.export, 'export', None)  # it would raise
    names = packages.make(workdir, _without_int8(workdir), lambda: False)
  lines = capsys.readouterr().err.strip().split('\n')
  assert len(lines) == len(names) > 0
  assert all('no time is left' in line for line in lines)


def test_an_int8_file_that_fails_leaves_the_float32_one(
  fitted, tmp_path, capsys, monkeypatch
):
  """Its cells are empty, and a line says why."""
  workdir = epath.Path(shutil.copytree(fitted[0], tmp_path / 'run'))
  entry, *_ = _without_int8(workdir)
  shutil.rmtree(workdir / entry['package'] / 'export')

  def quantise(*_):
    raise RuntimeError('no ranges\nwere found')

  monkeypatch.setattr(onnx, 'quantise', quantise)
  packages.make(workdir, [entry | {'file': None}], lambda: True)
  assert 'RuntimeError: no ranges were found' in capsys.readouterr().err
  recommended.refresh(workdir)
  path = workdir / 'search' / 'recommended.json'
  made, *_ = json.loads(path.read_text())['recommended']
  assert (workdir / made['file']).name == 'model.onnx'
  assert made['int8_file'] is None and made['accuracy']['int8'] is None


def test_children_for_this_machine_are_timed_once(
  fitted, tmp_path, monkeypatch
):
  """In the runtime and at the batch of the table; no other is measured."""
  workdir = epath.Path(shutil.copytree(fitted[0], tmp_path / 'run'))
  path = workdir / 'search' / 'recommended.json'
  content = json.loads(path.read_text())
  about = {'runtime': 'onnx', 'batch': 2, 'statistic': 'least'}
  here = about | {'device': child_latency.device('onnx')}
  small, large = content['recommended']
  content['recommended'] = [
    small | here,
    large | here | {'device': 'Abacus 2'},
    large | here | {'statistic': None},  # as a compiler estimates
    large | here | {'runtime': 'tflite'},
  ]
  path.write_text(json.dumps(content))
  timings.measure(workdir)
  recommended.refresh(workdir)
  timed, *others = json.loads(path.read_text())['recommended']
  text = (workdir / timed['package'] / 'latency.json').read_text()
  (row,) = json.loads(text)['rows']
  assert (row['runtime'], row['batch']) == ('onnx', 2)
  assert timed['measured_ms'] == row['least_ms'] > 0
  assert [other['measured_ms'] for other in others] == [None] * 3
  monkeypatch.setattr(child_latency, 'child', None)  # it would raise
  timings.measure(workdir)


def test_int8_files_are_for_the_time_that_is_left(fitted, images):
  """Once the command has ended, a second one takes the time it needs."""
  workdir, *_ = fitted
  record = fitting.record_lib.read(workdir, str(images), 0.1)
  assert record is not None
  measured = Measured(compile_s=1, step_s=0.1, evaluator_s=1, child_s=1)
  need = budget.for_int8(measured)

  def in_time(left_s, **spent):
    spent['train'] = 600 - left_s
    changed = {'minutes': 10.0, 'measured': measured, 'spent_s': spent}
    here = dataclasses.replace(record, **changed)
    clock = fitting.Clock(workdir.parent, here, lambda: 0.0, 0.0)
    return fitting._in_time(clock)

  assert in_time(need + 1) and not in_time(need - 1)
  assert in_time(-100, report=0)


def test_the_directory_is_for_what_it_was_begun_with(fitted, images, tmp_path):
  workdir, *_ = fitted
  asked = _asked(images)
  for wrong, words in (
    (asked._replace(minutes=7.0), '--minutes: got 7.0; allowed: 0.1'),
    (asked._replace(images=str(tmp_path)), '--images: got'),
  ):
    with pytest.raises(errors.UserError, match=words):
      fitting.fit(wrong, workdir)
  (tmp_path / 'config.py').write_text('mine')
  with pytest.raises(errors.UserError, match=r'there is a config\.py'):
    fitting.fit(asked, epath.Path(tmp_path))
  assert (tmp_path / 'config.py').read_text() == 'mine'


def test_a_table_of_another_space_is_one_line(fitted, images, tmp_path):
  workdir, *_ = fitted
  table = tmp_path / 'table.json'
  table.write_text(json.dumps({'format': 1, 'space_sha256': 'another'}))
  wishes = Wishes([epath.Path(table)], {'max_latency_ms': [5.0]})
  with pytest.raises(errors.UserError, match='table --space=') as refused:
    fitting.fit(_asked(images)._replace(wishes=wishes), workdir)
  assert refused.value.field == '--latency_table'


def test_what_is_no_table_is_refused_before_anything_is_measured(
  images, tmp_path
):
  text = tmp_path / 'notes.json'
  for content in (None, 'mine', '{"format": 7}'):
    if content is not None:
      text.write_text(content)
    asked = _asked(images)._replace(wishes=Wishes([epath.Path(text)], {}))
    with pytest.raises(errors.UserError, match=r'notes\.json') as refused:
      fitting.fit(asked, epath.Path(tmp_path) / 'run')
    assert str(refused.value).startswith('--latency_table: ')
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('inside', ['', 'run', 'dark/run'])
def test_a_directory_among_the_images_is_refused(images, tmp_path, inside):
  (tmp_path / 'link').symlink_to(images)
  workdir = epath.Path(tmp_path) / 'link' / inside
  with pytest.raises(errors.UserError, match=r'--workdir: .*of the images'):
    fitting.fit(_asked(images), workdir)
  assert not (images / 'run').exists()


def test_a_slow_machine_gets_a_smaller_space(fitted, images, monkeypatch):
  """After one trial of the larger one, which is not written down."""
  workdir, *_ = fitted
  sizes_there = Size('quick', 12, 0, 0, 0), Size('quick', 8, 0, 0, 0)
  monkeypatch.setattr(rules, 'SIZES', sizes_there)
  seconds = {12: 100.0, 8: 0.01}

  def measure(config, *_):
    step_s = seconds[max(config.space.resolution)]
    return Measured(compile_s=1.0, step_s=step_s, evaluator_s=1.0, child_s=0.01)

  monkeypatch.setattr(trial, 'measure', measure)
  record = fitting.record_lib.read(workdir, str(images), 0.1)
  assert record is not None
  asked = _asked(images, max_macs=[1e6])._replace(minutes=1.0)
  record = dataclasses.replace(
    record, minutes=1.0, spent_s={}, size=None, measured=None
  )
  clock = fitting.Clock(
    workdir.parent, record, itertools.count(0.0, 0.1).__next__, 0.0
  )
  choice, measured = fitting._measured_choice(asked, clock)
  assert (choice.space.resolution, measured.step_s) == ((8,), 0.01)
  # A command that was interrupted after this keeps its choice.
  seconds[8] = 100.0
  clock.note(size=1, measured=measured)
  assert fitting._measured_choice(asked, clock) == (choice, measured)


def test_searches_take_the_time_that_is_left(fitted, images, monkeypatch):
  """By what evaluations took; what ended once is not searched longer."""
  workdir, *_ = fitted
  record = fitting.record_lib.read(workdir, str(images), 0.1)
  assert record is not None
  measured = Measured(compile_s=0.0, step_s=1.0, evaluator_s=0.0, child_s=1.0)
  requests, asked, time = [None] * 2, [], [0.0]

  def recommend(workdir, requests, strategy, changes):
    fresh = changes['evaluations'] - sum(asked[-1:])
    asked.append(changes['evaluations'])
    time[0] += fresh  # half a second each
    visited = 2 * changes['evaluations']
    return {'evaluated': visited, 'looked_up': visited - fresh}

  monkeypatch.setattr(fitting.search, 'recommend', recommend)
  for ended, numbers in ((False, [20, 38]), (True, [20])):
    asked.clear()
    time[0] = 0.0
    kept = dataclasses.replace(
      record,
      minutes=1.0,
      measured=measured,
      evaluations=20,
      spent_s={'report': 0.1} if ended else {},
    )
    place = workdir.parent / f'clock{ended}'
    place.mkdir()
    clock = fitting.Clock(place, kept, lambda: time[0], 0.0)
    fitting._searched(workdir, clock, requests)
    assert asked == numbers, ended
    assert clock.left_s() >= budget.for_children(measured, 2) or ended
  assert json.loads((place / 'fit.json').read_text())['evaluations'] == 20


def test_limits_that_no_child_keeps_are_refused_before_training(
  fitted, images, monkeypatch
):
  workdir, *_ = fitted
  monkeypatch.setattr(loop, 'train', lambda *_: pytest.fail('it trains'))
  for bounds in ({'max_macs': [10]}, {'min_macs': [9000], 'max_macs': [8000]}):
    with pytest.raises(errors.UserError, match='macs'):
      fitting.fit(_asked(images, **bounds), workdir)


def test_a_directory_that_no_config_flag_can_name_is_refused(images, tmp_path):
  workdir = epath.Path(tmp_path) / '12:30'
  with pytest.raises(errors.UserError, match='without a colon'):
    fitting.fit(_asked(images), workdir)
  assert not workdir.exists()


def test_a_config_as_text_is_that_config(fitted, tmp_path):
  """With its reasons, also where a path has quotes or is not UTF-8."""
  workdir, *_ = fitted
  config = config_file.load(str(workdir / 'config.py'))
  odd = '/a "quoted" \\path\udcff'
  data = dataclasses.replace(config.data, directory=odd)
  config = dataclasses.replace(config, data=data)
  path = tmp_path / 'config.py'
  path.write_text(config_text.write(config, f'Of {odd}', ['Why """ not.']))
  assert config_file.load(str(path)) == config
  assert 'Why' in path.read_text()
  assert max(map(len, path.read_text().split('\n'))) <= 80


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    (['--images=no/such', '--minutes=1'], 'error: --images: got'),
    (['--images=no/such', '--minutes=0'], 'minutes'),
    (['--images=no/such', '--max_macs=-1'], 'error: --max_macs: got'),
    (['--images=no/such', '--memory_batch=0'], '--memory_batch=0: got'),
    (['--images=no/such', '--memory_precision=int4'], "got 'int4'"),
  ],
)
def test_mistakes_are_one_line(arguments, words, tmp_path, capsys):
  arguments = [*arguments, f'--workdir={tmp_path / "run"}']
  assert cli.status(fit.main, arguments) == 2
  (line,) = capsys.readouterr().err.strip().split('\n')
  assert words in line
  assert not (tmp_path / 'run').exists()
