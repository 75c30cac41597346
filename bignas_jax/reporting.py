"""A run on one page: `report.html`, from the files of the work directory.

Numbers are those of the files; only costs a block are counted here. The page
needs no network and no script. All text goes through `page.text`, so that a
name in a file cannot become markup.
"""

import datetime
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import shlex
import statistics
from collections.abc import Iterable
from typing import Any, NamedTuple

import bignas_jax
from bignas_jax import arch as arch_lib
from bignas_jax import config as config_lib
from bignas_jax import counting, errors, metrics, nested, page, plots, selection
from bignas_jax import workdir as workdir_lib
from bignas_jax.arch import Arch
from bignas_jax.archive import Archive, Entry
from bignas_jax.config import Config
from bignas_jax.space import Space

_ROLES = ('biggest', 'random', 'smallest')


class _ChildFile(NamedTuple):
  """One `child.json`."""

  name: str
  info: dict[str, Any]
  arch: Arch
  space: Space  # pinned to the arch


class _Run(NamedTuple):
  """What the work directory holds; None or empty: not made yet."""

  workdir: pathlib.Path
  config: Config
  space: Space
  receipt: dict[str, Any]  # config.json
  lines: list[dict[str, Any]]
  entries: list[Entry]  # of the newest step that was searched
  older: int  # entries of other steps
  best: dict[str, Any] | None
  best_arch: Arch | None
  calibration: dict[str, Any] | None
  children: list[_ChildFile]

  def command(self, name: str, arguments: str = '') -> str:
    where = shlex.quote(str(self.workdir))
    text = f'python -m bignas_jax.{name} --workdir={where} {arguments}'
    return text.strip()


def write(workdir: pathlib.Path) -> dict[str, Any]:
  """Writes `report.html`; parts that are not there yet are named.

  Args:
    workdir: of a run, finished or not.

  Returns:
    The page's path and the key results.

  Raises:
    UserError: the directory is not a run's, or one of its files is damaged.
  """
  run = _read(workdir)
  results = _results(run)
  sections = (
    _head(run),
    _summary(run, results),
    _training(run),
    _search(run),
    _calibration(run),
    _front(run),
    _children(run),
    _details(run),
  )
  path = workdir / 'report.html'
  fresh = path.with_name(path.name + '.new')
  fresh.write_text(page.page(_title(run), sections), encoding='utf-8')
  os.replace(fresh, path)
  return {'report': str(path)} | results


# What is read.


def _read(workdir: pathlib.Path) -> _Run:
  config = workdir_lib.load_config(workdir)
  space = config_lib.space(config)
  archive = Archive(workdir / 'search' / 'archive.csv', space).entries
  newest = max((entry.step for entry in archive), default=0)
  entries = [entry for entry in archive if entry.step == newest]
  best = _json(workdir / 'search' / 'best.json')
  paths = sorted(workdir.glob('children/*/child.json'))
  return _Run(
    workdir=workdir,
    config=config,
    space=space,
    receipt=_json(workdir / 'config.json') or {},
    lines=metrics.read(workdir),
    entries=entries,
    older=len(archive) - len(entries),
    best=best,
    best_arch=None
    if best is None
    else arch_lib.from_dict(space, best.get('arch')),
    calibration=_json(workdir / 'search' / 'calibration.json'),
    children=[_child(p) for p in paths if p.parent.suffix != '.new'],
  )


def _json(path: pathlib.Path) -> dict[str, Any] | None:
  if not path.is_file():
    return None
  try:
    value = json.loads(path.read_text())
  except ValueError as error:
    raise errors.UserError(str(path), str(error), 'valid JSON') from None
  if not isinstance(value, dict):
    raise errors.UserError(str(path), value, 'a JSON object')
  return value


def _child(path: pathlib.Path) -> _ChildFile:
  info = _json(path) or {}
  try:
    space = nested.build(Space, info['network'])
    arch = arch_lib.from_dict(space, info['arch'])
  except (KeyError, TypeError) as error:
    raise errors.UserError(
      str(path), str(error), 'a complete child.json; extract the child again'
    ) from None
  return _ChildFile(path.parent.name, info, arch, space)


def _points(run: _Run, name: str, scale: float = 1.0) -> plots.Points:
  """(step, value) of a metric; what is not a number is left out."""
  found = {
    line['step']: number * scale
    for line in run.lines
    if (number := page.number(line.get(name))) is not None
  }
  return sorted(found.items())


def _reached(run: _Run) -> int:
  return max((line['step'] for line in run.lines), default=0)


def _results(run: _Run) -> dict[str, Any]:
  """The numbers that a hurried reader wants."""
  tested = _lines(run, 'eval/{}/top1', _ROLES)
  last = {role: points[-1][1] for role, points in tested.items()}
  found: dict[str, Any] = {
    'step': _reached(run),
    'biggest_test_top1': last.get('biggest'),
    'smallest_test_top1': last.get('smallest'),
    'evaluated': len(run.entries),
    'children': [child.name for child in run.children],
    'best': None,
  }
  if run.best is not None:
    found['best'] = {
      'macs': run.best.get('macs'),
      'params': run.best.get('params'),
      'held_out_top1': page.number(run.best.get('top1')),
      'test_top1': _test_top1(run, run.best_arch),
    }
  return found


def _test_top1(run: _Run, arch: Arch | None) -> float | None:
  """Test accuracy of an extracted child of this architecture."""
  for child in run.children:
    accuracy = child.info.get('accuracy') or {}
    if child.arch == arch and accuracy.get('split') == 'test':
      return page.number(accuracy.get('top1'))
  return None


# Sections, in reading order.


def _title(run: _Run) -> str:
  return f'BigNAS supernet {run.space.name}'


def _head(run: _Run) -> str:
  config = run.config
  facts = [
    f'report of {datetime.date.today().isoformat()}',
    f'bignas_jax {run.receipt.get("version", "?")}',
    f'step {_reached(run):,} of {config.steps:,}',
    f'{config.batch_size} images a step',
    f'seed {config.seed}',
  ]
  intro = (
    f'One supernet was trained on {config.data.name}. Its weights hold '
    f'{arch_lib.count(run.space):,} networks, its children, which differ in '
    'resolution, width, depth, kernel size and expand ratio; each is cut out '
    'and used without further training.'
  )
  line = page.text(' · '.join(facts))
  return (
    f'<header><h1>{page.text(_title(run))}</h1>'
    f'<p class="facts">{line}</p>{page.p(intro)}</header>'
  )


def _summary(run: _Run, results: dict[str, Any]) -> str:
  cards = []
  for role, make in (
    ('biggest', arch_lib.biggest),
    ('smallest', arch_lib.smallest),
  ):
    cost = counting.cost(run.space, make(run.space))
    top1 = results[f'{role}_test_top1']
    cards.append(
      _card(f'{role} child', top1, 'test top-1', cost.macs, cost.params)
    )
  best = results['best']
  if best is not None:
    test, held_out = best['test_top1'], best['held_out_top1']
    limits = page.limits(run.best)
    name = f'best of {limits}' if limits else 'best child'
    if test is None:
      what, note = 'held-out top-1', 'not extracted, so not tested yet'
    else:
      what, note = 'test top-1', f'{page.percent(held_out)} % held-out top-1'
    shown = held_out if test is None else test
    cards.append(
      _card(name, shown, what, best['macs'], best['params'], note, 'best')
    )
  note = (
    'MACs are multiply-adds for one image. The search chooses by held-out '
    'training images, which flatters its choice a little; the test images '
    'took part in no choice.'
  )
  return f'<div class="cards">{"".join(cards)}</div>{page.p(note)}'


def _card(name, top1, what, macs, params, note='', kind='') -> str:
  return (
    f'<div class="card {kind}"><span>{page.text(name)}</span>'
    f'<strong>{page.percent(top1)} %</strong><small>{page.text(what)}</small>'
    f'<span>{page.short(macs)} MACs · {page.short(params)} parameters</span>'
    f'<small>{page.text(note)}</small></div>'
  )


def _training(run: _Run) -> str:
  losses = _lines(run, 'train/loss_{}', _ROLES)
  if not losses and not _lines(run, 'eval/{}/top1', _ROLES):
    return page.section(
      'Training',
      page.missing(
        'No step has been logged yet. To train, run',
        run.command('main', '--config=FILE'),
      ),
    )
  body = page.p(
    'A step trains the biggest child, the smallest and '
    f'{run.config.random_children} random ones on the same images (the '
    'sandwich rule), with one update of the weights that they share.'
  )
  body += page.curves(
    'losses',
    losses,
    'training loss',
    'Loss on the training batch. ' + _teachers(run.config),
    plots.WIDE,
  )
  test = _lines(run, 'eval/{}/top1', _ROLES, 100)
  body += page.pair(
    page.curves(
      'train-top1',
      _lines(run, 'train/top1_{}', _ROLES, 100),
      'training top-1, %',
      'Top-1 on the augmented training batch.',
    ),
    page.curves(
      'eval-top1',
      test,
      'test top-1, %',
      'Top-1 on the test images, after calibration. '
      + ' '.join(
        f'Last, {role}: {line[-1][1]:.1f} %.' for role, line in test.items()
      ),
    ),
  )
  body += page.pair(
    page.curves(
      'lr',
      {'learning rate': _points(run, 'lr')},
      'learning rate',
      'Learning rate.',
    ),
    page.curves(
      'speed',
      {'images/s': _points(run, 'images_per_s')},
      'images a second',
      _speed(run),
    ),
  )
  return page.section('Training', body)


def _teachers(config: Config) -> str:
  teachers: dict[str, list[str]] = {}
  for edge in config.rule.edges:
    source = 'label' if edge.teacher == 'label' else f'{edge.teacher} child'
    teachers.setdefault(source, []).append(edge.student)
  told = [
    f'from the {source}: {", ".join(dict.fromkeys(students))}'
    for source, students in teachers.items()
  ]
  return (
    f'Who learns {"; ".join(told)}. Losses against different targets have '
    'different floors.'
  )


def _speed(run: _Run) -> str:
  speeds = [speed for _, speed in _points(run, 'images_per_s') if speed > 0]
  if not speeds:
    return 'Images a second were not recorded.'
  median = statistics.median(speeds)
  seconds = run.config.batch_size * _reached(run) / median
  return (
    f'Images a second; median {median:.4g}, with which {_reached(run):,} steps '
    f'take {page.duration(seconds)}. Compiling and evaluating come on top.'
  )


def _search(run: _Run) -> str:
  if not run.entries:
    return page.section('Accuracy against cost', _no_search(run))
  groups: dict[str, list] = {}
  for entry in run.entries:
    groups.setdefault(entry.strategy, []).append(_point(entry))
  front = [_point(entry) for entry in _best_for_cost(run.entries)]
  known = {entry.arch: entry for entry in run.entries}
  names: dict[Arch, list[str]] = {}
  if run.best_arch in known:
    names[run.best_arch] = ['best of the last search']
  for child in run.children:
    if child.arch in known:
      names.setdefault(child.arch, []).append(f'extracted as {child.name}')
  stars = {', '.join(n): [_point(known[a])] for a, n in names.items()}
  limits = (run.best or {}).get('limits') or {}
  limit = page.number(limits.get('max_macs'))
  svg = plots.pareto(groups, front, stars, limit and limit / 1e6)
  sizes = sorted({entry.images for entry in run.entries})
  body = page.p(
    f'{len(run.entries):,} children of step {run.entries[0].step:,} were '
    'calibrated and evaluated on '
    f'{" or ".join(f"{n:,}" for n in sizes)} images held out from training. '
    + _searched(run)
  )
  caption = (
    'Every dot is a child, coloured by the strategy that found it first. On '
    'the front, no child is both cheaper and better.'
  )
  if run.older:
    caption += f' {run.older:,} children of other steps are not shown.'
  return page.section(
    'Accuracy against cost', body + page.figure('pareto', svg, caption)
  )


def _searched(run: _Run) -> str:
  if run.best is None:
    return ''
  text = f'The last search ({run.best.get("strategy", "?")}'
  limits = page.limits(run.best)
  text += f'; {limits})' if limits else '; no limits)'
  seconds = page.number(run.best.get('seconds'))
  if seconds is not None:
    text += f' spent {page.duration(seconds)} on evaluations and'
  return (
    f'{text} chose a child of {page.integer(run.best.get("macs"))} MACs and '
    f'{page.integer(run.best.get("params"))} parameters: '
    f'{page.percent(run.best.get("top1"))} % top-1.'
  )


def _calibration(run: _Run) -> str:
  title = 'Why children are calibrated'
  found = run.calibration
  if found is None:
    return page.section(
      title,
      page.missing(
        'Calibrated and uncalibrated accuracies are compared by the search; '
        'run',
        run.command('search'),
      ),
    )
  lender = found.get('borrowed_from', 'biggest')
  columns = ('calibrated', f'borrowed from {lender}', 'initial')
  rows, groups = [], {}
  for child in found.get('children', []):
    name, other = child.get('name', '?'), child.get('uncalibrated') or {}
    borrowed = None if name == lender else other.get('borrowed')
    values = (child.get('calibrated'), borrowed, other.get('initial'))
    rows.append(
      [name, page.Integer(child.get('macs')), *map(page.Percent, values)]
    )
    numbers = [page.number(value) for value in values]
    groups[name] = {
      column: None if number is None else 100 * number
      for column, number in zip(columns, numbers, strict=True)
    }
  body = page.p(
    'Children share weights, but their activations are distributed '
    'differently, so that each needs batch-norm statistics of its own. They '
    f'are measured on {run.config.calibration.images:,} training images: '
    'calibration. Without it a child would have to use the statistics of the '
    f'{lender} child (borrowed), or none at all: mean 0 and variance 1 '
    '(initial).'
  )
  body += page.table(
    ['child', 'MACs', *(f'{column}, %' for column in columns)],
    rows,
    f'Top-1 on {page.split(found.get("split"))} images.',
  )
  if groups:
    guess = f'A guess is right in {100 / run.space.classes:.3g} % of cases.'
    body += page.figure('calibration', plots.bars(groups, 'top-1, %'), guess)
  return page.section(title, body)


def _front(run: _Run) -> str:
  title = 'Children on the front'
  if not run.entries:
    return page.section(title, _no_search(run))
  front = _best_for_cost(run.entries)
  rows = [
    [
      page.Integer(entry.macs),
      page.Integer(entry.params),
      *page.entries(entry.arch),
      page.Percent(entry.top1),
    ]
    for entry in front
  ]
  strong = [i for i, e in enumerate(front) if e.arch == run.best_arch]
  caption = 'The most accurate for their cost; one number a stage'
  caption += ', widths with the stem first and the head last.'
  if strong:
    caption += ' Highlighted: the choice of the last search.'
  head = ['MACs', 'parameters', 'resolution', 'width', 'depth', 'kernel']
  head += ['expand', 'held-out top-1, %']
  return page.section(title, page.table(head, rows, caption, strong))


def _children(run: _Run) -> str:
  title = 'Extracted children'
  if not run.children:
    out = shlex.quote(str(run.workdir / 'children' / 'best'))
    return page.section(
      title,
      page.missing(
        'No child has been extracted yet. To cut out the best one, run',
        run.command('extract', f'--arch=best --out={out}'),
      ),
    )
  return page.section(title, ''.join(_child_part(run, c) for c in run.children))


def _child_part(run: _Run, child: _ChildFile) -> str:
  body = page.table([], _child_facts(child))
  source = child.info.get('source') or {}
  if source.get('config_sha256') != config_lib.sha256(run.config):
    body += page.p('This child comes from a run of another config.')
  return f'<h3>{page.text(child.name)}</h3>{body}{_blocks(child)}'


def _child_facts(child: _ChildFile) -> list[list[str]]:
  """What `child.json` says, a line a subject."""

  def get(part: str, name: str) -> Any:
    return (child.info.get(part) or {}).get(name)

  difference = page.number(get('parity', 'max_abs_diff'))
  within = page.NOTHING if difference is None else f'{difference:.1e}'
  size, width, depth, kernel_size, expand_ratio = page.entries(child.arch)
  facts = {
    'cost': f'{page.integer(child.info.get("macs"))} MACs, '
    f'{page.integer(child.info.get("params"))} parameters',
    'accuracy': f'{page.percent(get("accuracy", "top1"))} % top-1, '
    f'{page.percent(get("accuracy", "top5"))} % top-5 on '
    f'{page.integer(get("accuracy", "images"))} '
    f'{page.split(get("accuracy", "split"))} images',
    'calibration': f'{page.integer(get("calibration", "images"))} training '
    f'images, seed {page.integer(get("calibration", "seed"))}',
    'parity': f'logits within {within} of the supernet, on '
    f'{page.integer(get("parity", "images"))} images',
    'source': f'step {page.integer(get("source", "step"))}, bignas_jax '
    f'{get("source", "version") or page.NOTHING}',
    'architecture': f'{size} pixels; width {width}; depth {depth}; '
    f'kernel {kernel_size}; expand {expand_ratio}',
  }
  return [[name, text] for name, text in facts.items()]


def _blocks(child: _ChildFile) -> str:
  """The costs of the stem, every block and the head."""
  rows = counting.rows(child.space, child.arch)
  macs, params, _ = counting.total(rows)
  lines = [
    [
      row.name,
      page.Integer(row.resolution),
      page.Integer(row.width),
      page.Integer(row.cost.macs),
      page.Percent(row.cost.macs / macs),
      page.Integer(row.cost.params),
      page.Percent(row.cost.params / params),
    ]
    for row in rows
  ]
  lines.append(
    ['total', '', '', page.Integer(macs), '', page.Integer(params), '']
  )
  head = ['block', 'pixels', 'channels', 'MACs', '%', 'parameters', '%']
  caption = 'What each block costs; pixels and channels are of its output.'
  return page.table(head, lines, caption, [len(lines) - 1])


def _details(run: _Run) -> str:
  versions = [
    ['bignas_jax, of the run', run.receipt.get('version', '?')],
    ['bignas_jax, of this report', bignas_jax.__version__],
    ['Python', platform.python_version()],
  ]
  for name in ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy'):
    versions.append([name, _version(name)])
  body = page.table(
    ['', 'version'], versions, 'Packages where this report was written.'
  )
  body += page.p(f'Config sha256: {run.receipt.get("config_sha256", "?")}')
  config = json.dumps(run.receipt.get('config'), indent=2)
  body += (
    '<details><summary>The whole config</summary>'
    f'<pre>{page.text(config)}</pre></details>'
  )
  return page.section('Config and versions', body)


def _version(name: str) -> str:
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return page.NOTHING


def _no_search(run: _Run) -> str:
  return page.missing(
    'No child has been searched for yet. To find the best of at most a '
    'million multiply-adds, run',
    run.command('search', '--max_macs=1000000'),
  )


def _best_for_cost(entries: list[Entry]) -> list[Entry]:
  points = [(e.macs, e.top1, e) for e in entries if math.isfinite(e.top1)]
  return [entry for *_, entry in selection.front(points)]


def _point(entry: Entry) -> tuple[float, float]:
  return entry.macs / 1e6, entry.top1 * 100


def _lines(
  run: _Run, name: str, roles: Iterable[str], scale: float = 1.0
) -> dict[str, plots.Points]:
  """Curves by role, without those that have no points."""
  found = {role: _points(run, name.format(role), scale) for role in roles}
  return {role: points for role, points in found.items() if points}
