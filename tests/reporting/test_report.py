"""The page says what the files say, whatever is in them, and loads nothing."""

import dataclasses
import html
import html.parser
import json
import pathlib
import re
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from etils import epath

from bignas_jax import report
from bignas_jax.costs import counting, latency, latency_tables
from bignas_jax.reporting import (
  children_table,
  contents,
  formats,
  learning_curves,
  plots,
  run_files,
)
from bignas_jax.reporting import page as page_lib
from bignas_jax.reporting import report as report_lib
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import config_file, config_record
from bignas_jax.runs import directory as directory_lib
from bignas_jax.runs.archive import Archive, Entry
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import pinning, presets
from bignas_jax.strategies import variation
from bignas_jax.system import files
from bignas_jax.values import errors

_ROOT = pathlib.Path(__file__).parents[2]
_CONFIG = config_file.load(str(_ROOT / 'configs' / 'mnist.py'))
_CONFIG.steps = 600
_SPACE = config_lib.space(_CONFIG)
_BIGGEST = arch_lib.biggest(_SPACE)
_SMALLEST = arch_lib.smallest(_SPACE)
_STRATEGIES = ('coarse_to_fine', 'random')
_AFTER_SEARCH = (
  'Accuracy against latency',
  'What the search tried',
  'How well accuracy is predicted',
)
_AFTER_RANKING = 'How well indicators rank children'
_OF_LISTS = 'Recommended children', 'Children of each size'
_SECTIONS = (
  _OF_LISTS[0],
  'Training',
  'Accuracy against cost',
  *_AFTER_SEARCH,
  'Why children are calibrated',
  'Children on the front',
  _OF_LISTS[1],
  _AFTER_RANKING,
  'Extracted children',
  'Config and versions',
)


class _Page(html.parser.HTMLParser):
  """Elements, text and tables; fails where a tag is not closed in order."""

  _VOID = ('meta', 'br', 'img', 'link', 'hr', 'input')

  def __init__(self, text: str):
    super().__init__()
    self.tags: list[tuple[str, dict]] = []
    self.rows: list[list[str]] = []
    self.headings: list[str] = []
    self.ids: list[str] = []
    self.words: list[str] = []
    self._open: list[str] = []
    self.feed(text.replace('<wbr>', ''))  # where a line may end
    self.close()
    assert not self._open

  def handle_starttag(self, tag, attributes):
    self.tags.append((tag, dict(attributes)))
    self.ids += [value for name, value in attributes if name == 'id']
    if tag not in self._VOID:
      self._open.append(tag)
    if tag == 'tr':
      self.rows.append([])
    if tag in ('td', 'th'):
      self.rows[-1].append('')
    if tag in ('h1', 'h2', 'h3'):
      self.headings.append('')

  def handle_startendtag(self, tag, attributes):
    self.tags.append((tag, dict(attributes)))
    self.ids += [value for name, value in attributes if name == 'id']

  def handle_endtag(self, tag):
    assert self._open, f'</{tag}> without a start'
    assert self._open.pop() == tag

  def handle_data(self, data):
    inner = self._open[-1] if self._open else ''
    if inner in ('td', 'th'):
      self.rows[-1][-1] += data
    elif inner in ('h1', 'h2', 'h3'):
      self.headings[-1] += data
    if inner not in ('style', 'script'):
      self.words.append(data)

  @property
  def text(self) -> str:
    return ' '.join(' '.join(self.words).split())


def _read(workdir: pathlib.Path) -> _Page:
  return _Page((workdir / 'report.html').read_text(encoding='utf-8'))


def _metrics() -> list[dict]:
  lines = []
  for step in range(20, 601, 20):
    line: dict = {'step': step, 'lr': 0.01 * 0.97 ** (step / 11)}
    for role, late in (('biggest', 0), ('smallest', 60), ('random', 30)):
      line[f'train/loss_{role}'] = 0.5 + 1.8 * np.exp(-step / (80 + late))
      line[f'train/top1_{role}'] = 0.95 - 0.8 * np.exp(-step / (80 + late))
    line['images_per_s'] = None if step % 200 == 20 else 120 + step % 7
    lines.append(line)
    if step % 200 == 0:
      lines.append(
        {
          'step': step,
          'eval/biggest/top1': 0.9 + step / 1e4,
          'eval/smallest/top1': 0.8 + step / 1e4,
        }
      )
  lines[3]['train/loss_random'] = None
  lines[4]['lr'] = float('nan')
  return lines


def _entry(arch, top1, order) -> Entry:
  cost = counting.cost(_SPACE, arch)
  strategy = _STRATEGIES[order % 2]
  return Entry(
    arch, cost.macs, cost.params, top1, 500, 512, order, strategy, 600
  )


def _entries() -> list[Entry]:
  rng = np.random.default_rng(0)
  entries = []
  for order in range(60):
    arch = arch_lib.sample(_SPACE, rng)
    quality = 0.97 - 4e4 / counting.cost(_SPACE, arch).macs
    top1 = 0.11 if order == 7 else float(quality - 0.03 * rng.random())
    entries.append(_entry(arch, round(top1, 3), order))
  return entries


def _write_search(workdir: pathlib.Path) -> Entry:
  archive = Archive(workdir / 'search' / 'archive.csv', _SPACE)
  for entry in _entries():
    archive.append(entry)
  fit = [entry for entry in archive.entries if entry.macs <= 1_000_000]
  best = max(fit, key=lambda entry: entry.top1)
  answer = {
    'strategy': 'coarse_to_fine',
    'limits': {'max_macs': 1e6, 'max_params': None, 'min_macs': None},
    'split': 'held_out',
    'evaluated': 60,
    'seconds': 81.2,
  } | best._asdict()
  answer['arch'] = arch_lib.to_dict(best.arch)
  files.write_json(workdir / 'search' / 'best.json', answer)
  children = []
  for name, arch, top1, initial, borrowed in (
    ('biggest', _BIGGEST, 0.966, 0.104, 0.966),
    ('smallest', _SMALLEST, 0.872, 0.098, 0.312),
    ('best', best.arch, best.top1, 0.12, 0.731),
  ):
    children.append(
      {
        'name': name,
        'arch': arch_lib.to_dict(arch),
        'macs': counting.cost(_SPACE, arch).macs,
        'calibrated': top1,
        'uncalibrated': {'initial': initial, 'borrowed': borrowed},
      }
    )
  files.write_json(
    workdir / 'search' / 'calibration.json',
    {'split': 'held_out', 'borrowed_from': 'biggest', 'children': children},
  )
  return best


def _write_recommended(workdir: pathlib.Path, best: Entry) -> None:
  """One child that was extracted, and one that was not, and the table."""
  held_out = {'top1': best.top1, 'top5': None, 'images': 500}
  test = {'top1': 0.931, 'top5': 0.997, 'images': 1000}
  one = {
    'child': 'recommended:1',
    'device': 'Abacus 2',
    'runtime': 'onnx',
    'batch': 4,
    'statistic': 'median',
    'limits': {'max_latency_ms': 12.5},
    'arch': arch_lib.to_dict(best.arch),
    'macs': best.macs,
    'params': best.params,
    'bytes': 54321,
    'file_bytes': 65432,
    'predicted_ms': 11.25,
    'measured_ms': 12.3,
    'accuracy': {
      'float32': {'held_out': held_out, 'test': test},
      'int8': {'test': test | {'top1': 0.889}},
    },
    'file': 'children/best/export/model.onnx',
    'int8_file': None,
  }
  bare = {'accuracy': {'float32': {'held_out': held_out}}}
  two = one | {'child': 'recommended:2', 'file': None, 'device': None} | bare
  made = {'step': 600, 'config_sha256': config_record.sha256(_CONFIG)}
  path = workdir / 'search' / 'recommended.json'
  files.write_json(path, made | {'recommended': [one, two]})
  rows = children_table.make(_SPACE, _entries())
  chosen = children_table.Row(10**6, best.arch, best.top1, None, 'held_out')
  rows.append(chosen)
  children_table.write(path.with_name('children.csv'), _CONFIG, _SPACE, rows)


def _write_predictor(workdir: pathlib.Path) -> None:
  measured = [entry.top1 for entry in _entries()]
  found = {
    'children': 60,
    'folds': 5,
    'rank_correlation': 0.8649,
    'mean_abs_error': 0.012,
    'predicted': [0.9 * value for value in measured],
    'measured': measured,
  }
  files.write_json(workdir / 'search' / 'predictor.json', found)


def _write_ranking(workdir: pathlib.Path) -> None:
  rng = np.random.default_rng(1)
  children = [
    {
      'arch': arch_lib.to_dict(arch_lib.sample(_SPACE, rng)),
      'top1': 0.9 + 0.01 * i,
      'indicators': {'calibrated_top1': 0.8 + 0.01 * i, 'macs': 1e6 - 1e3 * i},
    }
    for i in range(5)
  ]
  found = {'step': 600, 'steps': 150, 'images': 1000, 'level': 0.95}
  of_macs = {'tau': -0.4, 'low': -0.95, 'high': 0.2, 'p': 0.4833}
  of_top1 = {'tau': 1.0, 'low': None, 'high': None, 'p': 0.0167}
  found['indicators'] = {'calibrated_top1': of_top1, 'macs': of_macs}
  files.write_json(workdir / 'ranking.json', found | {'children': children})


def _write_child(workdir: pathlib.Path, name: str, arch, **more) -> dict:
  cost = counting.cost(_SPACE, arch)
  info = {
    'format': 1,
    'space': 'mnist',
    'arch': arch_lib.to_dict(arch),
    'classes': 10,
    'macs': cost.macs,
    'params': cost.params,
    'accuracy': {'top1': 0.931, 'top5': 0.997, 'images': 1000, 'split': 'test'},
    'calibration': {'images': 512, 'seed': 0},
    'parity': {'max_abs_diff': 3.4e-6, 'images': 256},
    'source': {
      'step': 600,
      'config_sha256': config_record.sha256(_CONFIG),
      'version': '0.1.0',
    },
    'network': dataclasses.asdict(pinning.pin(_SPACE, arch)),
  } | more
  directory = workdir / 'children' / name
  directory.mkdir(parents=True)
  files.write_json(directory / 'child.json', info)
  return info


def _write_metrics(workdir: pathlib.Path) -> None:
  text = ''.join(json.dumps(line) + '\n' for line in _metrics())
  (workdir / 'metrics.jsonl').write_text(text + '{"step": 620, "tra')


def full(workdir: pathlib.Path) -> Entry:
  """Everything that a finished run leaves, except weights."""
  directory_lib.claim(workdir, _CONFIG)
  _write_metrics(workdir)
  best = _write_search(workdir)
  _write_recommended(workdir, best)
  _write_predictor(workdir)
  _write_ranking(workdir)
  _write_child(workdir, 'best', best.arch)
  return best


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A finished run, its best child, the command's result, and the page."""
  workdir = tmp_path_factory.mktemp('run') / 'demo'
  best = full(workdir)
  result = report.main([f'--workdir={workdir}'])
  return workdir, best, result, _read(workdir)


@pytest.fixture
def started(tmp_path):
  """A work directory with nothing in it but the config."""
  directory_lib.claim(tmp_path / 'new run', _CONFIG)
  return tmp_path / 'new run'


def test_result_is_json_with_the_path_and_the_key_numbers(run):
  workdir, best, result, _ = run
  assert json.loads(json.dumps(result, allow_nan=False)) == result
  assert result['report'] == str(workdir / 'report.html')
  assert result['biggest_test_top1'] == pytest.approx(0.96)
  assert result['smallest_test_top1'] == pytest.approx(0.86)
  assert result['best'] == {
    'macs': best.macs,
    'params': best.params,
    'held_out_top1': best.top1,
    'test_top1': 0.931,
  }
  assert result['children'] == ['best']


def test_every_section_in_reading_order(run):
  *_, page = run
  assert page.headings == [
    'BigNAS supernet mnist',
    *_SECTIONS[:-1],
    'best',
    _SECTIONS[-1],
  ]


def test_pictures_are_named_and_identifiers_unique(run):
  *_, page = run
  pictures = [a for tag, a in page.tags if tag == 'svg']
  assert len(pictures) == 12
  assert all(picture['aria-label'] for picture in pictures)
  assert len(page.ids) == len(set(page.ids))
  for name in ('losses', 'train-top1', 'eval-top1', 'lr', 'speed'):
    assert name in page.ids
  links = {a['xlink:href'] for tag, a in page.tags if tag == 'use'}
  assert links
  assert {link.removeprefix('#') for link in links} <= set(page.ids)


def test_self_contained(run):
  workdir, *_, page = run
  assert not {'script', 'link', 'img', 'iframe'} & {t for t, _ in page.tags}
  for _, attributes in page.tags:
    for name, value in attributes.items():
      if not name.startswith('xmlns'):
        assert '://' not in (value or ''), (name, value)
      if name in ('src', 'href', 'xlink:href'):
        assert value.startswith('#')
  text = (workdir / 'report.html').read_text()
  assert not re.search(r'@import|url\((?!#)', text)
  assert "default-src 'none'" in text


def test_summary(run):
  _, best, _, page = run
  assert 'step 600 of 600' in page.text
  assert 'seed 0' in page.text
  assert f'{arch_lib.count(_SPACE):,} networks' in page.text
  assert 'biggest child 96.0 % test top-1' in page.text
  smallest = counting.cost(_SPACE, _SMALLEST)
  assert (
    'smallest child 86.0 % test top-1 '
    f'{smallest.macs / 1e3:.0f} k MACs · {smallest.params / 1e3:.1f} k '
    'parameters best of'  # and nothing in between
  ) in page.text
  assert (
    'best of at most 1,000,000 MACs 93.1 % test top-1 '
    f'{best.macs / 1e3:.0f} k MACs'
  ) in page.text
  assert f'{100 * best.top1:.1f} % held-out top-1' in page.text


def test_front_is_the_archives(run):
  _, best, _, page = run
  entries = _entries()
  front = [
    e
    for e in entries
    if not any(
      o.macs <= e.macs and o.top1 >= e.top1 and o is not e for o in entries
    )
  ]
  lists = lambda arch: [  # noqa: E731
    ' '.join(map(str, values))
    for values in (arch.width, arch.depth, arch.kernel_size, arch.expand_ratio)
  ]
  expected = [
    [
      f'{e.macs:,}',
      f'{e.params:,}',
      str(e.arch.resolution),
      *lists(e.arch),
      f'{100 * e.top1:.1f}',
    ]
    for e in sorted(front, key=lambda e: e.macs)
  ]
  at = page.rows.index(expected[0])
  assert page.rows[at : at + len(expected)] == expected
  assert best.arch in [e.arch for e in front]
  strong = [a for tag, a in page.tags if tag == 'tr' and 'class' in a]
  assert len(strong) == 2  # the best child, and the total of its blocks


def test_the_recommended_and_the_table_are_the_files(run):
  workdir, best, _, page = run
  rows = [row for row in page.rows if row[0].startswith('recommended:')]
  # No child is exported: there are no columns of int8 and measured latency.
  assert rows[0][:7] == [
    *('recommended:1', 'Abacus 2 (onnx)', 'at most 12.5 ms'),
    *('93.1', f'{100 * best.top1:.1f}', '11.2', '968 k'),
  ]
  assert rows[1][0] == 'recommended:2' and rows[1][-1] == rows[0][-1]
  assert rows[0][-1] == 'children/best/model.safetensors'
  table = children_table.read(workdir / 'search' / 'children.csv', _SPACE)
  shown = [row for row in page.rows if row[0].startswith('table:')]
  assert [row[0] for row in shown] == [
    f'table:{number}' for number in range(1, len(table) + 1)
  ]
  assert [row[3] for row in shown] == [formats.NOTHING] * len(table)
  files_shown = {row[-1] for row in shown}
  assert files_shown == {'not extracted', 'children/best/model.safetensors'}


def test_calibration_is_the_files(run):
  _, best, _, page = run
  macs = [counting.cost(_SPACE, a).macs for a in (_BIGGEST, _SMALLEST)]
  at = page.rows.index(['biggest', f'{macs[0]:,}', '96.6', '–', '10.4'])  # noqa: RUF001
  assert page.rows[at + 1 : at + 3] == [
    ['smallest', f'{macs[1]:,}', '87.2', '31.2', '9.8'],
    ['best', f'{best.macs:,}', f'{100 * best.top1:.1f}', '73.1', '12.0'],
  ]


def test_quality_of_predictions_is_the_files(run):
  page = run[-1]
  assert 'rank correlation 0.86, mean error 1.2 points' in page.text
  assert {'history', 'prediction'} <= set(page.ids)


def test_taus_are_the_files(run):
  page = run[-1]
  assert '5 random children were trained alone' in page.text
  table = {row[0]: row[1:] for row in page.rows if row}
  assert table['MACs'] == ['-0.40', '-0.95 to 0.20', '0.48']
  none = f'{formats.NOTHING} to {formats.NOTHING}'
  assert table['calibrated accuracy in the supernet'] == ['1.00', none, '0.017']


def test_exports_are_their_manifests(started):
  _write_child(started, 'best', _SMALLEST)
  entry = {'max_abs_diff': 2e-6, 'top1_agreement': 1.0, 'bytes': 123456}
  manifest = {
    'reference': {'split': 'test', 'images': 1000, 'logits_scale': 20.0},
    'formats': {'onnx': entry, 'tflite': entry | {'max_abs_diff': None}},
  }
  (started / 'children/best/export').mkdir()
  files.write_json(started / 'children/best/export/export.json', manifest)
  report_lib.write(started)
  rows = _read(started).rows
  assert ['onnx', '1.0e-07', '100.0', '123,456'] in rows
  assert ['tflite', formats.NOTHING, '100.0', '123,456'] in rows


def _table(path: pathlib.Path) -> latency.Table:
  """A millisecond a part, at the larger resolution."""
  sizes = (32,)
  latency_tables.save(
    epath.Path(path),
    _SPACE,
    sizes,
    {
      'runtime': 'onnx',
      'batch': 4,
      'device': 'Abacus 2',
      'versions': {},
      'estimate': False,
      'statistic': 'least',
    },
    dict.fromkeys(latency.all_layers(_SPACE, sizes), 1.0),
    latency.Fit(),
  )
  return latency_tables.load(epath.Path(path), _SPACE)


def test_accuracy_against_latency(started, tmp_path):
  best = _write_search(started)
  at_32 = [e for e in _entries() if e.arch.resolution == 32]
  _write_child(started, 'fast', at_32[0].arch)
  table = _table(tmp_path / 'table.json')
  command = [f'--workdir={started}', f'--latency_table={tmp_path}/table.json']
  report.main(command)
  page = _read(started)
  assert 'Abacus 2, onnx, 4 at a time' in page.text
  assert 'latency' in page.ids
  assert 'extracted as fast: timed' not in page.text
  row = {'device': 'Abacus 2', 'runtime': 'onnx', 'batch': 4}
  row |= {'median_ms': 12.3, 'p90_ms': 13.4, 'images_per_s': 325.2}
  row |= {'least_ms': 11.9}
  rows = [row | {'batch': 1, 'least_ms': 99.0}, row]
  files.write_json(started / 'children/fast/latency.json', {'rows': rows})
  report.main(command)
  page = _read(started)
  assert 'extracted as fast: timed' in page.text
  assert ['Abacus 2', 'onnx', '4', '12.3', '13.4', '325'] in page.rows
  child = run_files.read(epath.Path(started)).children[0]
  assert contents.measured_ms(child.measured, table.about) == 11.9
  assert best.arch.resolution in (28, 32)


def test_published_networks_are_marked(started, monkeypatch):
  _write_search(started)
  arch = _entries()[3].arch
  named = {'famous': presets.Preset('mnist', arch, 1, None, 0.5, 'a paper')}
  monkeypatch.setattr(presets, 'PRESETS', named)
  report_lib.write(started)
  assert 'famous' in _read(started).text


def test_a_child_is_drawn_block_by_block(run):
  _, best, _, page = run
  assert 'blocks0' in page.ids
  for size in best.arch.kernel_size:
    assert f'kernel {size}' in page.text


def test_child_costs_by_block_add_up(run):
  _, best, _, page = run
  rows = counting.rows(_SPACE, best.arch)
  at = [row[0] for row in page.rows].index('stem')
  shown = page.rows[at : at + len(rows) + 1]
  assert [row[0] for row in shown] == [*(row.name for row in rows), 'total']
  macs = [int(row[3].replace(',', '')) for row in shown]
  params = [int(row[5].replace(',', '')) for row in shown]
  assert sum(macs[:-1]) == macs[-1] == best.macs
  assert sum(params[:-1]) == params[-1] == best.params
  facts = {row[0]: row[1] for row in page.rows if len(row) == 2}
  assert facts['accuracy'] == '93.1 % top-1, 99.7 % top-5 on 1,000 test images'
  assert (
    facts['parity'] == 'logits within 3.4e-06 of the supernet, on 256 images'
  )
  assert 'another config' not in page.text


def test_config_is_shown_whole(run):
  workdir, *_ = run
  text = (workdir / 'report.html').read_text()
  shown = re.search(r'<pre>(.*?)</pre>', text, re.S)
  assert shown is not None
  assert json.loads(html.unescape(shown[1])) == config_record.to_dict(_CONFIG)


def test_same_files_same_page(run):
  workdir, *_ = run
  first = (workdir / 'report.html').read_bytes()
  report_lib.write(workdir)
  assert (workdir / 'report.html').read_bytes() == first


def test_parts_not_made_yet_name_their_commands(started):
  result = report_lib.write(started)
  page = _read(started)
  later = (*_AFTER_SEARCH, _AFTER_RANKING, *_OF_LISTS)
  known = [name for name in _SECTIONS if name not in later]
  assert page.headings == ['BigNAS supernet mnist', *known]
  where = f"--workdir='{started}'"
  for command in (
    f'python -m bignas_jax.main {where} --config=FILE',
    f'python -m bignas_jax.search {where} --max_macs=1000000',
    f'python -m bignas_jax.search {where}.',
    f'python -m bignas_jax.extract {where} --arch=best',
  ):
    assert command in page.text.replace(' .', '.')
  assert result['best'] is None
  assert result['biggest_test_top1'] is None
  assert 'svg' not in {tag for tag, _ in page.tags}


def test_training_only(started):
  _write_metrics(started)
  report_lib.write(started)
  page = _read(started)
  assert 'eval-top1' in page.ids
  assert 'pareto' not in page.ids


def test_searched_but_not_extracted(started):
  best = _write_search(started)
  (started / 'search' / 'calibration.json').unlink()
  result = report_lib.write(started)
  page = _read(started)
  assert result['best']['test_top1'] is None
  assert f'{100 * best.top1:.1f} % held-out top-1' in page.text
  assert 'not extracted' in page.text
  assert 'pareto' in page.ids


def test_null_everywhere(started):
  empty = {'step': 20, 'lr': None, 'images_per_s': None}
  empty['train/loss_biggest'] = empty['eval/biggest/top1'] = float('nan')
  (started / 'metrics.jsonl').write_text(json.dumps(empty) + '\n')
  best = _write_search(started)
  archive = Archive(started / 'search' / 'archive.csv', _SPACE)
  archive.append(_entry(_BIGGEST, float('nan'), 60))
  calibration = {'children': [{'name': 'x', 'calibrated': None}]}
  files.write_json(started / 'search' / 'calibration.json', calibration)
  nothing = dict.fromkeys(('accuracy', 'calibration', 'parity', 'source'))
  _write_child(started, 'best', best.arch, **nothing)
  report_lib.write(started)
  page = _read(started)
  assert 'nan' not in page.text.lower().split()
  assert 'None' not in page.text.split()


def test_run_card_is_shown_if_there_is_one(started):
  _write_metrics(started)
  report_lib.write(started)
  assert 'What it took' not in _read(started).headings
  one = {'started': '2024-05-06T07:08:09+00:00', 'status': 'killed'}
  two = one | {
    'status': 'finished',
    'first_step': 100,
    'step': 900,
    'hours': 2.5,
    'devices': 8,
    'device_kind': 'TPU v4',
    'hosts': ['host-<a>', 'host-b'],
    'commit': {'sha': '0123456789abcdef', 'dirty': True},
  }
  card = {'status': 'finished', 'step': 900, 'of': 900, 'images': 57600}
  card |= {'hours': 3.25, 'sittings': [one, two]}
  card |= {'goodput': 0.8125, 'repeated_steps': 12}
  spent = {'training': 9506, 'repeated': 600, 'input_wait': 4, 'saving': 20}
  card['seconds'] = spent | {'compiling': 95, 'evaluating': 300, 'other': 1175}
  files.write_json(started / 'run.json', card)
  report_lib.write(started)
  page = _read(started)
  assert 'What it took' in page.headings
  for told in (
    'Finished: step 900 of 900; 57,600 images in 3.2 hours',
    'killed',
    '100 to 900',
    '2.5 hours',
    '8 TPU v4',
    'host-<a> host-b',
    '0123456789, dirty',
    '81.2 % of this time were training steps',
    '10.0 minutes for 12 steps that were trained again',
    '4 seconds waiting for images, 1.6 minutes compiling',
  ):
    assert told in page.text, told
  assert 'None' not in page.text.split()


def _alone(init_from: str = ''):
  arch = variation.mutate(_SPACE, _BIGGEST, np.random.default_rng(0), 0.5)
  return dataclasses.replace(
    _CONFIG,
    space=pinning.pin(_SPACE, arch),
    policy='alone',
    init_from=init_from,
  ), arch


@pytest.mark.parametrize('init_from', ['', 'runs/<demo>/children/best'])
def test_a_network_alone_is_told_of_alone(tmp_path, init_from):
  config, arch = _alone(init_from)
  directory_lib.claim(tmp_path, config)
  steps = [
    {
      'step': step,
      'lr': 1e-3,
      'images_per_s': 100,
      'train/loss_biggest': 1 / step,
      'train/top1_biggest': 0.5,
      'eval/biggest/top1': 0.75,
    }
    for step in (20, 40)
  ]
  lines = ''.join(json.dumps(line) + '\n' for line in steps)
  (tmp_path / 'metrics.jsonl').write_text(lines)
  result = report_lib.write(tmp_path)
  assert result['smallest_test_top1'] is None
  page = _read(tmp_path)
  assert '--arch=best' in page.text, 'how to extract it'
  source = {'step': 600, 'config_sha256': config_record.sha256(config)}
  _write_child(tmp_path, 'best', arch, source=source)
  report_lib.write(tmp_path)
  page = _read(tmp_path)
  assert page.headings == [
    'One network of space mnist',
    'Training',
    'Extracted network',
    'best',
    'Config and versions',
  ]
  start = f'the weights of {init_from}' if init_from else 'random weights'
  assert f'trained alone on mnist5k, from {start}.' in page.text
  assert 'the network 75.0 % test top-1' in page.text
  assert 'A step trains the network, which is called' in page.text
  assert 'Who learns from the label: biggest.' in page.text
  assert 'of the trained network, on 256 images' in page.text
  config_text = page.text.index('The whole config')
  for word in ('smallest', 'random ones', 'sandwich', 'supernet', 'children,'):
    assert word not in page.text[:config_text].replace('runs/<demo>', ''), word


def test_the_biggest_child_alone(tmp_path):
  config = dataclasses.replace(_CONFIG, policy='alone')
  directory_lib.claim(tmp_path, config)
  line = {'step': 20, 'train/loss_biggest': 1.0}
  (tmp_path / 'metrics.jsonl').write_text(json.dumps(line) + '\n')
  report_lib.write(tmp_path)
  text = _read(tmp_path).text
  assert 'A step trains the biggest child alone.' in text
  assert 'sandwich' not in text[: text.index('The whole config')]
  assert 'smallest child' not in text


def test_text_from_files_is_escaped(started):
  evil = '<script>alert("$1 & \'")</script>'
  best = _write_search(started)
  archive = Archive(started / 'search' / 'archive.csv', _SPACE)
  archive.append(archive.entries[0]._replace(strategy=evil))
  path = started / 'search' / 'best.json'
  answer = json.loads(path.read_text())
  files.write_json(path, answer | {'strategy': evil})
  path = started / 'search' / 'calibration.json'
  found = json.loads(path.read_text())
  found['split'] = found['borrowed_from'] = evil
  found['children'][0]['name'] = evil
  files.write_json(path, found)
  _write_child(started, '<b>$x_{$', best.arch, source={'version': evil})
  report_lib.write(started)
  page = _read(started)
  assert not {'script', 'b'} & {tag for tag, _ in page.tags}
  assert page.text.count(evil) >= 4
  assert '<b>$x_{$' in page.headings


def test_child_of_another_config_is_marked(started):
  best = _write_search(started)
  source = {'step': 5, 'config_sha256': 'other', 'version': '0'}
  _write_child(started, 'best', best.arch, source=source)
  report_lib.write(started)
  assert 'another config' in _read(started).text


@pytest.mark.parametrize('other', [400, 800])
def test_only_the_step_of_the_last_search_is_compared(started, other):
  """A search of another step has begun, or is older."""
  _write_search(started)
  archive = Archive(started / 'search' / 'archive.csv', _SPACE)
  archive.append(archive.entries[0]._replace(step=other, top1=0.999))
  report_lib.write(started)
  page = _read(started)
  assert 'children of step 600 were' in page.text
  assert '1 children of other steps are not shown' in page.text
  assert '99.9' not in page.text


@pytest.mark.parametrize(
  ('path', 'text', 'names'),
  [
    ('search/best.json', '{', 'best.json'),
    ('search/best.json', '{"arch": {}}', 'arch'),
    ('search/archive.csv', 'arch,macs\n1,2\n', 'archive.csv line 1'),
    ('search/calibration.json', '[]', 'calibration.json'),
    ('children/a/child.json', '{}', 'child.json'),
  ],
)
def test_damaged_file_is_named(started, path, text, names):
  (started / path).parent.mkdir(parents=True)
  (started / path).write_text(text)
  with pytest.raises(errors.UserError, match=names):
    report_lib.write(started)
  assert not (started / 'report.html').exists()


def test_command_refuses_a_directory_that_is_no_run(tmp_path):
  done = subprocess.run(
    [sys.executable, '-m', 'bignas_jax.report', f'--workdir={tmp_path}'],
    capture_output=True,
    text=True,
    cwd=_ROOT,
    check=False,
  )
  assert done.returncode == 2
  assert done.stdout == ''
  assert len(done.stderr.splitlines()) == 1
  assert str(tmp_path) in done.stderr


def test_outliers_do_not_squash_the_picture():
  usual = [(float(i), 90 + i / 10) for i in range(20)]
  text = plots.pareto({'random': [*usual, (1.0, 10.0)]}, usual, {})
  assert '1 below' in text
  marked = {'best': [(1.0, 10.0)]}
  assert 'below' not in plots.pareto({'random': usual}, usual, marked)


def test_long_curves_are_averaged():
  long = [(float(i), 1.0) for i in range(100_000)]
  assert len(plots.curves({'random': long}, 'loss')) < 60_000


def test_notebooks_keep_their_own_style():
  before = dict(matplotlib.rcParams)
  plots.curves({'a': [(0, 1.0), (1, 2.0)]}, 'loss')
  assert dict(matplotlib.rcParams) == before
  program = (
    'import matplotlib; before = dict(matplotlib.rcParams)\n'
    'from bignas_jax.reporting import plots\n'
    'assert dict(matplotlib.rcParams) == before'
  )
  subprocess.run([sys.executable, '-c', program], check=True)


def test_axes_are_plain_numbers():
  """Top-1 is linear, however low it began; a long loss is logarithmic."""
  top1 = learning_curves.drawn({'a': [(1, 3.0), (2, 99.0)]}, 'top-1, %')
  assert 'mathdefault' not in top1
  loss = plots.curves({'a': [(1, 0.02), (2, 990.0)]}, 'loss', log=True)
  assert 'mathdefault' not in loss


def test_a_path_is_broken_after_slashes_and_escaped():
  assert page_lib.breakable('a/<b') == 'a/<wbr>&lt;b'
