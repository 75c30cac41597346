"""What a search found, as sections of the report."""

from bignas_jax.reporting import contents, html, plots
from bignas_jax.reporting.run_files import Run
from bignas_jax.runs.archive import Entry
from bignas_jax.spaces import latency, presets
from bignas_jax.spaces.arch import Arch
from bignas_jax.strategies import problem


def pareto(run: Run) -> str:
  """Accuracy against cost of all children that were evaluated."""
  title = 'Accuracy against cost'
  if not run.entries:
    return html.section(title, _nothing(run))
  groups: dict[str, list] = {}
  for entry in run.entries:
    groups.setdefault(entry.strategy, []).append(_point(entry))
  front = [_point(entry) for entry in _best_for_cost(run.entries)]
  limit = html.number(_limits(run).get('max_macs'))
  svg = plots.pareto(groups, front, _marked(run), limit and limit / 1e6)
  sizes = sorted({entry.images for entry in run.entries})
  body = html.p(
    f'{len(run.entries):,} children of step {run.entries[0].step:,} were '
    'calibrated and evaluated on '
    f'{" or ".join(f"{n:,}" for n in sizes)} images held out from training. '
    + _choice(run)
  )
  caption = (
    'Every dot is a child, coloured by the strategy that found it first. On '
    'the front, no child is both cheaper and better.'
  )
  if run.older:
    caption += f' {run.older:,} children of other steps are not shown.'
  return html.section(title, body + html.figure('pareto', svg, caption))


def _marked(run: Run) -> dict[str, plots.Points]:
  """The chosen and the extracted children, where they were evaluated."""
  known = {entry.arch: entry for entry in run.entries}
  return {
    ', '.join(names): [_point(known[arch])]
    for arch, names in _names(run).items()
    if arch in known
  }


def _names(run: Run) -> dict[Arch, list[str]]:
  """What the chosen, the extracted and the published children are called."""
  names: dict[Arch, list[str]] = {}
  if run.best_arch is not None:
    names[run.best_arch] = ['best of the last search']
  for child in run.children:
    names.setdefault(child.arch, []).append(f'extracted as {child.name}')
  for name, preset in presets.of_space(run.space.name).items():
    names.setdefault(preset.arch, []).append(name)
  return names


def by_latency(run: Run) -> str:
  """Accuracy against latency, predicted, and of whole children measured."""
  title, table = 'Accuracy against latency', run.table
  entries = run.entries
  if not entries:
    return ''
  if table is None:
    told = (
      'Latencies need a table of this space, made on the device in question '
      '(benchmark table); with one, run'
    )
    command = run.command('report', '--latency_table=FILE')
    return html.section(title, html.missing(told, command))
  points = {
    entry.arch: (table.predict(entry.arch), 100 * entry.top1)
    for entry in entries
    if entry.arch.resolution in table.resolutions
  }
  groups: dict[str, list] = {}
  for entry in entries:
    if entry.arch in points:
      groups.setdefault(entry.strategy, []).append(points[entry.arch])
  about = table.about
  said = 'estimated by its compiler' if table.estimate else 'measured on it'
  body = html.p(
    f'{about["device"]}, {about["runtime"]}, {about["batch"]} at a time: '
    f'predicted by a table of blocks, {said}. A child that was timed as a '
    'whole, too, has two stars.'
  )
  svg = plots.pareto(
    groups,
    problem.front(list(points.values())),
    _timed(run, table, points),
    html.number(_limits(run).get('max_latency_ms')),
    'milliseconds a batch',
  )
  caption = 'On the front, no child is both faster and better.'
  return html.section(title, body + html.figure('latency', svg, caption))


def _timed(
  run: Run, table: latency.Table, points: dict[Arch, tuple[float, float]]
) -> dict[str, plots.Points]:
  """Children with names, where they are predicted and where they were timed."""
  timed = {
    child.arch: contents.measured_ms(child.measured, table)
    for child in run.children
  }
  marked: dict[str, plots.Points] = {}
  for arch, names in _names(run).items():
    if arch in points:
      marked[', '.join(names)] = [points[arch]]
      ms = timed.get(arch)
      if ms is not None:
        marked[f'{names[-1]}: timed'] = [(ms, points[arch][1])]
  return marked


def _limits(run: Run) -> dict[str, contents.Number]:
  """Of the last search."""
  return (run.best.limits if run.best else None) or {}


def _choice(run: Run) -> str:
  best = run.best
  if best is None:
    return ''
  text = f'The last search ({best.strategy or "?"}'
  limits = html.limits(best.limits)
  text += f'; {limits})' if limits else '; no limits)'
  seconds = html.number(best.seconds)
  if seconds is not None:
    text += f' spent {html.duration(seconds)} on evaluations and'
  return (
    f'{text} chose a child of {html.integer(best.macs)} MACs and '
    f'{html.integer(best.params)} parameters: '
    f'{html.percent(best.top1)} % top-1.'
  )


def history(run: Run) -> str:
  """What searches tried, in the order of their evaluations."""
  title = 'What the search tried'
  entries = sorted(run.entries, key=lambda entry: entry.order)
  if not entries:
    return ''
  groups: dict[str, list] = {}
  best: list[tuple[float, float]] = []
  for i, entry in enumerate(entries, start=1):
    point = (i, entry.top1 * 100)
    groups.setdefault(entry.strategy, []).append(point)
    if not best or point[1] > best[-1][1]:
      best.append(point)
  best.append((len(entries), best[-1][1]))
  caption = (
    'Every evaluated child from the first to the last. Limits may have '
    'differed between searches.'
  )
  return html.section(
    title, html.figure('history', plots.history(groups, best), caption)
  )


def prediction(run: Run) -> str:
  """How well accuracies are predicted, where a predictor was used."""
  found = run.predictor
  if found is None:
    return ''
  pairs = zip(found.predicted or (), found.measured or (), strict=False)
  known = [(x, y) for x, y in pairs if x is not None and y is not None]
  points = [(100 * x, 100 * y) for x, y in known]
  correlation = html.number(found.rank_correlation)
  shown = html.NOTHING if correlation is None else f'{correlation:.2f}'
  error = html.percent(found.mean_abs_error)
  body = html.p(
    'From the architecture alone, trees predict held-out top-1; what they '
    'promise most is then really evaluated. Each dot is a child predicted by '
    f'trees that did not learn from it, one of {html.integer(found.folds)} '
    f'parts at a time: rank correlation {shown}, mean error {error} points '
    f'of top-1, over {html.integer(found.children)} children.'
  )
  if points:
    svg = plots.agreement(points, 'predicted top-1, %', 'measured top-1, %')
    body += html.figure('prediction', svg, 'On the line both are equal.')
  return html.section('How well accuracy is predicted', body)


def calibration(run: Run) -> str:
  """Accuracies with statistics of a child's own, borrowed, and none."""
  title = 'Why children are calibrated'
  found = run.calibration
  if found is None:
    return html.section(
      title,
      html.missing(
        'Calibrated and uncalibrated accuracies are compared by the search; '
        'run',
        run.command('search'),
      ),
    )
  lender = found.borrowed_from or 'biggest'
  body = html.p(
    'Children share weights, but their activations are distributed '
    'differently, so that each needs batch-norm statistics of its own. They '
    f'are measured on {run.config.calibration.images:,} training images: '
    'calibration. Without it a child would have to use the statistics of the '
    f'{lender} child (borrowed), or none at all: mean 0 and variance 1 '
    '(initial).'
  )
  guess = f'A guess is right in {100 / run.space.classes:.3g} % of cases.'
  return html.section(title, body + _calibrated(found, lender, guess))


def _calibrated(found: contents.Calibration, lender: str, guess: str) -> str:
  """A table and bars of what `calibration.json` says."""
  columns = ('calibrated', f'borrowed from {lender}', 'initial')
  rows, groups = [], {}
  for child in found.children or ():
    name = child.name or '?'
    other = child.uncalibrated or contents.Uncalibrated()
    borrowed = None if name == lender else other.borrowed
    values = (child.calibrated, borrowed, other.initial)
    rows.append([name, html.Integer(child.macs), *map(html.Percent, values)])
    numbers = [html.number(value) for value in values]
    groups[name] = {
      column: None if number is None else 100 * number
      for column, number in zip(columns, numbers, strict=True)
    }
  body = html.table(
    ['child', 'MACs', *(f'{column}, %' for column in columns)],
    rows,
    f'Top-1 on {html.split(found.split)} images.',
  )
  if groups:
    body += html.figure('calibration', plots.bars(groups, 'top-1, %'), guess)
  return body


def front(run: Run) -> str:
  """The children than which none is both cheaper and better."""
  title = 'Children on the front'
  if not run.entries:
    return html.section(title, _nothing(run))
  entries = _best_for_cost(run.entries)
  rows = [
    [
      html.Integer(entry.macs),
      html.Integer(entry.params),
      *html.entries(entry.arch),
      html.Percent(entry.top1),
    ]
    for entry in entries
  ]
  strong = [i for i, e in enumerate(entries) if e.arch == run.best_arch]
  caption = 'The most accurate for their cost; one number a stage'
  caption += ', widths with the stem first and the head last.'
  if strong:
    caption += ' Highlighted: the choice of the last search.'
  head = ['MACs', 'parameters', 'resolution', 'width', 'depth', 'kernel']
  head += ['expand', 'held-out top-1, %']
  return html.section(title, html.table(head, rows, caption, strong))


def _nothing(run: Run) -> str:
  return html.missing(
    'No child has been searched for yet. To find the best of at most a '
    'million multiply-adds, run',
    run.command('search', '--max_macs=1000000'),
  )


def _best_for_cost(entries: list[Entry]) -> list[Entry]:
  points = [(e.macs, e.top1, e) for e in entries]
  return [entry for *_, entry in problem.front(points)]


def _point(entry: Entry) -> tuple[float, float]:
  """M MACs and top-1 in percent."""
  return entry.macs / 1e6, entry.top1 * 100
