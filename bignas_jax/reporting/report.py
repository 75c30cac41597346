"""A run on one page: `report.html`, from the files of the work directory.

The page needs no network and no script. All text goes through `html.text`, so
that a name in a file cannot become markup.
"""

import datetime
import json
from typing import Any

from etils import epath

from bignas_jax.methods import programs
from bignas_jax.reporting import (
  children,
  html,
  learning_curves,
  run_files,
  search_results,
  sessions,
)
from bignas_jax.reporting.run_files import Run
from bignas_jax.runs import config as config_lib
from bignas_jax.runs import run_card
from bignas_jax.spaces import arch as arch_lib
from bignas_jax.spaces import counting
from bignas_jax.spaces.arch import Arch
from bignas_jax.system import files
from bignas_jax.values import errors


def write(
  workdir: epath.Path, table: epath.Path | None = None
) -> dict[str, Any]:
  """Writes `report.html`; parts that are not there yet are named.

  Args:
    workdir: of a run, finished or not.
    table: of `benchmark table`, to show accuracies against latencies.

  Returns:
    The page's path and the key results.

  Raises:
    UserError: the directory is not a run's, one of its files is damaged, or
      the page cannot be written.
  """
  path = workdir / 'report.html'
  run = run_files.read(workdir, table)
  if path.is_dir():
    raise errors.UserError(
      '--workdir', str(path), 'a file of that name, or none'
    )
  files.check_writable(path, '--workdir')
  results = _results(run)
  sections = (
    _head(run),
    _summary(run, results),
    learning_curves.section(run),
    *([] if run.is_one else _selection(run)),
    children.section(run),
    sessions.section(run),
    _details(run),
  )
  files.write_text(path, html.page(_title(run), sections))
  return {'report': str(path)} | results


def _selection(run: Run) -> list[str]:
  return [
    search_results.pareto(run),
    search_results.by_latency(run),
    search_results.history(run),
    search_results.prediction(run),
    search_results.calibration(run),
    search_results.front(run),
  ]


def _results(run: Run) -> dict[str, Any]:
  """The numbers that a hurried reader wants."""
  tested = run.curves('eval/{}/top1')
  last = {role: points[-1][1] for role, points in tested.items()}
  found: dict[str, Any] = {
    'step': run.step,
    'biggest_test_top1': last.get('biggest'),
    'smallest_test_top1': last.get('smallest'),
    'evaluated': len(run.entries),
    'children': [child.name for child in run.children],
    'best': None,
  }
  if run.best is not None:
    found['best'] = {
      'macs': run.best.macs,
      'params': run.best.params,
      'held_out_top1': html.number(run.best.top1),
      'test_top1': _test_top1(run, run.best_arch),
    }
  return found


def _test_top1(run: Run, arch: Arch | None) -> float | None:
  """Test accuracy of an extracted child of this architecture."""
  for child in run.children:
    accuracy = child.info.accuracy
    if child.arch == arch and accuracy and accuracy.split == 'test':
      return html.number(accuracy.top1)
  return None


def _title(run: Run) -> str:
  kind = 'One network of space' if run.is_one else 'BigNAS supernet'
  return f'{kind} {run.space.name}'


def _head(run: Run) -> str:
  config = run.config
  facts = [
    f'report of {datetime.date.today().isoformat()}',
    f'bignas_jax {run.receipt.get("version", "?")}',
    f'step {run.step:,} of {config.steps:,}',
    f'{config.batch_size} images a step',
    f'seed {config.seed}',
  ]
  line = html.text(' · '.join(facts))
  return (
    f'<header><h1>{html.text(_title(run))}</h1>'
    f'<p class="facts">{line}</p>{html.p(_intro(run))}</header>'
  )


def _intro(run: Run) -> str:
  data = run.config.data.name
  if run.is_one:
    start = 'random weights'
    if run.config.init_from:
      start = f'the weights of {run.config.init_from}'
    return f'One network was trained alone on {data}, from {start}.'
  return (
    f'One supernet was trained on {data}. Its weights hold '
    f'{arch_lib.count(run.space):,} networks, its children, which differ in '
    'resolution, width, depth, kernel size and expand ratio; each is cut out '
    'and used without further training.'
  )


def _summary(run: Run, results: dict[str, Any]) -> str:
  cards = []
  for role, make in programs.evaluated(config_lib.roles(run.config)).items():
    cost = counting.cost(run.space, make(run.space))
    top1 = results[f'{role}_test_top1']
    name = 'the network' if run.is_one else f'{role} child'
    cards.append(_card(name, top1, 'test top-1', cost.macs, cost.params))
  best = results['best']
  if best is not None and not run.is_one:
    test, held_out = best['test_top1'], best['held_out_top1']
    limits = html.limits(run.best.limits if run.best else None)
    name = f'best of {limits}' if limits else 'best child'
    if test is None:
      what, note = 'held-out top-1', 'not extracted, so not tested yet'
    else:
      what, note = 'test top-1', f'{html.percent(held_out)} % held-out top-1'
    shown = held_out if test is None else test
    cards.append(
      _card(name, shown, what, best['macs'], best['params'], note, 'best')
    )
  note = 'MACs are multiply-adds for one image. '
  if not run.is_one:
    note += (
      'The search chooses by held-out training images, which flatters its '
      'choice a little; the test images took part in no choice.'
    )
  return f'<div class="cards">{"".join(cards)}</div>{html.p(note)}'


def _card(name, top1, what, macs, params, note='', kind='') -> str:
  return (
    f'<div class="card {kind}"><span>{html.text(name)}</span>'
    f'<strong>{html.percent(top1)} %</strong><small>{html.text(what)}</small>'
    f'<span>{html.short(macs)} MACs · {html.short(params)} parameters</span>'
    f'<small>{html.text(note)}</small></div>'
  )


def _details(run: Run) -> str:
  versions = [['bignas_jax, of the run', run.receipt.get('version', '?')]]
  versions += map(list, run_card.versions().items())
  body = html.table(
    ['', 'version'], versions, 'Packages where this report was written.'
  )
  body += html.p(f'Config sha256: {run.receipt.get("config_sha256", "?")}')
  config = json.dumps(run.receipt.get('config'), indent=2)
  body += (
    '<details><summary>The whole config</summary>'
    f'<pre>{html.text(config)}</pre></details>'
  )
  return html.section('Config and versions', body)
