"""What each extracted child is, as a section of the report.

Numbers are those of its `child.json`; only costs a block are counted here.
"""

import shlex

from bignas_jax.reporting import contents, html, plots
from bignas_jax.reporting.run_files import ChildFile, Run
from bignas_jax.runs import config
from bignas_jax.spaces import counting


def section(run: Run) -> str:
  title = 'Extracted network' if run.is_one else 'Extracted children'
  if not run.children:
    told = 'No child has been extracted yet. To cut out the best one, run'
    if run.is_one:
      told = 'It has not been extracted yet. To write it as a package, run'
    out = shlex.quote(str(run.workdir / 'children' / 'best'))
    command = run.command('extract', f'--arch=best --out={out}')
    return html.section(title, html.missing(told, command))
  cards = [_card(run, i, child) for i, child in enumerate(run.children)]
  return html.section(title, ''.join(cards))


def _card(run: Run, number: int, child: ChildFile) -> str:
  body = html.table([], _facts(run, child))
  source = child.info.source or contents.Source()
  made = run.receipt.get('config_sha256') or config.sha256(run.config)
  if source.config_sha256 != made:
    body += html.p('This child comes from a run of another config.')
  body += _exports(child) + _latencies(child)
  picture = _picture(f'blocks{number}', child)
  return f'<h3>{html.text(child.name)}</h3>{body}{picture}{_blocks(child)}'


def _facts(run: Run, child: ChildFile) -> list[list[str]]:
  """What `child.json` says, a line a subject."""
  info, unknown = child.info, contents.Images()
  accuracy = info.accuracy or unknown
  calibration = info.calibration or unknown
  parity = info.parity or unknown
  source = info.source or contents.Source()
  size, width, depth, kernel_size, expand_ratio = html.entries(child.arch)
  whole = 'trained network' if run.is_one else 'supernet'
  facts = {
    'cost': f'{html.integer(info.macs)} MACs, '
    f'{html.integer(info.params)} parameters',
    'accuracy': f'{html.percent(accuracy.top1)} % top-1, '
    f'{html.percent(accuracy.top5)} % top-5 on '
    f'{html.integer(accuracy.images)} {html.split(accuracy.split)} images',
    'calibration': f'{html.integer(calibration.images)} training images, '
    f'seed {html.integer(calibration.seed)}',
    'parity': f'logits within {html.small(parity.max_abs_diff)} of the '
    f'{whole}, on {html.integer(parity.images)} images',
    'source': f'step {html.integer(source.step)}, bignas_jax '
    f'{source.version or html.NOTHING}',
    'architecture': f'{size} pixels; width {width}; depth {depth}; '
    f'kernel {kernel_size}; expand {expand_ratio}',
  }
  return [[name, text] for name, text in facts.items()]


def _exports(child: ChildFile) -> str:
  """Each artifact for serving, as its receipt says."""
  exports = child.exports or contents.Exports()
  reference = exports.reference or contents.Images()
  scale = html.number(reference.logits_scale)
  rows = []
  for name, entry in (exports.formats or {}).items():
    difference = html.number(entry.max_abs_diff)
    over_scale = html.NOTHING
    if difference is not None and scale:
      over_scale = html.small(difference / scale)
    agreement = html.Percent(entry.top1_agreement)
    rows.append([name, over_scale, agreement, html.Integer(entry.bytes)])
  if not rows:
    return ''
  head = ['export', 'difference / scale of logits', 'same top-1, %', 'bytes']
  caption = (
    'Artifacts for serving, each run in its own runtime on '
    f'{html.integer(reference.images)} {html.split(reference.split)} images '
    'and compared with the child.'
  )
  return html.table(head, rows, caption)


def _latencies(child: ChildFile) -> str:
  """What it took, on which device."""
  measured = child.measured or contents.Measured()
  rows = [
    [
      row.device or html.NOTHING,
      row.runtime or html.NOTHING,
      html.Integer(row.batch),
      html.digits(row.median_ms),
      html.digits(row.p90_ms),
      html.Integer(row.images_per_s),
    ]
    for row in measured.rows or ()
  ]
  if not rows:
    return ''
  head = ['device', 'runtime', 'batch', 'median, ms', '90 %, ms', 'images/s']
  return html.table(head, rows, 'How long it takes, measured as a whole.')


def _picture(name: str, child: ChildFile) -> str:
  """The child from the image to the classes."""
  arch, found = child.arch, []
  size = counting.rows(child.space, arch)[0].resolution
  found.append(('stem', arch.width[0], size, 'convolution'))
  for block in counting.blocks(child.space, arch):
    ratio, kind = f'x{block.expand_ratio}', f'kernel {block.kernel_size}'
    found.append((ratio, block.width_out, block.small, kind))
    size = block.small
  found.append(('head', arch.width[-1], size, 'convolution'))
  caption = (
    'Its blocks from the image to the classes: output channels, with the '
    'expand ratio above and the pixels below.'
  )
  return html.figure(name, plots.blocks(found), caption)


def _blocks(child: ChildFile) -> str:
  """The costs of the stem, every block and the head."""
  rows = counting.rows(child.space, child.arch)
  total = counting.total(rows)
  macs, params = total.macs, total.params
  lines = [
    [
      row.name,
      html.Integer(row.resolution),
      html.Integer(row.width),
      html.Integer(row.cost.macs),
      html.Percent(row.cost.macs / macs),
      html.Integer(row.cost.params),
      html.Percent(row.cost.params / params),
    ]
    for row in rows
  ]
  lines.append(
    ['total', '', '', html.Integer(macs), '', html.Integer(params), '']
  )
  head = ['block', 'pixels', 'channels', 'MACs', '%', 'parameters', '%']
  caption = 'What each block costs; pixels and channels are of its output.'
  return html.table(head, lines, caption, [len(lines) - 1])
